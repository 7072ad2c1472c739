"""Types under autocast."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hybrid_mm.ops import decomposed_attention, local_attention
from hybrid_mm.ops.precision import (
    accurate,
    cast_as_autocast,
    multiplies_accurately,
    no_autocast,
)


def test_tensors_are_cast_as_for_a_matrix_product():
    types = torch.float32, torch.float16, torch.float64, torch.int64
    tensors = [torch.ones(2, 2).to(dtype) for dtype in types]
    assert [x.dtype for x in cast_as_autocast(*tensors)] == list(types)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        cast = [x.dtype for x in cast_as_autocast(*tensors)]
        assert cast[:3] == [(x @ x).dtype for x in tensors[:3]]
        assert cast == [torch.bfloat16, torch.bfloat16, torch.float64, torch.int64]
        with no_autocast(tensors[0]):
            assert cast_as_autocast(tensors[0])[0].dtype == torch.float32
    assert cast_as_autocast(tensors[0].to('meta'))[0].dtype == torch.float32


def test_accurate_types():
    expected = {torch.float16: torch.float32, torch.bfloat16: torch.float32}
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert accurate(torch.ones(1, dtype=dtype)).dtype == expected.get(dtype, dtype)


@pytest.fixture
def tensor_cores(monkeypatch):
    """``torch.bmm`` of half-precision numbers on a CPU takes ``out_dtype``, as it does on a GPU,
    where there are no tiles in C."""
    bmm, calls = torch.bmm, []

    def multiply(a, b, *, out_dtype=None, out=None):
        if out_dtype is None:
            return bmm(a, b, out=out)
        assert a.dtype == b.dtype == torch.float16
        calls.append(out_dtype)
        return bmm(a.to(out_dtype), b.to(out_dtype), out=out)

    for module in (local_attention.tiled, decomposed_attention.tiled):
        monkeypatch.setattr(module, 'multiplies_accurately', lambda x: x.dtype == torch.float16)
    monkeypatch.setattr(torch, 'bmm', multiply)
    monkeypatch.setattr(local_attention.fused, 'is_available', lambda q: False)
    return calls


@pytest.mark.parametrize('operator', ['window', 'window, mask', 'whole', 'decomposed'])
def test_products_in_half_precision_neither_overflow_nor_are_cast(operator, tensor_cores):
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 6, 5, 16, dtype=torch.float64) for _ in range(3))
    tables = torch.randn(1, 11, 16, dtype=torch.float64), torch.randn(1, 9, 16, dtype=torch.float64)
    q *= 3000
    tables = [table / 3000 for table in tables]

    def attend(impl, dtype):
        inputs = [x.to(dtype).requires_grad_() for x in (q, k * 100, v, *tables)]
        maps, (rel_h, rel_w) = inputs[:3], inputs[3:]
        if operator == 'decomposed':
            out = decomposed_attention.decomposed_attention(
                *maps, rel_h[0], rel_w[0], scale=1e-5, impl=impl
            )
        elif operator == 'whole':
            out = local_attention.global_attention(*maps, scale=1e-5, impl=impl)
        else:
            relative = dict(rel_h=rel_h, rel_w=rel_w) if operator == 'window' else {}
            out = local_attention.local_attention(*maps, 3, scale=1e-5, impl=impl, **relative)
        grads = torch.autograd.grad(out.sum(), inputs, allow_unused=True)
        return out, *(x for x in grads if x is not None)

    expected = attend('reference', torch.float64)
    found = attend('tiled', torch.float16)
    assert tensor_cores
    for x, y in zip(found, expected, strict=True):
        assert x.isfinite().all()
        torch.testing.assert_close(x.double(), y, rtol=0.02, atol=0.02 * y.abs().max().item())


def test_where_products_have_another_type():
    with FakeTensorMode():
        half, single = (torch.ones(1, device='cuda', dtype=t) for t in (torch.half, torch.float))
        assert multiplies_accurately(half) == ('dtype' in torch.ops.aten.bmm.overloads())
        assert not multiplies_accurately(single)
    assert not multiplies_accurately(torch.ones(1).half())
