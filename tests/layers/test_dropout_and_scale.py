"""Factors of the logits, and dropout of attention weights and results."""

import pytest
import torch
from torch import nn

from hybrid_mm.layers import ELSA, QuadraticAttention2d
from hybrid_mm.layers.attention.acmix import ACmixWindowAttention
from hybrid_mm.layers.attention.neighborhood_attention import NeighborhoodAttention2d
from hybrid_mm.layers.attention.window_attention import WindowAttention

RATE, KEEP = 0.3, 0.7


def scrambled(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double()


def queries_times(layer, factor, dim):
    """Multiply the queries, the first channels of a projection."""
    with torch.no_grad():
        layer.weight[:dim] *= factor
        if layer.bias is not None:
            layer.bias[:dim] *= factor


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('impl', ['windows', 'tiled', 'reference'])
@pytest.mark.parametrize('shift', [0, 1])
def test_scale_of_windows(impl, shift, bias):
    """qk_scale is a factor of the queries; without it, that is (C / heads)^-0.5."""
    kwargs = dict(impl=impl, qkv_bias=bias)
    given = scrambled(WindowAttention(12, 3, 2, qk_scale=1.7, **kwargs))
    one = scrambled(WindowAttention(12, 3, 2, qk_scale=1.0, **kwargs))
    default = scrambled(WindowAttention(12, 3, 2, **kwargs))
    queries_times(one.qkv, 1.7, 12)
    queries_times(default.qkv, 1.7 * 6**0.5, 12)
    x = torch.randn(2, 6, 9, 12, dtype=torch.float64)
    torch.testing.assert_close(given(x, shift), one(x, shift))
    torch.testing.assert_close(given(x, shift), default(x, shift))
    assert not torch.allclose(given(x, shift), scrambled(WindowAttention(12, 3, 2))(x, shift))


@pytest.mark.parametrize('kind', [WindowAttention, ACmixWindowAttention])
def test_scale_of_large_maps(kind):
    """Above 8192 pixels the engine computes, with the same factor."""
    layer = scrambled(kind(4, 4, 2, qk_scale=1.3))
    x = torch.randn(1, 88, 96, 4, dtype=torch.float64)
    with torch.no_grad():
        found = layer(x, 2)
        layer.impl = 'reference'
        torch.testing.assert_close(found, layer(x, 2))


def test_scale_of_neighborhoods():
    given = scrambled(NeighborhoodAttention2d(12, 2, 3, 2, qk_scale=1.7))
    default = scrambled(NeighborhoodAttention2d(12, 2, 3, 2))
    queries_times(default.qkv, 1.7 * 6**0.5, 12)
    x = torch.randn(2, 7, 9, 12, dtype=torch.float64)
    torch.testing.assert_close(given(x), default(x))


@pytest.mark.parametrize('impl', ['tiled', 'reference'])
def test_scale_of_elsa(impl):
    """Of the product of query and key, by default the width of a head, not of the queries."""
    given = scrambled(ELSA(12, 2, 3, group_width=4, qk_scale=1.7, impl=impl))
    default = scrambled(ELSA(12, 2, 3, group_width=4, impl=impl))
    one = scrambled(ELSA(12, 2, 3, group_width=4, qk_scale=1, impl=impl))
    queries_times(default.pre_proj, 1.7 * 6**0.5, 8)
    queries_times(one.pre_proj, 1.7, 8)
    x = torch.randn(2, 5, 7, 12, dtype=torch.float64)
    torch.testing.assert_close(given(x), default(x))
    torch.testing.assert_close(given(x), one(x))


def without_projection(module, dim=8):
    """Let the last layer hand on what the heads give."""
    last = module.post_proj if isinstance(module, ELSA) else module.proj
    nn.init.eye_(last.weight)
    nn.init.zeros_(last.bias)
    return module


def one_tap(kind, **kwargs):
    """Attention of every pixel to itself: all weights are 1."""
    torch.manual_seed(1)
    if kind is ELSA:
        return without_projection(ELSA(8, 4, 1, group_width=4, lam=0, **{'gamma': 0, **kwargs}))
    return without_projection(kind(8, 1, 4, **kwargs))


@pytest.mark.parametrize('kind', [WindowAttention, ELSA])
def test_weights_are_dropped_and_the_others_scaled(kind):
    """A head of a pixel is dropped as a whole, by chance, and else divided by what is kept."""
    module = one_tap(kind, attn_drop=RATE)
    x = torch.randn(2, 30, 40, 8)
    with torch.no_grad():
        plain = module.eval()(x)
        ratio = (module.train()(x) / plain).unflatten(3, (4, 2))
        again = (module(x) / plain).unflatten(3, (4, 2))
    kept = ratio > 0.5
    torch.testing.assert_close(ratio, kept / KEEP)
    assert torch.equal(kept[..., 0], kept[..., 1])
    kept = kept[..., 0]
    assert kept.float().mean().item() == pytest.approx(KEEP, abs=0.02)
    for dim in (0, 3):  # neither images nor heads share a mask
        a, b = kept.select(dim, 0), kept.select(dim, 1)
        assert (a == b).float().mean().item() == pytest.approx(KEEP**2 + RATE**2, abs=0.05)
    assert (kept != (again[..., 0] > 0.5)).any()


def test_dropout_of_elsa_leaves_the_summands():
    module = one_tap(ELSA, attn_drop=RATE, gamma=0.5)
    nn.init.constant_(module.ghost_head, 3.0)
    x = torch.randn(2, 9, 11, 8)
    with torch.no_grad():
        ratio = module.train()(x) / (module.eval()(x) / 2.5)
    kept = ratio > 2
    torch.testing.assert_close(ratio, kept / KEEP + 1.5)
    assert kept.any() and not kept.all()


@pytest.mark.parametrize('kind', [WindowAttention, ELSA])
def test_dropout_keeps_the_mean(kind):
    """Of several equal weights: mean 1, and the variance of a sum of so many."""
    torch.manual_seed(1)
    if kind is ELSA:
        module = without_projection(ELSA(8, 4, 3, group_width=4, lam=0, gamma=0, attn_drop=RATE))
        nn.init.zeros_(module.to_weights.weight)
        nn.init.zeros_(module.to_weights.bias)
        nn.init.zeros_(module.pre_proj.weight)
        module.pre_proj.bias, taps = nn.Parameter(torch.ones(8 + 2 * module.qk_dim)), 9
    else:
        module, taps = without_projection(WindowAttention(8, 3, 4, attn_drop=RATE)), 9
        nn.init.zeros_(module.qkv.weight)
        nn.init.ones_(module.qkv.bias)
        nn.init.zeros_(module.relative_bias)
    with torch.no_grad():
        out = module.train()(torch.randn(2, 36, 42, 8))[:, 1:-1, 1:-1, ::2]
    assert out.mean().item() == pytest.approx(1, abs=0.01)
    assert out.var().item() == pytest.approx(RATE / KEEP / taps, rel=0.1)


@pytest.mark.parametrize('kind', [WindowAttention, ELSA])
def test_dropout_of_results(kind):
    """Number by number behind the projection, on every path, and not with the other rate."""
    module = one_tap(kind, proj_drop=RATE)
    x = torch.randn(2, 30, 40, 8)
    with torch.no_grad():
        plain = module.eval()(x)
        ratio = module.train()(x) / plain
    kept = ratio > 0.5
    torch.testing.assert_close(ratio, kept / KEEP)
    assert kept.float().mean().item() == pytest.approx(KEEP, abs=0.02)
    equal = (kept[..., 0] == kept[..., 1]).float().mean().item()
    assert equal == pytest.approx(KEEP**2 + RATE**2, abs=0.05)


@pytest.mark.parametrize('mode', ['isotropic', 'full', 'learned', 'learned_content'])
def test_dropout_of_quadratic_attention(mode):
    """On a map of one pixel a head is dropped as a whole."""
    torch.manual_seed(0)
    module = QuadraticAttention2d(1, 500, 500, mode, attn_drop=RATE)
    nn.init.eye_(module.value.weight)
    x = torch.full((2, 1, 1, 1), 3.0)
    with torch.no_grad():
        assert (module.eval()(x) == 3).all()
        out = module.train()(x).flatten(1)
    kept = out > 1
    torch.testing.assert_close(out, kept * 3 / KEEP)
    assert kept.float().mean().item() == pytest.approx(KEEP, abs=0.06)
    # the official code has one mask for all images where all have the same probabilities
    assert torch.equal(kept[0], kept[1]) == (mode != 'learned_content')


@pytest.mark.parametrize('shift', [0, 2])
def test_windows_with_dropout_are_the_same_in_evaluation(shift):
    dropping = scrambled(WindowAttention(8, 4, 2, attn_drop=RATE, proj_drop=RATE)).eval()
    plain = scrambled(WindowAttention(8, 4, 2)).eval()
    x = torch.randn(2, 8, 12, 8, dtype=torch.float64)
    torch.testing.assert_close(dropping(x, shift), plain(x, shift))
    assert not torch.equal(dropping.train()(x, shift), dropping(x, shift))
