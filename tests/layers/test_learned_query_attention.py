import pytest
import torch

from hybrid_mm.layers.learned_query_attention import LearnedQueryAttention2d


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
    found, expected = (with_gradients(layer, x, impl) for impl in ('engine', 'reference'))
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
    with pytest.raises(ValueError, match="impl must be 'engine' or 'reference', got 'fast'"):
        LearnedQueryAttention2d(8, 8, 2, 3, impl='fast')
