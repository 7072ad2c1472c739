"""The attention engine: plain loops check the gather, the gather checks the tiles."""

import functools
import itertools
import math
import random

import pytest
import torch

from hybrid_mm.benchmarks.core import memory
from hybrid_mm.compat.torch_api import as_if_exporting
from hybrid_mm.ops import budget
from hybrid_mm.ops import local_attention as engine
from hybrid_mm.ops.dispatch import choices
from hybrid_mm.ops.local_attention import (
    block_attention,
    exported,
    fused,
    global_attention,
    local_attention,
    partition_attention,
    reference,
    tiled,
    whole,
    windows,
)
from hybrid_mm.ops.local_attention.axes import reflected
from hybrid_mm.ops.local_attention.pattern import AxisPattern, Pattern, PatternType

BORDERS = ('shift', 'zero', 'mask', 'reflect')

# the kernels for GPUs have tests of their own
IMPLS, PARTITION_IMPLS = (
    [name for name in choices(operator) if name != 'triton']
    for operator in ('local_attention', 'partition_attention')
)


def without_kernel(monkeypatch):
    """As where there is no C compiler."""
    monkeypatch.setattr(fused, 'is_available', lambda q: False)


@pytest.fixture(params=['C', 'torch'])
def tiles(request, monkeypatch):
    """Both kinds of tiles."""
    if request.param == 'torch':
        without_kernel(monkeypatch)
    elif not fused.is_available(torch.empty(0)):
        pytest.skip('no C compiler here')


def rand(*shape):
    return torch.randn(*shape, dtype=torch.double)


def mirrored(i, n):
    """Index i of a sequence of n mirrored without repeating its ends, one step at a time."""
    while not 0 <= i < n:
        i = 0 if n == 1 else (-i if i < 0 else 2 * (n - 1) - i)
    return i


def seen(i, length, window, dilation, border):
    """Key index (None: zero key) and offset of each tap of a query at key position i."""
    r = window // 2
    if border == 'shift':
        mates = list(range(i % dilation, length, dilation))
        place = mates.index(i)
        first = min(max(place - r, 0), max(len(mates) - window, 0))
        taps = range(first, min(first + window, len(mates)))
        return [(mates[p], p - place) for p in taps]
    out = []
    for offset in range(-r, r + 1):
        key = i + offset * dilation
        if border == 'reflect':
            key = mirrored(key, length)
        elif not 0 <= key < length:
            if border == 'mask':
                continue
            key = None
        out.append((key, offset))
    return out


def attend(q, keys, values, terms, scale):
    """Softmax attention of one query over lists of keys, values and added terms."""
    logits = torch.stack([scale * q.dot(k) + t for k, t in zip(keys, terms, strict=True)])
    return (logits.softmax(0)[:, None] * torch.stack(values)).sum(0)


