"""Windows of local attention in C."""

import pytest
import torch

from hybrid_mm.ops.local_attention import fused, local_attention
from hybrid_mm.ops.native import load

pytestmark = pytest.mark.skipif(
    load('window_attention', torch.float64) is None, reason='no C compiler here'
)


@pytest.fixture
def called(monkeypatch):
    """Filled with a number at every call of the kernel."""
    monkeypatch.setattr(fused, '_WIDTH', 1)
    calls, forward = [], fused.forward
    monkeypatch.setattr(fused, 'forward', lambda *args: calls.append(1) or forward(*args))
    return calls


def maps(height, width, dim=4, value_dim=3, heads=2, dtype=torch.float64):
    torch.manual_seed(0)
    return [torch.randn(2, heads, height, width, d, dtype=dtype) for d in (dim, dim, value_dim)]


@pytest.mark.parametrize('size', [(9, 21), (5, 35), (30, 8), (7, 7), (3, 4), (1, 1), (6, 32)])
@pytest.mark.parametrize(
    ('window', 'dilation'), [(3, 1), (7, 1), ((3, 5), 1), (3, 2), (5, (2, 3)), (1, 1), (7, 9)]
)
def test_equals_the_definition(size, window, dilation, called):
    q, k, v = maps(*size, value_dim=11)
    rows, columns = (window, window) if isinstance(window, int) else window
    bias = torch.randn(2, 2 * rows - 1, 2 * columns + 3, dtype=torch.float64)
    for given in (None, bias, bias[:1]):
        options = dict(dilation=dilation, bias=given, scale=0.7)
        found = local_attention(q, k, v, window, **options)
        torch.testing.assert_close(
            found, local_attention(q, k, v, window, impl='reference', **options)
        )
    assert len(called) == 3


@pytest.mark.parametrize('scale', [0.3, 30.0, 3000.0])
def test_single_precision(scale, called):
    """The exponential function is our own there."""
    q, k, v = maps(12, 20, 32, 32, dtype=torch.float32)
    bias = torch.randn(2, 13, 13)
    found = local_attention(q, k, v, 7, scale=scale, bias=bias).double()
    exact = (x.double() for x in (q, k, v))
    expected = local_attention(*exact, 7, scale=scale, bias=bias.double(), impl='reference')
    assert called
    assert (found - expected).norm() < max(3e-7, 3e-7 * scale) * expected.norm()


def test_hidden_keys_do_not_count(called):
    """Huge keys outside of the windows change nothing, nor do maps that were worked on before."""
    q, k, v = maps(9, 33, dtype=torch.float32)
    expected = local_attention(q, k, v, 3)
    k[:, :, :, 20:], v[:, :, :, 20:] = 1e30, 1e30
    torch.testing.assert_close(local_attention(q, k, v, 3)[:, :, :, :19], expected[:, :, :, :19])
    dilated = local_attention(q, k, v, 3, dilation=2)[:, :, :, :17]
    again = local_attention(q, k, v, 3, dilation=2, impl='reference')[:, :, :, :17]
    torch.testing.assert_close(dilated, again)
    assert called


def test_half_precision_and_strides(called):
    q, k, v = maps(8, 18, 8, 8, dtype=torch.float16)
    found = local_attention(q, k, v, 5)
    expected = local_attention(*(x.double() for x in (q, k, v)), 5, impl='reference')
    assert found.dtype == torch.float16
    assert (found - expected).norm() < 1e-3 * expected.norm()
    planes = [x.movedim(4, 2).contiguous().movedim(2, 4) for x in (q, k, v)]
    assert torch.equal(local_attention(*planes, 5), found)
    assert len(called) == 2


def test_what_it_leaves_to_tiles(called, monkeypatch):
    q, k, v = maps(8, 8)
    table = torch.randn(1, 5, 4, dtype=torch.float64)
    local_attention(q, k, v, 3, rel_h=table)
    local_attention(q, k, v, 3, border='mask')
    local_attention(q[:, :, ::2, ::2], k, v, 3, stride=2)
    monkeypatch.setattr(fused, '_WIDTH', 8)
    local_attention(q, k, v, 3, dilation=2)
    assert not called
    local_attention(q, k, v, 3)
    assert called


def test_gradients(called):
    """Those of the tiles, which compute the weights again."""
    found = {}
    for impl in ('auto', 'reference'):
        leaves = [x.requires_grad_() for x in maps(9, 20)]
        out = local_attention(*leaves, 5, impl=impl)
        found[impl] = torch.autograd.grad(out.square().sum(), leaves)
    assert len(called) == 1
    torch.testing.assert_close(found['auto'], found['reference'])
