"""Attention-augmented convolution against the equations of the paper."""

import pytest
import torch
import torch.nn.functional as F

from hybrid_mm.layers import AAConv2d


def build(**kwargs):
    settings = dict(key_channels=8, value_channels=6, heads=2, size=(4, 5)) | kwargs
    torch.manual_seed(0)
    return AAConv2d(6, 10, **settings).double()


def attention(module, x):
    """Equations 1 to 4 with a loop over the queries."""
    heads = module.heads
    n, _, height, width = x.shape
    q, k, v = module.qkv_conv(x).split(module.widths, dim=1)
    q, k, v = (t.reshape(n, heads, -1, height, width) for t in (q, k, v))
    dim = q.shape[2]
    out = torch.zeros_like(v)
    for y in range(height):
        for x_ in range(width):
            query = q[..., y, x_]
            logits = torch.einsum('nhd,nhdyx->nhyx', query, k)
            if module.relative is not None:
                row = module.relative.rel_h[0, torch.arange(height) - y + height - 1]
                column = module.relative.rel_w[0, torch.arange(width) - x_ + width - 1]
                logits = logits + torch.einsum('nhd,yd->nhy', query, row)[..., None]
                logits = logits + torch.einsum('nhd,xd->nhx', query, column)[..., None, :]
            p = (logits / dim**0.5).flatten(2).softmax(-1)
            out[..., y, x_] = torch.einsum('nht,nhdt->nhd', p, v.flatten(3))
    return module.attn_out(out.flatten(1, 2))


@pytest.mark.parametrize('impl', ['tiled', 'reference'])
@pytest.mark.parametrize('size', [(4, 5), None])
def test_equals_the_equations(size, impl):
    module = build(size=size, impl=impl)
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    expected = torch.cat([module.conv_out(x), attention(module, x)], dim=1)
    torch.testing.assert_close(module(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('stride', [1, 2])
def test_attention_at_half_the_resolution(stride):
    module = build(attn_downsample=True, stride=stride)
    x = torch.randn(1, 6, 17, 20, dtype=torch.float64)
    pooled = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    low = module.attention(pooled)
    size = (17, 20) if stride == 1 else (9, 10)
    assert low.shape[-2:] == tuple(-(-s // 2) for s in size)
    expected = F.interpolate(low, size, mode='bilinear', align_corners=False)
    out = module(x)
    assert out.shape == (1, 10, *size)
    torch.testing.assert_close(out[:, 4:], expected)
    torch.testing.assert_close(out[:, :4], module.conv_out(x))


def test_smaller_maps_take_the_middle_of_the_tables():
    module, small = build(size=(9, 11)), build(size=(4, 5))
    state = module.state_dict()
    state['relative.rel_h'] = state['relative.rel_h'][:, 5:12]
    state['relative.rel_w'] = state['relative.rel_w'][:, 6:15]
    small.load_state_dict(state)
    x = torch.randn(1, 6, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(module(x), small(x))
    assert module(torch.randn(1, 6, 13, 30, dtype=torch.float64)).shape == (1, 10, 13, 30)


def test_bias_and_dilation():
    assert not [n for n, _ in build(bias=False).named_parameters() if n.endswith('bias')]
    assert len([n for n, _ in build().named_parameters() if n.endswith('bias')]) == 3
    module = build(dilation=2)
    assert module.conv_out.dilation == (2, 2)
    assert module(torch.rand(1, 6, 7, 8, dtype=torch.float64)).shape == (1, 10, 7, 8)


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(kernel_size=4), 'kernel_size must be odd, got 4'),
        (dict(heads=3), 'got 3 heads for 8 and 6'),
        (dict(value_channels=10), 'leave some to the convolution, got value_channels 10'),
    ],
)
def test_bad_arguments_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


@pytest.mark.parametrize('kernel, dilation', [(1, 1), (5, 1), (5, 2), (7, 1)])
def test_kernels_of_other_sizes(kernel, dilation):
    module = build(kernel_size=kernel, dilation=dilation)
    x = torch.randn(2, 6, 9, 12, dtype=torch.float64)
    conv, reach = module.conv_out, dilation * (kernel // 2)
    expected = F.conv2d(x, conv.weight, conv.bias, 1, reach, dilation)
    out = module(x)
    assert out.shape == (2, 10, 9, 12)
    torch.testing.assert_close(out[:, :4], expected)