def loops(q, k, v, rows, columns, scale, bias, rel_h, rel_w):
    """The definition; ``rows`` and ``columns`` list what each query sees along its axis."""
    out = q.new_empty(*q.shape[:4], v.shape[-1])
    centre = [None if t is None else t.shape[1] // 2 for t in (bias, rel_h, rel_w)]
    for n, h, y, x in itertools.product(*map(range, q.shape[:4])):
        keys, values, terms = [], [], []
        for (i, dy), (j, dx) in itertools.product(rows[y], columns[x]):
            zero = i is None or j is None
            keys.append(k.new_zeros(k.shape[-1]) if zero else k[n, h, i, j])
            values.append(v.new_zeros(v.shape[-1]) if zero else v[n, h, i, j])
            term = q.new_zeros(())
            if bias is not None:
                term = term + bias[h % len(bias), dy + centre[0], dx + bias.shape[2] // 2]
            if rel_h is not None:
                term = term + q[n, h, y, x].dot(rel_h[h % len(rel_h), dy + centre[1]])
            if rel_w is not None:
                term = term + q[n, h, y, x].dot(rel_w[h % len(rel_w), dx + centre[2]])
            terms.append(term)
        out[n, h, y, x] = attend(q[n, h, y, x], keys, values, terms, scale)
    return out


@pytest.mark.parametrize('border', BORDERS)
@pytest.mark.parametrize(
    ('size', 'window', 'dilation', 'stride'),
    [((5, 6), (3, 3), (1, 1), (1, 1)), ((4, 7), (5, 3), (2, 1), (1, 2)),
     ((3, 2), (7, 5), (1, 1), (2, 1)), ((7, 5), (3, 3), (3, 2), (2, 3))],
)  # fmt: skip
def test_gather_is_the_definition_of_windows(border, size, window, dilation, stride):
    torch.manual_seed(0)
    k, v = rand(2, 2, *size, 3), rand(2, 2, *size, 4)
    q = rand(2, 2, *(math.ceil(s / t) for s, t in zip(size, stride, strict=True)), 3)
    length = [2 * w - 1 if border == 'shift' else w for w in window]
    bias, rel_h, rel_w = rand(2, *length), rand(1, length[0], 3), rand(2, length[1], 3)
    rows, columns = (
        [seen(i, size[a], window[a], dilation[a], border) for i in range(0, size[a], stride[a])]
        for a in (0, 1)
    )
    out = local_attention(
        q,
        k,
        v,
        window,
        dilation=dilation,
        stride=stride,
        border=border,
        scale=0.3,
        bias=bias,
        rel_h=rel_h,
        rel_w=rel_w,
        impl='reference',
    )
    torch.testing.assert_close(out, loops(q, k, v, rows, columns, 0.3, bias, rel_h, rel_w))


@pytest.mark.parametrize('border', ['zero', 'mask'])
@pytest.mark.parametrize('stride', [1, 2])
def test_gather_is_the_definition_of_blocks(border, stride):
    torch.manual_seed(0)
    block, halo, size = 4, 1, (6, 9)
    w = block + 2 * halo
    k, v = rand(1, 2, *size, 3), rand(1, 2, *size, 2)
    q = rand(1, 2, *(math.ceil(s / stride) for s in size), 3)
    rel_h, rel_w = rand(1, 2 * w - 1, 3), rand(1, 2 * w - 1, 3)

    def axis(length):
        out = []
        for query in range(math.ceil(length / stride)):
            number, row = divmod(query, block // stride)
            taps = [(number * block - halo + j, j - row) for j in range(w)]
            inside = [(p if 0 <= p < length else None, offset) for p, offset in taps]
            out.append([t for t in inside if border == 'zero' or t[0] is not None])
        return out

    expected = loops(q, k, v, axis(size[0]), axis(size[1]), 3**-0.5, None, rel_h, rel_w)
    out = block_attention(
        q,
        k,
        v,
        block,
        halo,
        stride=stride,
        border=border,
        rel_h=rel_h,
        rel_w=rel_w,
        impl='reference',
    )
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize('stride', [(1, 1), (2, 3)])
def test_gather_is_the_definition_of_the_whole_map(stride):
    torch.manual_seed(0)
    k, v = rand(1, 2, 3, 4, 3), rand(1, 2, 3, 4, 5)
    q = rand(1, 2, *(math.ceil(n / s) for n, s in zip((3, 4), stride, strict=True)), 3)
    bias, rel_h, rel_w = rand(2, 5, 7), rand(2, 5, 3), rand(1, 7, 3)
    rows, columns = (
        [[(j, j - i) for j in range(n)] for i in range(0, n, s)]
        for n, s in zip((3, 4), stride, strict=True)
    )
    expected = loops(q, k, v, rows, columns, 3**-0.5, bias, rel_h, rel_w)
    for impl in IMPLS:
        out = global_attention(
            q, k, v, stride=stride, bias=bias, rel_h=rel_h, rel_w=rel_w, impl=impl
        )
        torch.testing.assert_close(out, expected)


def test_reflection_of_a_map_that_is_smaller_than_its_border():
    for n in (1, 2, 3, 5):
        positions = list(range(-9, n + 9))
        found = reflected(torch.tensor(positions).numpy(), n)
        assert list(found) == [mirrored(i, n) for i in positions]


def results(function, tensors, impl):
    """Output and gradients of every tensor that is given."""
    given = [None if t is None else t.clone().requires_grad_() for t in tensors]
    out = function(*given, impl=impl)
    generator = torch.Generator().manual_seed(7)
    # an old torch draws other numbers in other types
    cotangent = torch.randn(out.shape, generator=generator).to(out.dtype)
    wanted = [t for t in given if t is not None]
    return [out.detach(), *torch.autograd.grad(out, wanted, cotangent)]


def agree(function, tensors, impl='tiled', tolerance=1e-12):
    found, expected = (results(function, tensors, i) for i in (impl, 'reference'))
    for number, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.shape == b.shape
        size = b.abs().max()  # rounding alone where the gradient is zero, as with one tap
        error = (a - b).abs().max() / (size if size > 1e-9 else 1)
        assert error < tolerance, f'result {number}: {error}'


def random_case(seed):
    """A function of (q, k, v, bias, rel_h, rel_w) and tensors for it, drawn at random."""
    choose = random.Random(seed)
    torch.manual_seed(seed)
    n, heads = choose.choice([1, 2, 3]), choose.choice([1, 2, 4])
    size = choose.randint(1, 20), choose.randint(1, 26)
    d, dv = choose.choice([(4, 4), (3, 5)])
    tables = choose.choice([1, heads])

    def maybe(*shape):
        return rand(tables, *shape) if choose.random() < 0.6 else None

    kind = choose.choice(['window', 'window', 'window', 'block', 'whole'])
    stride, bias = (1, 1), None
    if kind == 'window':
        border = choose.choice(BORDERS)
        window, dilation, stride = (
            tuple(choose.choice(values) for _ in range(2))
            for values in ((1, 3, 5, 7), (1, 2, 3), (1, 2, 3))
        )
        long = border == 'shift' or choose.random() < 0.3
        lengths = [2 * w - 1 if long else w for w in window]
        bias = maybe(*lengths)
        arguments = dict(dilation=dilation, stride=stride, border=border)

        def function(q, k, v, bias, rel_h, rel_w, impl):
            return local_attention(
                q, k, v, window, bias=bias, rel_h=rel_h, rel_w=rel_w, impl=impl, **arguments
            )
    elif kind == 'block':
        step = choose.choice([1, 2])
        block, halo = step * choose.randint(1, 5), choose.randint(0, 3)
        lengths, stride = (2 * (block + 2 * halo) - 1,) * 2, (step, step)
        arguments = dict(stride=step, border=choose.choice(['zero', 'mask']))

        def function(q, k, v, _, rel_h, rel_w, impl):
            return block_attention(
                q, k, v, block, halo, rel_h=rel_h, rel_w=rel_w, impl=impl, **arguments
            )
    else:
        lengths = [2 * s - 1 for s in size]
        stride = choose.choice([1, 1, 2, 3]), choose.choice([1, 1, 2])
        bias = maybe(*lengths)

        def function(q, k, v, bias, rel_h, rel_w, impl):
            return global_attention(
                q, k, v, stride=stride, bias=bias, rel_h=rel_h, rel_w=rel_w, impl=impl
            )

    queries = [math.ceil(s / t) for s, t in zip(size, stride, strict=True)]
    maps = rand(n, heads, *queries, d), rand(n, heads, *size, d), rand(n, heads, *size, dv)
    return function, (*maps, bias, maybe(lengths[0], d), maybe(lengths[1], d))


@pytest.mark.usefixtures('tiles')
@pytest.mark.parametrize('seed', range(80))
def test_tiles_equal_the_gather(seed):
    agree(*random_case(seed))


@pytest.mark.parametrize('seed', range(100, 106))
def test_auto_equals_the_gather(seed):
    agree(*random_case(seed), impl='measured')


@pytest.mark.parametrize('numbers', [2**9, 2**13])
def test_any_split_into_chunks(numbers, monkeypatch):
    """Few heads, images and rows at a time, as large maps are worked on."""
    without_kernel(monkeypatch)
    with budget.limited(numbers):
        for seed in range(200, 212):
            agree(*random_case(seed))


@pytest.mark.usefixtures('tiles')
@pytest.mark.parametrize('border', BORDERS)
def test_views_of_nchw(border):
    """Strided inputs, as a 1x1 convolution gives them, and a gradient with such strides."""
    torch.manual_seed(0)
    maps = [rand(2, 2, 3, 9, 11).permute(0, 1, 3, 4, 2) for _ in range(3)]
    agree(
        lambda q, k, v, impl: local_attention(q, k, v, 5, border=border, impl=impl).transpose(2, 4),
        maps,
    )


@pytest.mark.usefixtures('tiles')
def test_gradcheck():
    torch.manual_seed(0)
    inputs = [rand(1, 2, 4, 5, 2).requires_grad_() for _ in range(3)]
    inputs += [rand(2, 5, 5).requires_grad_(), rand(1, 5, 2).requires_grad_()]
    assert torch.autograd.gradcheck(
        lambda q, k, v, bias, rel: local_attention(q, k, v, 3, bias=bias, rel_h=rel), inputs
    )


@pytest.mark.usefixtures('tiles')
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.half])
def test_low_precision(dtype):
    """Logits and softmax stay in float32: only the rounding of inputs and products is left."""
    torch.manual_seed(0)
    function, tensors = (
        functools.partial(local_attention_of_five, window=5),
        [torch.randn(2, 2, 9, 11, 8) for _ in range(3)] + [torch.randn(2, 9, 9)],
    )
    exact = results(function, tensors, 'reference')
    low = [t.to(dtype) for t in tensors[:3]]
    for impl in ('tiled', 'reference'):
        found = results(function, [*low, tensors[3]], impl)
        assert [t.dtype for t in found] == [dtype] * 4 + [torch.float32]
        for a, b in zip(found, exact, strict=True):
            assert (a.float() - b).norm() < 0.03 * b.norm()


def local_attention_of_five(q, k, v, bias, window, impl):
    return local_attention(q, k, v, window, bias=bias, impl=impl)


def test_large_logits_in_low_precision_do_not_overflow():
    q = torch.full((1, 1, 4, 4, 64), 60.0, dtype=torch.half)
    for impl in IMPLS:
        out = local_attention(q, q, q, 3, scale=0.1, impl=impl)
        assert out.isfinite().all()
        torch.testing.assert_close(out, q)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(dtype):
    q = torch.randn(1, 2, 8, 9, 4, requires_grad=True)
    with torch.autocast('cpu', dtype):
        out = local_attention(q, q, q, 3)
    assert out.dtype == dtype
    out.sum().backward()
    assert q.grad.dtype == torch.float32


@pytest.mark.parametrize('function', [
    lambda q, t: local_attention(q, q, q, 3, rel_h=t[:, :5]),
    lambda q, t: block_attention(q, q, q, 2, 1, rel_h=t[:, :7]),
    lambda q, t: global_attention(q, q, q, rel_h=t),
])  # fmt: skip
def test_compiles_without_graph_breaks(function):
    q, table = torch.randn(1, 2, 5, 6, 4, requires_grad=True), torch.randn(1, 9, 4)
    compiled = torch.compile(function, fullgraph=True, backend='aot_eager')
    torch.testing.assert_close(compiled(q, table), function(q, table))
    (grad,) = torch.autograd.grad(compiled(q, table).sum(), q)
    torch.testing.assert_close(grad, torch.autograd.grad(function(q, table).sum(), q)[0])


def test_custom_operator_is_well_formed(opcheck):
    q, bias = rand(1, 2, 5, 6, 4).requires_grad_(), rand(2, 5, 5).requires_grad_()
    pattern = Pattern(PatternType.WINDOW, *[AxisPattern(3, border='shift')] * 2).to_ints()
    opcheck(engine._tiled, (q, q, q, bias, None, None, 0.5, pattern, [4, 8]))


def test_only_inputs_are_kept_for_the_backward_pass():
    q, k, v = (torch.randn(1, 2, 30, 40, 8, requires_grad=True) for _ in range(3))
    bias = torch.randn(2, 13, 13, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        local_attention(q, k, v, 7, bias=bias)
    assert {t.data_ptr() for t in kept} == {t.data_ptr() for t in (q, k, v, bias)}


@pytest.mark.usefixtures('tiles')
def test_algorithms_are_those_that_are_named(monkeypatch):
    """'tiled' by default, forwards and backwards, and two products where all pixels see all of a
    small map; the gather as the reference, tiles in exports."""
    called = []
    compiled = fused.is_available(torch.empty(0))
    for name, owner, function in (
        ('tiled', fused if compiled else tiled, 'forward'),
        ('backward', fused if compiled else tiled, 'backward'),
        ('gather', reference, 'forward'),
        ('exported', exported, 'forward'),
        ('whole', whole, 'forward'),
    ):
        plain = getattr(owner, function)
        monkeypatch.setattr(owner, function, lambda *a, n=name, f=plain: called.append(n) or f(*a))
    q = rand(1, 2, 4, 6, 4).requires_grad_()
    calls = (
        lambda **kwargs: local_attention(q, q, q, 3, **kwargs),
        lambda **kwargs: block_attention(q, q, q, 2, 1, **kwargs),
        lambda **kwargs: global_attention(q, q, q, **kwargs),
    )
    for call in calls:
        for kwargs, expected in (
            ({}, ['whole'] if call is calls[2] and not compiled else ['tiled', 'backward']),
            (dict(impl='tiled'), ['tiled', 'backward']),
            (dict(impl='reference'), ['gather']),
        ):
            called.clear()
            torch.autograd.grad(call(**kwargs).sum(), q)
            assert called == expected
        called.clear()
        with as_if_exporting():
            call()
        assert called == ['exported']


def test_algorithms_of_windows_side_by_side(monkeypatch):
    """'auto' by size; torch's fused attention neither as the reference nor for exports."""
    compiled = fused.is_available(torch.empty(0))
    without_kernel(monkeypatch)
    called = []
    for name, owner, function in (
        ('tiled', tiled, 'forward'),
        ('windows', windows, 'forward'),
        ('fused', windows, '_fused'),
    ):
        plain = getattr(owner, function)
        monkeypatch.setattr(
            owner, function, lambda *a, n=name, f=plain, **k: called.append(n) or f(*a, **k)
        )

    def calls(side, window, **kwargs):
        called.clear()
        q = torch.rand(1, 1, side, side, 2, requires_grad=kwargs.pop('grad', True))
        partition_attention(q, q, q, window, **kwargs)
        return called

    for grid in (False, True):
        assert calls(28, 14, grid=grid) == ['windows', 'fused']
        assert calls(28, 15, grid=grid) == ['tiled']
        assert calls(31, 15, grid=grid) == ['tiled']
        assert calls(28, 15, grid=grid, grad=False) == ['tiled']
        assert calls(31, 15, grid=grid, grad=False) == ['windows', 'fused']
        assert calls(15, 15, grid=grid, grad=False) == ['tiled']
        assert calls(28, 15, grid=grid, dropout=0.1) == ['windows']
        assert calls(28, 15, grid=grid, impl='windows') == ['windows', 'fused']
        assert calls(4, 2, grid=grid, impl='tiled') == ['tiled']
        assert calls(28, 15, grid=grid, impl='reference') == ['windows']
        bias = torch.rand(1, 3, 3, requires_grad=True)
        assert calls(4, 2, grid=grid, bias=bias) == ['windows']
        with torch.no_grad():
            assert calls(4, 2, grid=grid, bias=bias) == ['windows', 'fused']
        with as_if_exporting():
            assert calls(28, 15, grid=grid) == calls(28, 15, impl='tiled') == ['windows']
    assert calls(90, 10) == ['windows', 'fused']
    assert calls(91, 10) == ['tiled']  # a large map
    assert calls(91, 10, grad=False) == ['tiled']
    if compiled:
        monkeypatch.undo()
        monkeypatch.setattr(fused, 'forward', lambda q, *_: called.append('C') or q.clone())
        for side, window in ((28, 14), (31, 15), (4, 2)):
            assert calls(side, window) == calls(side, window, grad=False) == ['C']
        q = torch.rand(1, 1, 28, 28, 2)
        called.clear()
        partition_attention(q, q, q, 14, dropout=0.1)
        assert not called


def test_windows_that_cover_the_map_are_cut_into_smaller_tiles():
    axis = AxisPattern(30)
    for kind in (PatternType.PARTITION, PatternType.GRID):
        assert Pattern(kind, axis, axis).on_map(30, 18).type == PatternType.WHOLE
        assert Pattern(kind, axis, axis).on_map(30, 17).type == kind  # small
        assert Pattern(kind, axis, axis).on_map(30, 31).type == kind
    shifted = Pattern(PatternType.PARTITION, AxisPattern(30, shift=3), AxisPattern(30, shift=3))
    assert shifted.on_map(30, 30) == shifted


@pytest.mark.parametrize('kind', PatternType)
def test_patterns_as_integers(kind):
    for border in BORDERS:
        pattern = Pattern(kind, AxisPattern(7, 2, 3, 4, 5, border), AxisPattern(1, 2, 3))
        numbers = pattern.to_ints()
        assert all(type(n) is int for n in numbers)
        assert Pattern.from_ints(numbers) == pattern


@pytest.mark.parametrize('impl', PARTITION_IMPLS)
def test_dropout_of_weights(impl):
    """A weight is dropped as a whole by chance; the others are divided by what is kept."""
    torch.manual_seed(0)
    q, v = torch.zeros(1, 2, 40, 40, 3), torch.ones(1, 2, 40, 40, 1)
    out = partition_attention(q, q, v, 2, dropout=0.3, impl=impl) * 4 * 0.7  # weights kept of 4
    torch.testing.assert_close(out, out.round(), rtol=0, atol=1e-5)
    assert set(out.round().unique().tolist()) == {0, 1, 2, 3, 4}
    assert out.mean().item() == pytest.approx(4 * 0.7, rel=0.03)


ERRORS = {
    'even window': (dict(window=4), 'window must be odd'),
    'window of a float': (dict(window=2.5), 'window must be a positive integer'),
    'stride 0': (dict(stride=0), 'stride must be a positive'),
    'border': (dict(border='wrap'), "border must be one of shift, zero, mask, reflect, got 'wrap'"),
    'impl': (dict(impl='fast'), "impl must be one of .* got 'fast'"),
    'short bias': (dict(bias=torch.zeros(2, 3, 3)), r'bias must be \(2 or 1, 5, 5\)'),
    'bias of other heads': (dict(bias=torch.zeros(3, 5, 5)), r'bias must be \(2 or 1, 5, 5\)'),
    'bias without a middle': (dict(bias=torch.zeros(2, 6, 6)), 'or longer and odd about its mid'),
    'table without a middle': (dict(rel_h=torch.zeros(1, 8, 4)), r'rel_h must be \(2 or 1, 5, 4'),
    'flat bias': (dict(bias=torch.zeros(2, 25)), r'bias must be .* got \(2, 25\)'),
    'wide table': (dict(rel_w=torch.zeros(1, 5, 9)), r'rel_w must be \(2 or 1, 5, 4\)'),
    'queries of another stride': (dict(stride=2), r'need q of \(1, 2, 3, 3, 4\)'),
}


@pytest.mark.parametrize('case', ERRORS)
def test_errors(case):
    arguments, message = ERRORS[case]
    q = torch.zeros(1, 2, 5, 6, 4)
    with pytest.raises(ValueError, match=message):
        local_attention(q, q, q, **{'window': 3, **arguments})


def test_errors_of_blocks():
    q = torch.zeros(1, 2, 5, 6, 4)
    with pytest.raises(ValueError, match='block must be a positive multiple of stride'):
        block_attention(q, q, q, 3, 1, stride=2)
    with pytest.raises(ValueError, match="must be 'zero' or 'mask', got 'shift'"):
        block_attention(q, q, q, 4, 1, border='shift')
    with pytest.raises(ValueError, match=r'must be \(N, heads, H, W, d\)'):
        block_attention(q[0], q[0], q[0], 4, 1)


def swin_mask(height, width, window, shift):
    """Swin's regions of a rolled map: pixels of different ones do not see each other."""
    region = torch.zeros(height, width)
    bounds = [slice(0, -window), slice(-window, -shift), slice(-shift, None)] if shift else []
    for number, (rows, columns) in enumerate(itertools.product(bounds, bounds)):
        region[rows, columns] = number
    return region


@pytest.mark.usefixtures('tiles')
@pytest.mark.parametrize('shift', [0, 1, 2])
def test_partition_is_swin(shift):
    torch.manual_seed(0)
    window, (height, width) = 4, (8, 12)
    q, k, v = (rand(2, 3, height, width, 5) for _ in range(3))
    bias = rand(3, 7, 7)
    region = swin_mask(height, width, window, shift)
    out = torch.empty_like(v)
    for y, x in itertools.product(range(0, height, window), range(0, width, window)):
        part = (..., slice(y, y + window), slice(x, x + window), slice(None))
        a, b, c = (t[part].flatten(2, 3) for t in (q, k, v))
        place = torch.stack(torch.meshgrid(*[torch.arange(window)] * 2, indexing='ij')).flatten(1)
        offset = place[:, None, :] - place[:, :, None] + window - 1
        logits = a @ b.transpose(-1, -2) * 5**-0.5 + bias[:, offset[0], offset[1]]
        ids = region[y : y + window, x : x + window].flatten()
        logits = logits.masked_fill(ids[:, None] != ids, float('-inf'))
        out[part] = (logits.softmax(-1) @ c).unflatten(2, (window, window))
    for impl in PARTITION_IMPLS:
        found = partition_attention(q, k, v, window, shift=shift, bias=bias, impl=impl)
        torch.testing.assert_close(found, out)


@pytest.mark.parametrize(('size', 'window', 'shift'), [((9, 5), 4, 1), ((3, 14), 7, 3)])
def test_partition_of_any_size(size, window, shift):
    torch.manual_seed(0)
    tensors = [rand(2, 2, *size, 3) for _ in range(3)] + [rand(1, 2 * window - 1, 2 * window - 1)]
    for impl in ('tiled', 'windows'):
        agree(
            lambda q, k, v, bias, impl: partition_attention(
                q, k, v, window, shift=shift, bias=bias, impl=impl
            ),
            tensors,
            impl,
        )
    with pytest.raises(ValueError, match=f'shift must lie in 0..window - 1, got shift {window}'):
        partition_attention(*tensors[:3], window, shift=window)


@pytest.mark.parametrize(
    ('size', 'window', 'shift'),
    [((2, 9), 7, 3), ((3, 16), 7, 5), ((9, 8), (4, 3), 2), ((5, 7), (2, 5), 0), ((1, 2), 4, 3)],
)
def test_partition_is_its_definition(size, window, shift):
    """Pixels see those of their window that came round with them, or stayed with them."""
    torch.manual_seed(0)
    sides = (window, window) if isinstance(window, int) else window
    q, k, v = (rand(2, 2, *size, 3) for _ in range(3))
    bias = rand(2, *(2 * side - 1 for side in sides))

    def axis(length, side):
        group = [(i // side, i >= length - shift) for i in range(length)]
        return [[(j, j - i) for j in range(length) if group[j] == group[i]] for i in range(length)]

    rows, columns = (axis(length, side) for length, side in zip(size, sides, strict=True))
    expected = loops(q, k, v, rows, columns, 0.7, bias, None, None)
    for impl in PARTITION_IMPLS:
        found = partition_attention(q, k, v, window, shift=shift, scale=0.7, bias=bias, impl=impl)
        torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures('tiles')
@pytest.mark.parametrize('size', [(5, 4), (7, 10), (9, 5), (3, 13), (2, 11)])
def test_grids_are_their_definition(size):
    """Pixels see those a multiple of ceil(side / grid) away."""
    torch.manual_seed(0)
    grid = 4, 3
    q, k, v = (rand(1, 2, *size, 3) for _ in range(3))
    bias = rand(2, 7, 5)
    rows, columns = (
        [[(j, (j - i) // step) for j in range(i % step, length, step)] for i in range(length)]
        for length, step in ((n, math.ceil(n / g)) for n, g in zip(size, grid, strict=True))
    )
    expected = loops(q, k, v, rows, columns, 3**-0.5, bias, None, None)
    for impl in PARTITION_IMPLS:
        found = partition_attention(q, k, v, grid, grid=True, bias=bias, impl=impl)
        torch.testing.assert_close(found, expected)


@pytest.mark.usefixtures('tiles')
def test_masks_hold_whatever_the_logits():
    """Keys that are not seen have no weight, be the logits of the others ever so low."""
    for seed in range(300, 330):
        function, (q, k, v, *tables) = random_case(seed)
        q, k = q.abs() * 30, -k.abs() * 30
        agree(function, (q, k, v, *tables), tolerance=1e-9)
    q, k, v = (rand(1, 2, 5, 9, 4).abs() for _ in range(3))
    for impl in IMPLS:
        out = local_attention(50 * q, -50 * k, 1 + v, 3, border='mask', impl=impl)
        assert (out > 1).all()  # no share of zeros beyond the border


@pytest.mark.usefixtures('tiles')
def test_scores_exist_for_some_queries_at_a_time():
    """A call needs little beside its inputs and its result, however many images and heads."""
    q, k, v = (torch.randn(4, 8, 24, 26, 4) for _ in range(3))
    bias = torch.randn(8, 47, 51)
    scores = 4 * 8 * (24 * 26) ** 2 * 4  # bytes of all of them, 50 MB
    calls = {
        'whole': lambda: global_attention(q, k, v, bias=bias),
        'windows': lambda: local_attention(q, k, v, 7, bias=torch.zeros(8, 13, 13)),
        'blocks': lambda: block_attention(q, k, v, 8, 3),
        'partition': lambda: partition_attention(q, k, v, (24, 26), bias=bias),
    }
    for name, call in calls.items():
        peak, _ = memory(call, torch.device('cpu'))
        assert peak < scores / 5, name
    leaves = [x.requires_grad_() for x in (q, k, v, bias)]
    peak, _ = memory(
        lambda: torch.autograd.grad(global_attention(q, k, v, bias=bias).sum(), leaves),
        torch.device('cpu'),
    )
    assert peak < scores / 3


def test_tiles_of_whole_maps_are_equal():
    """Small maps are one tile; a last tile that is nearly empty costs as much as a full one."""
    pattern = Pattern(PatternType.WHOLE, AxisPattern(), AxisPattern())
    rows = {side: pattern.tile_sizes(side, side)[0] for side in (7, 14, 16, 20, 24, 200)}
    assert rows == {7: (7, 7), 14: (14, 14), 16: (8, 16), 20: (7, 20), 24: (6, 24), 200: (1, 200)}
    strided = Pattern(PatternType.WHOLE, AxisPattern(stride=2), AxisPattern(stride=2))
    assert strided.tile_sizes(28, 28) == [(14, 14), (7, 14), (4, 14)]


@pytest.mark.parametrize(
    ('bias', 'rel_h', 'rel_w'),
    [(None, None, None), (2, None, None), (None, 1, 2), (1, 2, None), (None, None, 1), (2, 1, 1)],
)
def test_small_whole_maps_in_two_products(bias, rel_h, rel_w, monkeypatch):
    """'auto' keeps the weights; tables may be longer than needed, for each head or for all."""
    compiled = fused.is_available(torch.empty(0))
    without_kernel(monkeypatch)
    torch.manual_seed(0)
    q, k = (torch.randn(2, 2, 5, 9, 4, dtype=torch.float64) for _ in range(2))
    shapes = (bias, (11, 17)), (rel_h, (9, 4)), (rel_w, (21, 4))
    given = [None if n is None else torch.randn(n, *s, dtype=torch.float64) for n, s in shapes]
    called = []
    forward = whole.forward
    monkeypatch.setattr(whole, 'forward', lambda *args: called.append(1) or forward(*args))
    found = {}
    for impl in ('auto', 'reference'):
        leaves = [None if t is None else t.clone().requires_grad_() for t in (q, k, q + k, *given)]
        tables = dict(zip(('bias', 'rel_h', 'rel_w'), leaves[3:], strict=True))
        out = global_attention(*leaves[:3], scale=0.3, impl=impl, **tables)
        wanted = [t for t in leaves if t is not None]
        found[impl] = out.detach(), *torch.autograd.grad(out.square().sum(), wanted)
    assert len(called) == 1
    torch.testing.assert_close(found['auto'], found['reference'])
    global_attention(q, k, q, impl='tiled')
    global_attention(*(t.half() for t in (q, k, q)))
    global_attention(q[:, :, ::2, ::2], k, k, stride=2)
    large = torch.randn(1, 1, 14, 15, 2)
    global_attention(large, large, large)
    assert len(called) == 1
    if compiled:
        monkeypatch.undo()
        monkeypatch.setattr(whole, 'forward', lambda *args: called.append(1) or forward(*args))
        for width in (127, 128):
            narrow = torch.randn(1, 1, 3, 4, width)
            global_attention(narrow, narrow, narrow)
        assert len(called) == 2  # wide heads only
