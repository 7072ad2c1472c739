"""MBConv, partition attention and global relative attention against plain formulations."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hybrid_mm.layers.attention.global_relative_attention import GlobalRelativeAttention
from hybrid_mm.layers.attention.partition_attention import PartitionAttention
from hybrid_mm.layers.convolution.mbconv import POOLS, Conv3x3, MBConv, halve
from hybrid_mm.layers.relative_position import LogRelativeBias2d
from hybrid_mm.ops.local_attention import global_attention, partition_attention, windows
from hybrid_mm.ops.positions import bias_matrix, resize_bias_table


def groups(height, width, window, grid):
    """For each pixel, its group and its place in it, one pixel at a time."""
    out = {}
    steps = [-(-n // w) for n, w in zip((height, width), window, strict=True)]
    for y in range(height):
        for x in range(width):
            if grid:
                group = y % steps[0], x % steps[1]
                place = y // steps[0], x // steps[1]
            else:
                group = y // window[0], x // window[1]
                place = y % window[0], x % window[1]
            out[y, x] = group, place
    return out


def plain(layer, x, window, grid):
    """Attention pixel by pixel."""
    n, height, width, _ = x.shape
    q, k, v = layer.qkv(x).view(n, height, width, 3, layer.heads, layer.width).unbind(3)
    table = layer.relative_bias(*window)
    places = groups(height, width, window, grid)
    rows = []
    for group, place in places.values():
        keys = [p for p, (other, _) in places.items() if other == group]
        ys, xs = zip(*keys, strict=True)
        offsets = [[b - a for a, b in zip(place, places[key][1], strict=True)] for key in keys]
        bias = torch.stack([table[:, a + window[0] - 1, b + window[1] - 1] for a, b in offsets])
        y, column = next(p for p, known in places.items() if known == (group, place))
        logits = torch.einsum('nhd,nkhd->nhk', q[:, y, column], k[:, ys, xs])
        weights = (logits * layer.width**-0.5 + bias.t()).softmax(-1)
        rows.append(torch.einsum('nhk,nkhd->nhd', weights, v[:, ys, xs]).flatten(1))
    return layer.proj(torch.stack(rows, 1).view(n, height, width, -1))


def check(layer, x, expected):
    """Outputs and all gradients, with and without a gradient of the table, by every path."""
    dy = torch.randn_like(expected)
    inputs = [x, *layer.parameters()]
    wanted = torch.autograd.grad(expected, inputs, dy)
    out = layer(x)
    torch.testing.assert_close(out, expected)
    for a, b in zip(torch.autograd.grad(out, inputs, dy), wanted, strict=True):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize('size', [(8, 6), (7, 5), (2, 9), (5, 4)])
@pytest.mark.parametrize('kind', ['block', 'grid'])
@pytest.mark.parametrize('path', ['batched', 'engine', 'reference'])
def test_partition_attention(size, kind, path, monkeypatch):
    monkeypatch.setattr(windows, '_LARGE', 0 if path == 'engine' else 10**6)
    torch.manual_seed(0)
    impl = 'reference' if path == 'reference' else 'auto'
    layer = PartitionAttention(6, (4, 3), 4, kind, channels=5, hidden_channels=8, impl=impl)
    layer = layer.double()
    nn.init.normal_(layer.relative_bias.table)
    x = torch.randn(2, *size, 6, dtype=torch.float64, requires_grad=True)
    check(layer, x, plain(layer, x, (4, 3), kind == 'grid'))


@pytest.mark.parametrize('size', [(5, 4), (3, 7)])
@pytest.mark.parametrize('path', ['batched', 'engine'])
@pytest.mark.parametrize('relative', ['table', 'log'])
def test_global_attention(size, path, relative, monkeypatch):
    monkeypatch.setattr(windows, '_LARGE', 0 if path == 'engine' else 10**6)
    torch.manual_seed(0)
    layer = GlobalRelativeAttention(6, (5, 4), 3, relative=relative).double()
    for parameter in layer.relative_bias.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, *size, 6, dtype=torch.float64, requires_grad=True)
    check(layer, x, plain(layer, x, size, False))


@pytest.mark.parametrize('size', [(8, 12), (13, 5), (30, 17)])
@pytest.mark.parametrize('heads', [1, 2])
def test_bias_in_the_engine(size, heads):
    """Tiles of several rows, of which the last is not full, and longer tables."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, *size, 4, dtype=torch.float64, requires_grad=True).unbind()
    table = torch.randn(heads, 2 * size[0] + 3, 2 * size[1] + 1, dtype=torch.float64)
    table.requires_grad_()
    outs = [global_attention(q, k, v, bias=table, impl=impl) for impl in ('tiled', 'reference')]
    torch.testing.assert_close(*outs)
    dy = torch.randn_like(outs[0])
    for a, b in zip(*(torch.autograd.grad(o, (q, k, v, table), dy) for o in outs), strict=True):
        torch.testing.assert_close(a, b)


