"""ELSA against the published formulation, its memory and its errors."""

import pytest
import torch

from hybrid_mm.benchmarks.core import memory
from hybrid_mm.compat.torch_api import as_if_exporting
from hybrid_mm.layers.attention.elsa import ELSA
from hybrid_mm.ops import budget
from hybrid_mm.ops.ghost_attention import fused, ghost_attention, reference, tiles

KERNEL = fused


@pytest.mark.parametrize('numbers', [1, 2**20])
@pytest.mark.parametrize(
    ('size', 'settings'),
    [
        ((9, 14), dict(kernel_size=7, lam=0, qk_scale=1, qkv_bias=True)),
        ((20, 17), dict(kernel_size=5, lam=0, dilation=2)),
        ((1, 3), dict(kernel_size=7, lam=0, gamma=0, groups=4)),
        ((9, 11), dict(kernel_size=3, lam=1, gamma=0.5)),
        ((11, 9), dict(kernel_size=5, lam=2, gamma=0, dilation=3, groups=4)),
    ],
)
def test_agrees_with_the_reference(size, settings, numbers, language):
    """A row at a time, and all images at once."""
    torch.manual_seed(0)
    module = ELSA(24, 4, group_width=4, **settings).double()
    x = torch.randn(2, *size, 24, dtype=torch.float64, requires_grad=True)
    found = []
    for module.impl in ('tiled', 'reference'):
        with budget.limited(numbers):
            y = module(x)
            grads = torch.autograd.grad(y.pow(2).sum(), [x, *module.parameters()])
        found.append([y, *grads])
    assert found[0][0].shape == x.shape
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-9)


@pytest.mark.parametrize('settings', [dict(), dict(dilation=2), dict(factors=True)])
@pytest.mark.parametrize('size', [(1, 1), (3, 17), (9, 7), (4, 8), (13, 5)])
def test_exported_form(size, settings):
    """At odd sizes, with windows beyond all borders, in tiles that are full and that are not."""
    torch.manual_seed(0)
    factors, dilation = 'factors' in settings, settings.get('dilation', 1)
    shapes = (2, 4, *size), (2, 6, *size), (50, 2), (50,), (6, 5, 5), (6, 5, 5)
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    if not factors:
        inputs[4] = None
    with as_if_exporting():
        found = ghost_attention(*inputs, heads=2, kernel_size=5, dilation=dilation)
    torch.testing.assert_close(found, reference.attend(*inputs, 2, 5, dilation))


def test_pixel_by_pixel(language):
    """The sum of section 3.3, for a pixel in a corner and one inside."""
    torch.manual_seed(0)
    hidden, v = torch.randn(1, 4, 5, 6), torch.randn(1, 6, 5, 6)
    weight, bias = torch.randn(2 * 9, 4), torch.randn(18)
    out = ghost_attention(hidden, v, weight, bias, heads=2, kernel_size=3)
    for y, x in ((0, 0), (3, 2)):
        logits = weight @ torch.nn.functional.gelu(hidden[0, :, y, x]) + bias
        a = logits.view(2, 9).softmax(1)
        for c in range(6):
            total = 0.0
            for t in range(9):
                i, j = y + t // 3 - 1, x + t % 3 - 1
                if 0 <= i < 5 and 0 <= j < 6:
                    total += a[c // 3, t] * v[0, c, i, j]
            torch.testing.assert_close(out[0, c, y, x], total)


def test_operator_is_registered_completely(opcheck):
    torch.manual_seed(0)
    shapes = (2, 4, 9, 10), (2, 6, 9, 10), (18, 4), (18,)
    tensors = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes]
    opcheck(torch.ops.hybrid_mm.ghost_attention, (*tensors, 2, 3, 1))


@pytest.mark.parametrize(('lam', 'maps'), [(0, 8), (1, 9)])
def test_keeps_few_maps(lam, maps):
    x = torch.randn(1, 40, 48, 24, requires_grad=True)
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        ELSA(24, 3, 7, group_width=4, lam=lam)(x)
    assert sum(kept.values()) < maps * x.numel() * 4


