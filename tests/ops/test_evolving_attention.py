"""Evolving attention against its formulas, and the convolution around it."""

import pytest
import torch
import torch.nn.functional as F

from hybrid_mm.benchmarks.core import memory
from hybrid_mm.layers import EvolvingAAConv2d
from hybrid_mm.layers.attention.evolving_augmented_convolution import (
    resize_from_corner,
    same_padding,
)
from hybrid_mm.ops import budget
from hybrid_mm.ops.evolving_attention import evolving_attention as attend
from hybrid_mm.ops.evolving_attention import tiled


def inputs(height, width, n=2, heads=3, dtype=torch.float64, **without):
    torch.manual_seed(0)
    tokens = height * width
    shapes = dict(
        q=(n, heads, height, width, 5),
        k=(n, heads, height, width, 5),
        v=(n, heads, height, width, 4),
        rel_h=(2 * height - 1, 5),
        rel_w=(2 * width - 1, 5),
        previous=(n, heads, tokens, tokens),
        weight=(heads, heads, 3, 3),
        bias=(heads,),
    )
    return {
        name: torch.randn(shape, dtype=dtype).requires_grad_()
        for name, shape in shapes.items()
        if name not in without
    }


FIRST = dict(previous=None, weight=None, bias=None)


def by_the_formulas(q, k, v, rel_h, rel_w, previous, weight, bias, alpha, beta):
    """Loop over the queries of one image and over the taps of the convolution."""
    n, heads, height, width, _ = q.shape
    tokens = height * width
    logits = torch.zeros(n, heads, tokens, tokens, dtype=q.dtype)
    for i in range(tokens):
        for j in range(tokens):
            (y, x), (v_, u) = divmod(i, width), divmod(j, width)
            key = k[:, :, v_, u] + rel_h[v_ - y + height - 1] + rel_w[u - x + width - 1]
            logits[:, :, i, j] = (q[:, :, y, x] * key).sum(-1)
    if previous is not None:
        mixed = (1 - beta) * logits + beta * previous
        padded, total = F.pad(mixed, (1, 1, 1, 1)), bias.view(-1, 1, 1)
        for a in range(3):
            for b in range(3):
                part = padded[:, :, a : a + tokens, b : b + tokens]
                total = total + torch.einsum('oi,nirc->norc', weight[:, :, a, b], part)
        logits = alpha * total.clamp(min=0) + (1 - alpha) * mixed
    out = logits.softmax(-1) @ v.flatten(2, 3)
    return out.view(n, heads, height, width, -1), logits


@pytest.mark.parametrize('impl', ['tiled', 'reference'])
@pytest.mark.parametrize('without', [{}, FIRST], ids=['evolving', 'first'])
@pytest.mark.parametrize(('alpha', 'beta'), [(1.0, 0.5), (0.6, 0.3)])
def test_equals_the_formulas(impl, without, alpha, beta):
    given = inputs(3, 4, **without)
    expected = by_the_formulas(**{**without, **given}, alpha=alpha, beta=beta)
    found = attend(**given, alpha=alpha, beta=beta, impl=impl)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('rows', [1, 2, 5, 1000], ids=lambda r: f'{r}-rows')
@pytest.mark.parametrize('used', ['both', 'result', 'logits'])
@pytest.mark.parametrize('alpha', [1.0, 0.6])
def test_gradients_equal_those_of_the_reference(monkeypatch, rows, used, alpha):
    """Whatever the chunks are, and whichever of the outputs the gradient comes from."""
    monkeypatch.setattr(tiled, '_ROWS', 1)
    given = inputs(4, 5)
    grads = []
    for impl in ('reference', 'tiled'):
        with budget.limited(rows * 4 * 3 * 20):
            outs = attend(**given, alpha=alpha, beta=0.3, impl=impl)
            outs = dict(both=outs, result=outs[:1], logits=outs[1:])[used]
            dys = [torch.linspace(-1, 1, o.numel()).to(o).sin().view_as(o) for o in outs]
            found = torch.autograd.grad(outs, list(given.values()), dys, allow_unused=True)
        grads.append(
            [
                torch.zeros_like(x) if g is None else g
                for g, x in zip(found, given.values(), strict=True)
            ]
        )
    for name, a, b in zip(given, *grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=name)
    assert sum(g.abs().max() > 0 for g in grads[0]) == (7 if used == 'logits' else 8)


