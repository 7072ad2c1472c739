"""ACmix's convolution path in C; that it is the definition, tests of the layer check as well."""

import pytest
import torch

from hybrid_mm.ops import native
from hybrid_mm.ops.mixed_shift import fused, mixed_shift, tiled

KERNEL = fused
pytestmark = pytest.mark.skipif(
    native.load('mixed_shift', torch.float64) is None, reason='no C compiler here'
)


def inputs(size, maps=6, dim=3, outputs=2, taps=9, kernel=3, bias=True, dtype=torch.float64):
    torch.manual_seed(0)
    shapes = (2, maps, dim, *size), (taps, maps), (taps,), (dim * outputs, taps, kernel, kernel)
    x, fc, b, weight = (torch.randn(shape, dtype=dtype) for shape in shapes)
    return [x, fc, b if bias else None, weight]


def with_gradients(tensors, **options):
    leaves = [x if x is None else x.detach().requires_grad_() for x in tensors]
    out = mixed_shift(*leaves, **options)
    given = [x for x in leaves if x is not None]
    return out.detach(), *torch.autograd.grad((out * out.detach().cos()).sum(), given)


def check(tensors, **options):
    found = with_gradients(tensors, impl='tiled', **options)
    expected = with_gradients(tensors, impl='reference', **options)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('size', [(41, 9), (1, 1), (17, 40), (2, 3), (16, 31)])
def test_bands_and_phases(size, stride, threads, called, monkeypatch):
    """Bands of a few rows, of which several pixels have no output."""
    monkeypatch.setattr(fused, '_BAND', 1)
    for kernel in (1, 3, 5, 7):
        check(inputs(size, kernel=kernel), stride=stride)
    assert called == ['forward', 'backward'] * 4


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('numbers', [(1, 1, 1, 1), (12, 4, 12, 9), (13, 5, 8, 13), (36, 2, 25, 14)])
def test_any_number_of_maps(numbers, stride, called, monkeypatch):
    """Up to 12 maps or outputs are done at once."""
    monkeypatch.setattr(tiled, '_FEW', 1)
    for bias in (True, False):
        check(inputs((7, 19), *numbers, bias=bias), stride=stride)
    assert called == ['forward', 'backward'] * 2


@pytest.mark.parametrize('stride', [1, 2])
def test_results_are_the_same_from_run_to_run(stride, threads):
    tensors = inputs((30, 21), 9, 8, 3, dtype=torch.float32)
    first = with_gradients(tensors, stride=stride)
    for _ in range(5):
        again = with_gradients(tensors, stride=stride)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize('stride', [1, 2])
def test_tokens_and_half_precision(stride, called):
    """Gradients have the strides of the maps."""
    x, *others = inputs((9, 18), dtype=torch.float32)
    expected = with_gradients([x, *others], stride=stride)
    tokens = x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    found = with_gradients([tokens, *others], stride=stride)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert found[1].stride() == tokens.stride()
    low = mixed_shift(*(t.bfloat16() for t in (x, *others)), stride=stride)
    assert low.dtype == torch.bfloat16
    assert (low - expected[0]).norm() < 0.02 * expected[0].norm()
    assert called == ['forward', 'backward', 'forward', 'backward', 'forward']


def test_keeps_the_maps_alone():
    """With a stride as well: neither mixed maps nor copies."""
    tensors = [t.requires_grad_() for t in inputs((40, 40), 12, 8, 4, dtype=torch.float32)]
    for stride in (1, 2):
        kept = {}

        def pack(t, kept=kept):
            kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            mixed_shift(*tensors, stride=stride)
        assert sum(kept.values()) < 1.05 * tensors[0].nbytes


@pytest.mark.parametrize('stride', [1, 2])
def test_the_operator_without_its_kernel(stride, monkeypatch):
    """A compiled graph may come from a machine that had one."""
    x, fc, bias, weight = inputs((8, 9))
    arguments = x, fc, bias, weight.unflatten(0, (3, 2)), stride
    found = []
    for available in (True, False):
        monkeypatch.setattr(fused, 'is_available', lambda *_, a=available: a)
        leaves = [t.detach().requires_grad_() for t in arguments[:4]]
        out = tiled.mix_and_shift(*leaves, stride)
        found.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('stride', [1, 2])
def test_operator_is_registered_completely(stride, opcheck):
    x, fc, bias, weight = inputs((6, 7))
    tensors = [t.requires_grad_() for t in (x, fc, bias, weight.unflatten(0, (3, 2)).detach())]
    opcheck(torch.ops.hybrid_mm.mix_and_shift, (*tensors, stride))


def test_what_it_leaves_to_others(called):
    """Many outputs of few pixels."""
    for side, stride, calls in ((9, 1, 0), (10, 1, 2), (19, 2, 0), (20, 2, 2)):
        with_gradients(inputs((side, side), outputs=9), stride=stride)
        assert len(called) == calls
        called.clear()


def test_memory_that_is_missing(monkeypatch):
    class Library:
        forward = backward = staticmethod(lambda *_: 0)

    x, fc, bias, weight = inputs((3, 3))
    weight = weight.unflatten(0, (3, 2))
    monkeypatch.setattr(native, 'load', lambda *_: Library)
    with pytest.raises(MemoryError, match='no memory for the working space'):
        fused.forward(x, fc, bias, weight, 1)
    with pytest.raises(MemoryError, match='no memory for the working space'):
        fused.backward(x.flatten(1, 2)[:, :6], x, fc, bias, weight, 1)
