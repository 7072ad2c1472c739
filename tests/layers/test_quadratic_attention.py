"""Quadratic attention against its definition, and the theorem of the paper."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hybrid_mm.benchmarks.core import memory
from hybrid_mm.layers import QuadraticAttention2d
from hybrid_mm.layers.attention.quadratic_attention import MODES
from hybrid_mm.ops import budget
from hybrid_mm.ops.separable_attention import _in_groups, separable_attention


def make(mode, stride=1, **kwargs):
    torch.manual_seed(0)
    module = QuadraticAttention2d(3, 4, 5, mode, stride, positions=4, **kwargs).double()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.7)
    return module


def definition(m, x):
    """Query by query and key by key."""
    n, _, height, width = x.shape
    pixels = [(i, j) for i in range(height) for j in range(width)]
    out = []
    for i in range(0, height, m.stride):
        for j in range(0, width, m.stride):
            heads = []
            for h in range(m.heads):
                logits = torch.stack([logit(m, x, h, (i, j), key) for key in pixels], -1)
                p = logits.softmax(-1).view(-1, 1, height, width)
                heads.append((p * x).sum((2, 3)).expand(n, -1))
            out.append(F.linear(torch.cat(heads, 1), m.value.weight, m.value.bias))
    shape = (-(-height // m.stride), -(-width // m.stride))
    return torch.stack(out, -1).unflatten(-1, shape)


def logit(m, x, h, query, key):
    dy, dx = key[0] - query[0], key[1] - query[1]
    if m.mode in ('isotropic', 'full'):
        d = torch.tensor([dy, dx]).double() - m.centers[h]
        s = m.spreads[h] if m.mode == 'full' else m.spreads[h] * torch.eye(2).double()
        return (-0.5 * d @ s @ s.t() @ d).view(1)
    last = len(m.table_h) // 2
    value = m.head_h[h] @ m.table_h[max(-last, min(last, dy)) + last]
    value = value + m.head_w[h] @ m.table_w[max(-last, min(last, dx)) + last]
    if m.mode == 'learned':
        return value.view(1)
    channels = x.shape[1]
    own = slice(h * channels, (h + 1) * channels)
    q, k = m.query(x[:, :, query[0], query[1]])[:, own], m.key(x[:, :, key[0], key[1]])[:, own]
    return value + (q * k).sum(1) / channels**0.5


def gradients(m, function, x, dy):
    x = x.clone().requires_grad_()
    out = function(x)
    return out, *torch.autograd.grad(out, [x, *m.parameters()], dy)


@pytest.mark.parametrize('sliced', [False, True])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('mode', MODES)
def test_outputs_and_gradients(mode, stride, sliced):
    """A map of 7 x 3 with tables for 4 x 4; slices of three queries where there are slices."""
    m = make(mode, stride)
    x = torch.randn(2, 3, 7, 3, dtype=torch.float64)
    dy = torch.randn(2, 4, -(-7 // stride), -(-3 // stride), dtype=torch.float64)
    with budget.limited(3 * 5 * 21 * 2) if sliced else nullcontext():
        ours = gradients(m, m, x, dy)
    for a, b in zip(ours, gradients(m, lambda z: definition(m, z), x, dy), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(m(x), ours[0], rtol=1e-12, atol=1e-13)


def padded_by_replication(conv, x):
    """The convolution with the border pixels repeated."""
    (top, left), dilation = conv.padding, conv.dilation
    x = F.pad(x, (left, left, top, top), mode='replicate')
    return F.conv2d(x, conv.weight, conv.bias, conv.stride, 0, dilation)


@pytest.mark.parametrize('mode', ['isotropic', 'full'])
@pytest.mark.parametrize(
    ('kernel', 'stride', 'dilation', 'bias'),
    [(3, 1, 1, True), (5, 1, 1, False), ((3, 1), 2, 1, True), (3, 2, 2, False), (1, 1, 1, True)],
)
def test_attention_expresses_convolution(mode, kernel, stride, dilation, bias):
    """Theorem 1: inside the map it is the convolution, at the border that of a replicated one."""
    torch.manual_seed(0)
    pair = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = tuple(dilation * (k // 2) for k in pair)
    conv = nn.Conv2d(6, 8, kernel, stride, padding, dilation, bias=bias).double()
    attention = QuadraticAttention2d.from_conv(conv, alpha=30.0, mode=mode)
    x = torch.randn(2, 6, 11, 14, dtype=torch.float64)
    with torch.no_grad():
        out, expected = attention(x), conv(x)
        torch.testing.assert_close(out, padded_by_replication(conv, x), rtol=0, atol=1e-9)
        inside = torch.zeros(11, 14, dtype=torch.bool)
        inside[padding[0] : 11 - padding[0], padding[1] : 14 - padding[1]] = True
        inside = inside[::stride, ::stride]
        torch.testing.assert_close(out[..., inside], expected[..., inside], rtol=0, atol=1e-9)
        if max(padding):
            assert (out - expected).abs().max() > 0.1  # zero padding is not what it computes
    extra = pair[0] * pair[1] * (6 if mode == 'full' else 3)
    count = sum(p.numel() for p in attention.parameters())
    assert count == sum(p.numel() for p in conv.parameters()) + extra


def test_sharper_is_closer():
    conv = nn.Conv2d(3, 3, 3, padding=1).double()
    x = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    expected = padded_by_replication(conv, x)
    errors = [
        (QuadraticAttention2d.from_conv(conv, alpha)(x) - expected).abs().max().item()
        for alpha in (0.5, 1, 2, 4, 8)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-2


@pytest.mark.parametrize(
    'conv',
    [
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 2, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, stride=(1, 2)),
    ],
)
def test_convolutions_that_cannot_be_expressed(conv):
    with pytest.raises(ValueError, match=r'odd kernel.* not for Conv2d'):
        QuadraticAttention2d.from_conv(conv, 1.0)


def test_wrong_modes():
    with pytest.raises(ValueError, match=r"one of isotropic, full.*got 'quadratic'"):
        QuadraticAttention2d(3, 3, 2, 'quadratic')
    with pytest.raises(ValueError, match="'isotropic' or 'full', got 'learned'"):
        QuadraticAttention2d.from_conv(nn.Conv2d(3, 3, 3, padding=1), 1.0, 'learned')


@pytest.mark.parametrize('mode', MODES)
def test_no_matrix_of_all_pairs(mode):
    heads, side = 5, 24
    pairs = heads * side**4 * 8  # bytes
    m = make(mode)
    x = torch.randn(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    with budget.limited(heads * side**4 // 32):
        peak, _ = memory(lambda: m(x).sum().backward(), x.device)
    # of the sliced ones a few tensors of a slice exist at a time
    assert peak < (pairs / 4 if mode in ('full', 'learned_content') else pairs / 20)


@pytest.mark.parametrize('mode', MODES)
def test_dropout(mode):
    m = make(mode, attn_drop=0.5)
    plain = make(mode)
    x = torch.randn(1, 3, 6, 5, dtype=torch.float64).expand(2, -1, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(m.eval()(x), plain(x))
        m.train()
        runs = torch.stack([m(x) for _ in range(400)])
        assert (runs.mean(0) - plain(x)).abs().max() < 0.3 * runs.std(0).max()
        assert not torch.equal(runs[0], runs[1])
        # one mask for all images where all have the same probabilities
        assert torch.equal(runs[0][0], runs[0][1]) == (mode != 'learned_content')
    torch.manual_seed(3)
    first = torch.autograd.grad(m(x).square().sum(), m.value.weight)[0]
    torch.manual_seed(3)
    with torch.enable_grad():
        out = m(x)
    # the mask of the backward pass is that of the forward pass: d(out^2)/dW, W linear
    direction = torch.randn_like(first)
    torch.manual_seed(3)
    with torch.no_grad():
        m.value.weight += 1e-6 * direction
        moved = m(x)
    difference = (moved.square().sum() - out.square().sum()) / 1e-6
    torch.testing.assert_close(difference, (first * direction).sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('mode', MODES)
def test_autocast(mode):
    """Sharp logits stay in single precision: the right pixel is found far from the query."""
    m = make(mode).float()
    if mode in ('isotropic', 'full'):
        with torch.no_grad():
            m.centers.copy_(torch.tensor([20.0, 30.0]))
            m.spreads.copy_(8 * torch.eye(2) if mode == 'full' else torch.tensor(8.0))
    x = torch.randn(1, 3, 40, 60)
    full = m(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        low = m(x)
    low.float().sum().backward()
    assert low.dtype == torch.bfloat16
    assert (low.float() - full).norm() < 0.02 * full.norm()
    assert all(p.grad.isfinite().all() for p in m.parameters())


@pytest.mark.parametrize('mode', MODES)
def test_compiles_in_one_graph(mode):
    m = make(mode, stride=2).eval()
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    with torch.no_grad():
        compiled = torch.compile(m, fullgraph=True, backend='eager')
        torch.testing.assert_close(compiled(x), m(x))
    torch._dynamo.reset()


def test_memory_format_is_kept():
    m = make('isotropic')
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    assert m(x).is_contiguous()
    last = m(x.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, m(x))


@pytest.mark.parametrize('limit', [10**6, 900, 10])
def test_groups_of_heads_as_on_a_gpu(limit):
    """All heads at once, two, or one at a time, with the gradients of the plain formula."""
    torch.manual_seed(0)
    shapes = (2, 6, 7, 5), (3, 3, 6), (3, 4, 7), (3, 4, 5)
    inputs = [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    expected = separable_attention(*inputs, impl='reference')
    with budget.limited(limit):
        found = _in_groups(*inputs)
        torch.testing.assert_close(found, expected)
        gradients = torch.autograd.grad(found.square().sum(), inputs)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), inputs))


def test_learned_tables_of_another_size():
    """More positions than a file has are its outermost, as for far offsets; fewer the middle."""
    torch.manual_seed(0)
    small, large = (QuadraticAttention2d(4, 4, 2, 'learned', positions=p).eval() for p in (3, 5))
    state = large.state_dict()
    small.load_state_dict(state)
    for name in ('table_h', 'table_w'):
        assert torch.equal(getattr(small, name), state[name][2:-2])
    large.load_state_dict(small.state_dict())
    x = torch.rand(1, 4, 7, 8)
    torch.testing.assert_close(large(x), small(x), rtol=0, atol=0)