def test_without_relative_terms_and_first_in_the_chain():
    for without in (dict(rel_h=None, rel_w=None), dict(rel_h=None, rel_w=None) | FIRST):
        given = inputs(4, 5, **without)
        grads = []
        for impl in ('reference', 'tiled'):
            out, logits = attend(**given, impl=impl)
            grads.append(
                torch.autograd.grad((out.sin().sum() + logits.cos().sum()), list(given.values()))
            )
        for name, a, b in zip(given, *grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10, msg=name)


def test_only_the_logits_are_kept():
    given = inputs(16, 18, n=1, heads=8, dtype=torch.float32)
    map_size = 8 * (16 * 18) ** 2 * 4
    kept = {}
    for impl in ('tiled', 'reference'):
        _, kept[impl] = memory(lambda impl=impl: attend(**given, impl=impl), torch.device('cpu'))
    assert kept['tiled'] < 1.2 * map_size
    assert kept['reference'] > 3.9 * map_size


def test_logits_are_full_precision_under_autocast():
    given = {k: v.detach() for k, v in inputs(4, 5, dtype=torch.float32).items()}
    expected = attend(**given)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = attend(**given)
    assert [torch.equal(a, b) for a, b in zip(found, expected, strict=True)] == [True, True]
    low = given | {name: given[name].bfloat16() for name in 'qkv'}
    out, logits = attend(**low)
    assert (out.dtype, logits.dtype) == (torch.bfloat16, torch.float32)


def test_operator_contract(opcheck):
    given = inputs(3, 4, dtype=torch.float32)
    q, k, v = (given[name].flatten(2, 3) for name in 'qkv')
    row, column = torch.randn(2, 3, 12, 3), torch.randn(2, 3, 12, 4)
    rest = (given['previous'], given['weight'], given['bias'], [3, 4], 0.8, 0.4)
    # the comparison of compiled gradients would meet kinks of the ReLU
    tests = ('test_schema', 'test_autograd_registration', 'test_faketensor')
    arguments = (q, k, v, row, column, *rest)
    opcheck(torch.ops.hybrid_mm.evolving_attention, arguments, test_utils=tests)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(bias=None), 'go together: give all of them or none'),
        (dict(previous=torch.zeros(2, 3, 6, 6)), r'\(2, 3, 12, 12\) expected for a 3 x 4 map'),
        (
            dict(impl='fast'),
            "reference, tiled, triton for evolving_attention, got 'fast'",
        ),
        (dict(rel_h=torch.zeros(7, 5, dtype=torch.float64)), '5 relative vectors expected, got 7'),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        attend(**(inputs(3, 4) | change))


# ---- pooling, resizing, the convolution


def test_same_pooling_and_resizing_by_hand():
    x = torch.tensor([[1.0, 2, 4, 8]]).view(1, 1, 1, 4)
    pooled = F.avg_pool2d(x, **same_padding(x), count_include_pad=False)
    torch.testing.assert_close(pooled.flatten(), torch.tensor([7 / 3, 6]))
    odd = x[..., :3]
    pooled = F.avg_pool2d(odd, **same_padding(odd), count_include_pad=False)
    torch.testing.assert_close(pooled.flatten(), torch.tensor([1.5, 3]))
    largest = F.max_pool2d(x.view(1, 1, 4, 1), **same_padding(x.view(1, 1, 4, 1)))
    assert largest.flatten().tolist() == [4, 8]
    wide = resize_from_corner(x, (1, 8)).flatten()
    assert wide.tolist() == [1, 1.5, 2, 3, 4, 6, 8, 8]
    tall = resize_from_corner(torch.tensor([[0.0], [3]]).view(1, 1, 2, 1), (3, 1)).flatten()
    torch.testing.assert_close(tall, torch.tensor([0.0, 2, 3]))


def build(**kwargs):
    settings = dict(key_channels=8, value_channels=4, heads=2, size=(4, 5), evolves=True) | kwargs
    torch.manual_seed(0)
    return EvolvingAAConv2d(6, 10, **settings).double()