def test_global_attention_keeps_no_matrix():
    """Only what the engine takes is saved for the backward pass: nothing of N x N."""
    layer, sizes = GlobalRelativeAttention(8, (14, 14), 4), []
    x = torch.randn(1, 24, 25, 8, requires_grad=True)

    def pack(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        layer(x).sum()
    assert max(sizes) <= 24 * 25 * 3 * 8


def test_matrix_of_a_table():
    table = torch.arange(2 * 5 * 3.0).view(2, 5, 3)
    matrix = bias_matrix(table).view(2, 3, 2, 3, 2)
    for i, j, k, m in torch.cartesian_prod(*(torch.arange(s) for s in (3, 2, 3, 2))).tolist():
        assert torch.equal(matrix[:, i, j, k, m], table[:, k - i + 2, m - j + 1])


def test_table_sizes():
    table = torch.randn(2, 5, 7)
    assert resize_bias_table(table, (3, 4)) is table
    assert torch.equal(resize_bias_table(table.flatten(1), (3, 4)), table)
    assert resize_bias_table(torch.randn(2, 25), (3, 4)).shape == (2, 5, 7)


def test_logarithmic_offsets():
    net = LogRelativeBias2d(2, 16).double()
    table = net(3, 2)
    for a in range(-2, 3):
        for b in range(-1, 2):  # key minus query; the network sees query minus key
            o = torch.tensor([-a, -b], dtype=torch.float64)
            expected = net.fc2(F.relu(net.fc1(o.sign() * (1 + o.abs()).log())))
            torch.testing.assert_close(table[:, a + 2, b + 1], expected)


@pytest.mark.parametrize('size', [(8, 6), (7, 5), (8, 5), (1, 4)])
def test_padding(size):
    """TensorFlow's SAME pads what is needed, the odd pixel at the right and bottom."""
    torch.manual_seed(0)
    same, symmetric = Conv3x3(2, 4, 2, groups=2), Conv3x3(2, 4, 2, 'symmetric', groups=2)
    x = torch.randn(1, 2, *size)
    pads = [max((-(-n // 2) - 1) * 2 + 3 - n, 0) for n in size]
    padded = F.pad(x, (pads[1] // 2, -(-pads[1] // 2), pads[0] // 2, -(-pads[0] // 2)))
    expected = F.conv2d(padded, same.weight, same.bias, 2, groups=2)
    torch.testing.assert_close(same(x), expected)
    symmetric.load_state_dict(same.state_dict())
    assert symmetric(x).shape == expected.shape
    assert torch.allclose(symmetric(x), expected) == all(n % 2 for n in size)


def test_pooling_counts_only_pixels():
    x = torch.tensor([[[[1.0, 2.0, 3.0], [5.0, 6.0, 7.0], [8.0, 10.0, 12.0]]]])
    assert halve(x).tolist() == [[[[3.5, 5.0], [9.0, 12.0]]]]


def test_pools_have_the_pixels_that_there_are():
    x = torch.tensor([[[[1.0, 2.0, 3.0], [5.0, 6.0, 7.0], [8.0, 10.0, 12.0]]]])
    found = {name: pool(x).tolist()[0][0] for name, pool in POOLS.items()}
    assert found == {
        'avg2': [[3.5, 5.0], [9.0, 12.0]],
        'avg3': [[3.5, 4.5], [7.25, 8.75]],
        'max2': [[6.0, 7.0], [10.0, 12.0]],
        'max3': [[6.0, 7.0], [10.0, 12.0]],
    }
    for pool in ('max3', 'avg3'):
        layer = MBConv(4, 4, 2, pool=pool).eval()
        plain = MBConv(4, 4, 2).eval()
        plain.load_state_dict(layer.state_dict())
        x = torch.randn(1, 4, 5, 6)
        torch.testing.assert_close(layer(x) - plain(x), POOLS[pool](x) - halve(x))
    with pytest.raises(ValueError, match="pool must be one of avg2, avg3, max2, max3, got 'max'"):
        MBConv(4, 4, 2, pool='max')


@pytest.mark.parametrize('stride_in', ['conv', 'expansion', 'pool'])
@pytest.mark.parametrize('early', [True, False])
@pytest.mark.parametrize('expand_from', ['input', 'output'])
def test_mbconv(stride_in, early, expand_from):
    torch.manual_seed(0)
    layer = (
        MBConv(
            4,
            6,
            2,
            expansion=3,
            expand_from=expand_from,
            act='silu',
            padding='symmetric',
            stride_in=stride_in,
            pre_act=early,
            gate_ratio=0.5,
            gate_act='relu',
            gate_early=early,
            bias=not early,
        )
        .double()
        .eval()
    )
    hidden = 3 * (4 if expand_from == 'input' else 6)
    assert layer.conv1.out_channels == hidden
    assert layer.gate.fc1.out_channels == (hidden // 2 if expand_from == 'input' else 3)
    assert (layer.conv3.bias is None) == (layer.shortcut.bias is None) == early
    x = torch.randn(2, 4, 7, 8, dtype=torch.float64)
    y = layer.pre_norm(x)
    y = F.silu(y) if early else y
    y = halve(y) if stride_in == 'pool' else y
    y = F.conv2d(
        F.silu(layer.norm1(F.conv2d(y, layer.conv1.weight, None, 1 + (stride_in == 'expansion')))),
        layer.conv2.weight,
        None,
        1 + (stride_in == 'conv'),
        1,
        1,
        hidden,
    )
    y = F.silu(layer.norm2(layer.gate(y))) if early else layer.gate(F.silu(layer.norm2(y)))
    expected = layer.shortcut(halve(x)) + layer.conv3(y)
    torch.testing.assert_close(layer(x), expected)
    assert expected.shape == (2, 6, 4, 4)


@pytest.mark.parametrize('make', [
    lambda **kwargs: PartitionAttention(6, (5, 4), 3, **kwargs),
    lambda **kwargs: GlobalRelativeAttention(6, (5, 4), 3, **kwargs),
])  # fmt: skip
def test_kind_of_positions(make):
    table, log = make(), make(relative='log')
    assert table.relative_bias.table.shape == (2, 9, 7)
    net = LogRelativeBias2d(2)
    log.relative_bias.load_state_dict(net.state_dict())
    torch.testing.assert_close(log.relative_bias(3, 4), net(3, 4))
    assert make(relative='log', relative_channels=5).relative_bias.fc1.out_features == 5


def test_a_bias_of_another_size_is_bilinear():
    """For a table and a map, in both directions, by the formula of pixel centres."""
    layer = PartitionAttention(6, (4, 3), 3)
    nn.init.normal_(layer.relative_bias.table)
    for size in ((6, 2), (2, 5)):
        found, table = layer.relative_bias(*size), layer.relative_bias.table
        for dim, side in enumerate(size, 1):
            length, wanted = table.shape[dim], 2 * side - 1
            place = ((torch.arange(wanted) + 0.5) * length / wanted - 0.5).clamp(0, length - 1)
            low = place.floor().long()
            share = (place - low).view([-1, 1] if dim == 1 else [-1])
            high = (low + 1).clamp(max=length - 1)
            table = table.index_select(dim, low).lerp(table.index_select(dim, high), share)
        torch.testing.assert_close(found, table)


def test_mbconv_without_stride_has_a_plain_shortcut():
    layer = copy.deepcopy(MBConv(4, 4)).eval()
    nn.init.zeros_(layer.conv3.weight)
    nn.init.zeros_(layer.conv3.bias)
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: MBConv(4, 4, 3), 'stride of an MBConv must be 1 or 2, got 3'),
        (lambda: MBConv(4, 4, act='swish'), "act must be one of gelu, .*got 'swish'"),
        (lambda: MBConv(4, 4, padding='valid'), "padding must be one of same, symmetric, got 'v"),
        (lambda: MBConv(4, 4, gate_ratio=0.1), 'gate_ratio 0.1 leaves no channel'),
        (lambda: PartitionAttention(8, (2, 2), 3), 'head_width must divide the 8 channels'),
        (lambda: PartitionAttention(8, (2, 2), 4, 'star'), "kind must be 'block' or 'grid'"),
        (lambda: PartitionAttention(8, (0, 2), 4), 'window must be positive'),
        (
            lambda: partition_attention(*torch.zeros(3, 1, 1, 4, 4, 2), 2, shift=1, grid=True),
            'got shift 1 of .* and a grid, which has none',
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()