def test_half_precision():
    torch.manual_seed(0)
    module = ELSA(24, 3, 7, group_width=4, lam=0, qk_scale=1)
    x = torch.randn(1, 12, 13, 24)
    expected = module(x)
    with torch.autocast('cpu', torch.bfloat16):
        found = module(x)
    assert found.dtype == torch.bfloat16
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()


def test_dropout_of_weights_in_training_only():
    torch.manual_seed(0)
    module, x = ELSA(24, 3, lam=0, attn_drop=0.5), torch.randn(1, 6, 7, 24)
    plain = ELSA(24, 3, lam=0)
    plain.load_state_dict(module.state_dict())
    torch.testing.assert_close(module.eval()(x), plain(x))
    module.train()
    assert not torch.allclose(module(x), module(x))


def test_errors():
    with pytest.raises(ValueError, match='heads must divide the 10 channels, got 3'):
        ELSA(10, 3)
    with pytest.raises(ValueError, match='kernel_size must be odd, got 4'):
        ELSA(12, 3, 4)
    with pytest.raises(ValueError, match='the 75 weights of a pixel, got 2'):
        ELSA(12, 3, groups=2)
    with pytest.raises(ValueError, match='ELSA has no windows to shift, got shift 1'):
        ELSA(12, 3)(torch.randn(1, 4, 4, 12), 1)
    with pytest.raises(ValueError, match='auto, reference, tiled, triton for ghost_attention'):
        ELSA(12, 3, impl='cuda')


@pytest.mark.parametrize('tile', [4, 8])
def test_half_precision_sums_up_in_single_precision(tile, monkeypatch, language):
    """Also where the rectangles of several tiles overlap: rounded once, at the end."""
    monkeypatch.setattr(tiles, '_TILE', tile)
    torch.manual_seed(0)
    low = [torch.randn(s, dtype=torch.bfloat16) for s in ((2, 4, 13, 18), (2, 6, 13, 18))]
    low += [torch.randn(2 * 49, 4), torch.randn(98)]
    dy = torch.randn(2, 6, 13, 18, dtype=torch.bfloat16)
    found = []
    for tensors in (low, [t.double() for t in low]):
        leaves = [t.detach().requires_grad_() for t in tensors]
        out = ghost_attention(*leaves, heads=2, kernel_size=7)
        found.append([out, *torch.autograd.grad(out, leaves, dy.to(out))])
    for a, b in zip(*found, strict=True):
        step = torch.finfo(a.dtype).eps / 2
        assert ((a - b).abs() <= step * b.abs() + 2e-6 * b.abs().max()).all()


@pytest.mark.parametrize('dim, width', [(96, 64), (20, 16), (64, 48), (128, 88), (32, 24)])
def test_width_of_queries_is_filled_up_to_whole_groups(dim, width):
    module = ELSA(dim, 4)
    assert module.conv.in_channels == module.conv.out_channels == width
    assert module.conv.groups == width // 8
    assert module.pre_proj.out_channels == 2 * width + dim


@pytest.mark.parametrize(('images', 'heads', 'size'), [(1, 8, (128, 64)), (12, 1, (64, 64))])
def test_weights_exist_for_some_rows_at_a_time(images, heads, size, language):
    """Of the matrices of all tiles, 51 and 39 MB, those of a few images and rows."""
    hidden, v = torch.randn(2, images, 8, *size).unbind()
    weight, bias = torch.randn(heads * 49, 8), torch.randn(heads * 49)
    matrices = images * size[0] * size[1] * heads * 14**2 * 4
    peak, _ = memory(
        lambda: ghost_attention(hidden, v, weight, bias, heads=heads, kernel_size=7),
        torch.device('cpu'),
    )
    assert peak < matrices / 3


def test_filters_exist_for_some_rows_at_a_time():
    """With factors the filters of all channels are formed, 103 MB of taps for these images."""
    module, x = ELSA(8, 1, 7, group_width=4), torch.randn(64, 32, 32, 8)
    with torch.no_grad():
        peak, _ = memory(lambda: module(x), torch.device('cpu'))
    assert peak < 64 * 32 * 32 * 8 * 49 * 4 / 2
