import pytest
import torch

from hybrid_mm.layers.attention.learned_query_attention import LearnedQueryAttention2d


def drawn(*args, **kwargs):
    torch.manual_seed(0)
    layer = LearnedQueryAttention2d(*args, **kwargs).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return layer


def with_gradients(layer, x, impl):
    layer.impl = impl
    x = x.detach().requires_grad_()
    out = layer(x)
    torch.manual_seed(1)
    grad = torch.randn(out.shape, dtype=out.dtype)
    return out, *torch.autograd.grad(out, (x, *layer.parameters()), grad)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('kernel', [1, 3, 7, 13])
@pytest.mark.parametrize('height, width', [(9, 12), (2, 5), (1, 1)])
def test_equals_attention_over_windows(stride, kernel, height, width):
    layer = drawn(6, 8, 2, kernel, stride, queries=3, out_channels=5)
    x = torch.randn(2, height, width, 6, dtype=torch.float64)
    found, expected = (with_gradients(layer, x, impl) for impl in ('tiled', 'reference'))
    assert found[0].shape == (2, -(-height // stride), -(-width // stride), 5)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_what_is_kept_does_not_depend_on_the_window():
    kept = {}
    for kernel in (3, 7, 13):
        layer = LearnedQueryAttention2d(8, 8, 2, kernel)
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, saved=saved: saved.append(t) or t, lambda t: t
        ):
            layer(torch.randn(1, 40, 40, 8, requires_grad=True))
        parameters = {p.data_ptr() for p in layer.parameters()}
        large = {t.data_ptr(): t.numel() for t in saved if t.numel() >= 1600}
        kept[kernel] = sum(n for address, n in large.items() if address not in parameters)
    assert kept[3] == kept[7] == kept[13]
    assert kept[3] < 1600 * 8 * 6


def test_large_scores_stay_finite_in_half_precision():
    layer = LearnedQueryAttention2d(8, 8, 2, 3, normalize_queries=False)
    with torch.no_grad():
        layer.query.mul_(300)
    x = torch.randn(1, 16, 16, 8, requires_grad=True)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast('cpu', dtype=dtype):
            out = layer(x)
        assert out.dtype == dtype and out.isfinite().all()
        (grad,) = torch.autograd.grad(out.float().sum(), x)
        assert grad.isfinite().all()


def test_wrong_arguments():
    with pytest.raises(ValueError, match='heads must divide the 8 channels, got 3'):
        LearnedQueryAttention2d(8, 8, 3, 3)
    with pytest.raises(ValueError, match='kernel_size must be odd and positive, got 4'):
        LearnedQueryAttention2d(8, 8, 2, 4)
    with pytest.raises(
        ValueError,
        match="auto, reference, tiled, triton for learned_query_attention, got 'fast'",
    ):
        LearnedQueryAttention2d(8, 8, 2, 3, impl='fast')


@pytest.mark.parametrize('impl', ['tiled', 'reference'])
@pytest.mark.parametrize('normalize', [True, False])
@pytest.mark.parametrize('stride', [1, 2])
def test_definition(stride, normalize, impl):
    """Equations 6 to 8 pixel by pixel, with scores that differ by tens within the map."""
    layer = drawn(4, 6, 2, 3, stride, queries=2, normalize_queries=normalize, impl=impl)
    x = torch.randn(2, 5, 6, 4, dtype=torch.float64)
    query = layer.query.view(2, 2, 3)
    if normalize:
        query = query / (query.norm(dim=2, keepdim=True) + 1e-6)
    keys, values = (part(x).view(2, 5, 6, 2, 3) for part in (layer.k, layer.v))
    scores = torch.einsum('rgd,nyxgd->nrgyx', query, keys) * 3**-0.5
    with torch.no_grad():
        factor = 35 / (scores.amax() - scores.amin())
        layer.k.weight *= factor
    scores = scores * factor
    rows = []
    for y in range(0, 5, stride):
        for z in range(0, 6, stride):
            taps = [
                (a, b)
                for a in range(3)
                for b in range(3)
                if 0 <= y + a - 1 < 5 and 0 <= z + b - 1 < 6
            ]
            logits = torch.stack(
                [
                    scores[..., y + a - 1, z + b - 1] + layer.relative_bias[:, :, a, b]
                    for a, b in taps
                ],
                -1,
            )
            factors = torch.stack([layer.scale[:, :, a, b] for a, b in taps], -1)
            there = torch.stack([values[:, y + a - 1, z + b - 1] for a, b in taps], -1)
            rows.append(torch.einsum('nrgt,ngdt->ngd', logits.softmax(-1) * factors, there))
    out = torch.stack(rows, 1).flatten(2)
    expected = layer.proj(out).view(2, -(-5 // stride), -(-6 // stride), 6)
    torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize('impl', ['tiled', 'reference'])
def test_without_a_scale_what_queries_read_is_added_up(impl):
    plain = drawn(6, 8, 2, 3, 2, queries=3, attention_scale='none', impl=impl)
    scaled = drawn(6, 8, 2, 3, 2, queries=3, impl=impl)
    assert plain.scale is None
    scaled.load_state_dict(plain.state_dict() | {'scale': torch.ones_like(scaled.scale)})
    x = torch.randn(2, 5, 7, 6, dtype=torch.float64)
    torch.testing.assert_close(plain(x), scaled(x))
    with pytest.raises(ValueError, match='attention_scale must be one of normal, none'):
        LearnedQueryAttention2d(8, 8, 2, 3, attention_scale='ones')