def test_branches_side_by_side():
    layer = build(stride=2, attn_downsample=True)
    x = torch.randn(2, 6, 15, 18, dtype=torch.float64)
    low = F.avg_pool2d(x, **same_padding(x), count_include_pad=False)
    assert low.shape[-2:] == (8, 9)
    low = F.avg_pool2d(low, **same_padding(low), count_include_pad=False)
    q, k, v = (
        part.reshape(2, 2, -1, 4, 5).permute(0, 1, 3, 4, 2)
        for part in layer.qkv_conv(low).split([8, 8, 4], 1)
    )
    previous = torch.randn(2, 2, 20, 20, dtype=torch.float64)
    tables = layer.relative.rel_h[0], layer.relative.rel_w[0]
    attention, expected = by_the_formulas(
        q / 2, k, v, *tables, previous, layer.evolve.weight, layer.evolve.bias, 1.0, 0.5
    )
    attention = layer.attn_out(attention.permute(0, 1, 4, 2, 3).reshape(2, 4, 4, 5))
    attention = resize_from_corner(attention, (8, 9))
    conv = F.conv2d(x, layer.conv_out.weight, stride=2, padding=1)
    out, logits = layer(x, previous)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(out, torch.cat([conv, attention], 1))


def test_cap_of_the_tokens():
    x = torch.randn(1, 6, 9, 11, dtype=torch.float64)
    free, capped = build(evolves=False), build(evolves=False, max_tokens=30)
    assert capped(x)[1].shape == (1, 2, 30, 30)  # 5 x 6
    assert capped(x)[0].shape == free(x)[0].shape
    small = build(evolves=False, max_tokens=29)
    assert small(x)[1].shape == (1, 2, 9, 9)
    few = torch.randn(1, 6, 5, 6, dtype=torch.float64)
    assert torch.equal(capped(few)[0], free(few)[0])


def test_initial_tables():
    wide = dict(key_channels=64, size=(400, 400))
    own = build(**wide).relative.rel_h
    assert (own.mean().abs() < 0.02, abs(own.std() - 32**-0.5) < 0.02) == (True, True)
    official = build(official_tables=True, **wide).relative.rel_w
    assert abs(official.mean() - 32**-0.5) < 0.04
    assert abs(official.std() - 1) < 0.04


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(stride=3), 'stride must be 1 or 2, got 3'),
        (dict(max_tokens=0), 'max_tokens must be positive, got 0'),
        (dict(heads=3), 'got 3 heads for 8 and 4'),
        (dict(impl='fused'), "got 'fused'"),
    ],
)
def test_bad_settings_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        build(**kwargs)


def test_logits_where_they_belong():
    x, logits = torch.zeros(1, 6, 4, 5, dtype=torch.float64), torch.zeros(1, 2, 20, 20)
    with pytest.raises(ValueError, match='evolves=True needs the previous logits'):
        build()(x)
    with pytest.raises(ValueError, match='evolves=False needs no previous logits'):
        build(evolves=False)(x, logits)


@pytest.mark.parametrize('impl', ['tiled', 'reference'])
def test_weights_of_the_chain_are_handed_on(impl):
    layer = build(alpha=0.7, beta=0.2, impl=impl)
    x = torch.randn(1, 6, 4, 5, dtype=torch.float64)
    previous = torch.randn(1, 2, 20, 20, dtype=torch.float64)
    q, k, v = (
        part.reshape(1, 2, -1, 4, 5).permute(0, 1, 3, 4, 2)
        for part in layer.qkv_conv(x).split([8, 8, 4], 1)
    )
    tables = layer.relative.rel_h[0], layer.relative.rel_w[0]
    evolve = layer.evolve.weight, layer.evolve.bias
    _, expected = by_the_formulas(q / 2, k, v, *tables, previous, *evolve, 0.7, 0.2)
    torch.testing.assert_close(layer(x, previous)[1], expected)


def test_one_image_with_heads_of_one_channel_compiles():
    """torch errs about the strides of products of vectors of length 1 in one image."""
    torch._dynamo.reset()
    maps = torch.randn(1, 6, 4, 6).requires_grad_()
    tables = [torch.randn(2 * side - 1, 1).requires_grad_() for side in (4, 6)]

    def result(maps, *tables):
        q, k, v = (x.unflatten(1, (2, 1)).permute(0, 1, 3, 4, 2) for x in maps.split(2, 1))
        return attend(q * 1.0, k, v, *tables)[0].square().sum()

    compiled = torch.compile(result, fullgraph=True, backend='aot_eager')
    leaves = [maps, *tables]
    found = torch.autograd.grad(compiled(*leaves), leaves)
    torch.testing.assert_close(found, torch.autograd.grad(result(*leaves), leaves))
