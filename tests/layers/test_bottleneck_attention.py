"""Attention over the whole map against the definition, pair by pair."""

import pytest
import torch
import torch.nn.functional as F

from hybrid_mm.layers.attention.bottleneck_attention import BottleneckAttention


def pairs(model: BottleneckAttention, x: torch.Tensor, dim: int, tables) -> torch.Tensor:
    """Output at full resolution; ``tables`` give the position vector of an axis."""
    n, _, height, width = x.shape
    heads = model.heads
    projected = F.conv2d(x, model.qkv.weight, model.qkv.bias).split(model.widths, dim=1)
    q, *k, v = (y.unflatten(1, (heads, -1)) for y in projected)
    places = [(y, z) for y in range(height) for z in range(width)]
    out = x.new_zeros(n, heads, v.shape[2], height, width)
    for y, z in places:
        query, logits = q[..., y, z], []
        for a, b in places:
            content = (query * k[0][..., a, b]).sum(-1) * dim**-0.5 if k else 0
            position = query @ tables(a, b, y, z)
            logits.append(content + position * model.position_scale)
        weights = torch.stack(logits).softmax(0)
        values = torch.stack([v[..., a, b] for a, b in places])
        out[..., y, z] = (weights[..., None] * values).sum(0)
    return out.flatten(1, 2)


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(),
        dict(scale_pos_embed=False),
        dict(out_channels=12, dim_head=3, qkv_bias=True),
        dict(out_channels=16, qk_ratio=0.5),
        dict(stride=2),
        dict(content=False),
        dict(position='absolute'),
        dict(position='absolute', content=False, scale_pos_embed=False),
        dict(position='none'),
    ],
    ids=str,
)
def test_definition(kwargs):
    torch.manual_seed(0)
    model = BottleneckAttention(8, (5, 3), heads=2, **kwargs).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    dim = model.widths[0] // 2

    def tables(a, b, y, z):
        if model.relative is not None:
            return model.relative.rel_h[0][a - y + 4] + model.relative.rel_w[0][b - z + 2]
        if model.absolute is not None:
            return model.absolute.emb_h[a] + model.absolute.emb_w[b]
        return model.qkv.weight.new_zeros(dim)

    x = torch.randn(2, 8, 5, 3, dtype=torch.float64)
    expected = pairs(model, x, dim, tables)
    if kwargs.get('stride') == 2:
        cells = [
            [expected[..., i : i + 2, j : j + 2].mean((-2, -1)) for j in (0, 2)] for i in (0, 2, 4)
        ]
        expected = torch.stack([torch.stack(row, -1) for row in cells], -2)
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)
    model.impl = 'reference'
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-10)


def test_smaller_maps_take_the_middle_of_the_tables():
    torch.manual_seed(0)
    large, small = BottleneckAttention(8, (7, 6)), BottleneckAttention(8, (4, 6))
    state = large.state_dict()
    state['relative.rel_h'] = state['relative.rel_h'][:, 3:10]
    small.load_state_dict(state)
    x = torch.randn(1, 8, 4, 6)
    torch.testing.assert_close(large(x), small(x))


def test_larger_maps_interpolate():
    torch.manual_seed(0)
    small, large = BottleneckAttention(8, (2, 2)), BottleneckAttention(8, (3, 2))
    state = small.state_dict()
    a, b, c = state['relative.rel_h'].unbind(1)
    state['relative.rel_h'] = torch.stack([a, (a + b) / 2, b, (b + c) / 2, c], 1)
    large.load_state_dict(state)
    x = torch.randn(1, 8, 3, 2)
    torch.testing.assert_close(small(x), large(x))


@pytest.mark.parametrize('position', ['relative', 'absolute', 'none'])
def test_every_parameter_learns_at_any_size(position):
    model = BottleneckAttention(8, (4, 4), stride=2, position=position)
    for size in ((3, 4), (9, 5)):
        model.zero_grad()
        model(torch.randn(1, 8, *size)).pow(2).sum().backward()
        assert all(p.grad.abs().max() > 0 for p in model.parameters())


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"position must be .*got 'sine'"):
        BottleneckAttention(8, (4, 4), position='sine')
    with pytest.raises(ValueError, match='attention without content needs a position'):
        BottleneckAttention(8, (4, 4), position='none', content=False)
    with pytest.raises(ValueError, match='heads must divide the 10 output channels, got 4'):
        BottleneckAttention(8, (4, 4), 10)
