"""Triton kernels of local attention, in Triton's interpreter, against the reference."""

import itertools
import random

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from hybrid_mm.ops import kernels
from hybrid_mm.ops.distance_attention import distance_attention
from hybrid_mm.ops.local_attention import (
    block_attention,
    global_attention,
    launches,
    local_attention,
    partition_attention,
)
from hybrid_mm.ops.local_attention.lanes import key_tiles, query_tiles
from hybrid_mm.ops.local_attention.pattern import AxisPattern, Pattern, PatternType, Tables

pytestmark = pytest.mark.usefixtures('interpreter')

BORDERS = ('shift', 'zero', 'mask', 'reflect')
ROUNDING = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def laid_out(rng, n, heads, height, width, d):
    """Random map (N, heads, H, W, d) as a view of tokens or of a map in NCHW or channels-last."""
    kind = rng.choice(('contiguous', 'tokens', 'projection', 'planes', 'channels last'))
    if kind == 'contiguous':
        return torch.randn(n, heads, height, width, d)
    if kind == 'tokens':
        return torch.randn(n, height, width, heads, d).permute(0, 3, 1, 2, 4)
    if kind == 'projection':
        return torch.randn(n, height, width, 3, heads, d)[:, :, :, 1].permute(0, 3, 1, 2, 4)
    x = torch.randn(n, heads * d, height, width)
    if kind == 'channels last':
        x = x.to(memory_format=torch.channels_last)
    return x.unflatten(1, (heads, d)).permute(0, 1, 3, 4, 2)


def drawn(seed):
    """Function of q, k, v and tables for a random pattern, and its inputs."""
    rng = random.Random(seed)
    torch.manual_seed(seed)
    kind = PatternType(seed % len(PatternType))
    n, heads, d, dv = rng.choice((1, 2)), rng.choice((1, 2)), rng.randint(3, 20), rng.randint(1, 20)
    height, width = rng.randint(2, 11), rng.randint(2, 11)
    stride, names = 1, ('bias', 'rel_h', 'rel_w')
    if kind == PatternType.WINDOW:
        window, dilation, stride = (rng.choice((1, 3, 5)), 3), rng.randint(1, 3), rng.randint(1, 2)
        options = dict(window=window, dilation=dilation, border=rng.choice(BORDERS))
        function, lengths = local_attention, [2 * x - 1 for x in window]
    elif kind == PatternType.BLOCK:
        stride = rng.randint(1, 2)
        block, halo = stride * rng.randint(1, 5), rng.randint(0, 3)
        options = dict(block=block, halo=halo, border=rng.choice(('zero', 'mask')))
        function, lengths = block_attention, [2 * (block + 2 * halo) - 1] * 2
        names = names[1:]
    elif kind == PatternType.WHOLE:
        stride = rng.randint(1, 2)
        function, options = global_attention, {}
        lengths = [2 * height + 1, 2 * width - 1]
    else:
        window = rng.randint(1, 6), rng.randint(1, 10)
        options = dict(window=window, grid=kind == PatternType.GRID)
        options['shift'] = 0 if options['grid'] else rng.randrange(min(window))
        function, names, lengths = partition_attention, names[:1], [2 * x - 1 for x in window]
    if stride > 1:
        options['stride'] = stride
    if rng.random() < 0.5:
        options['scale'] = 0.3
    shared = rng.choice((1, heads))
    shapes = dict(
        bias=(shared, *lengths), rel_h=(shared, lengths[0], d), rel_w=(shared, lengths[1], d)
    )
    tables = {name: torch.randn(shapes[name]) for name in names if rng.random() < 0.6}
    sides = -(-height // stride), -(-width // stride)
    q = laid_out(rng, n, heads, *sides, d)
    k, v = (laid_out(rng, n, heads, height, width, x) for x in (d, dv))

    def call(q, k, v, *tables_given, impl):
        return function(
            q, k, v, **options, **dict(zip(tables, tables_given, strict=True)), impl=impl
        )

    return call, [q, k, v, *tables.values()]


def axis(rng, kind):
    """Random pattern of one axis."""
    border = rng.choice(BORDERS)
    if kind == PatternType.WINDOW:
        size, stride, dilation = rng.choice((1, 3, 5)), rng.randint(1, 3), rng.randint(1, 5)
        return AxisPattern(size, stride, dilation, border=border)
    if kind == PatternType.BLOCK:
        border = rng.choice(('zero', 'mask'))
        return AxisPattern(4, rng.choice((1, 2, 4)), halo=rng.randint(0, 3), border=border)
    if kind == PatternType.WHOLE:
        return AxisPattern(stride=rng.randint(1, 3))
    size = rng.randint(1, 9)
    shift = rng.randrange(size) if kind == PatternType.PARTITION else 0
    return AxisPattern(size, shift=shift)


@pytest.mark.parametrize('kind', PatternType)
def test_tables_of_an_axis(kind):
    """Every query has one slot, every key one, and every pair of both is met once."""
    rng = random.Random(int(kind))
    for _ in range(60):
        pattern, length = axis(rng, kind), rng.randint(1, 20)
        whole = Pattern(kind, pattern, pattern).axes(length, length)[0]
        queries, keys = (f(kind, pattern, length, 4) for f in (query_tiles, every_key))
        slots = queries.slots[:, 0]
        assert sorted(slots[slots >= 0]) == list(range(whole.queries))
        assert sorted(keys.keys[keys.keys >= 0]) == list(range(length))
        shift = queries.slots.reshape(len(queries.tiles), 4, 3)[..., 2]
        lowest = queries.tiles[:, 3]
        assert (shift.max(1) - lowest <= queries.spread).all()
        assert (shift.min(1) == lowest).all()
        met = []
        for copy, tile in itertools.product(*map(range, keys.tiles.shape[:2])):
            first, number, count, _ = keys.tiles[copy, tile]
            places = range(4 * tile, 4 * tile + 4)
            for (query, start, _), j in itertools.product(
                keys.queries[first : first + number], places
            ):
                place = keys.positions[copy, j]
                if place >= 0 and start <= place < start + count:
                    met.append((query, keys.keys[j]))
        index, seen, _ = whole.taps()
        pairs = [(i, k) for i in range(whole.queries) for k in index[i][seen[i] & (index[i] >= 0)]]
        assert sorted(met) == sorted(pairs)


def every_key(kind, pattern, length, size):
    return key_tiles(kind, pattern, length, size, 4)


def results(call, inputs, impl, dtype, grad=True):
    """Output, and gradients of all inputs."""
    torch.manual_seed(0)
    inputs = [x.to(dtype).requires_grad_(grad) for x in inputs]
    out = call(*inputs, impl=impl)
    if not grad:
        return [out]
    upstream = torch.randn(out.shape, dtype=torch.float64).to(torch.float16).to(dtype)
    return [out, *torch.autograd.grad(out, inputs, upstream)]


def check(call, inputs, dtype=torch.float32, grad=True):
    """The kernels agree with the reference in float64, to the rounding of a type."""
    inputs = [x.to(dtype) for x in inputs]
    found = results(call, inputs, 'triton', dtype, grad)
    expected = results(call, inputs, 'reference', torch.float64, grad)
    for x, y in zip(found, expected, strict=True):
        assert x.dtype == dtype
        error, largest = (x.double() - y).abs().max(), y.abs().max().clamp(min=1)
        assert error <= ROUNDING[dtype] * largest, (tuple(x.shape), error / largest)


@pytest.mark.parametrize(
    'seed',
    [
        *(1, 2, 6, 9, 12),
        *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 4, 5, 7, 8, 13)),  # large ones
    ],
)
def test_outputs_and_gradients_of_random_cases(seed):
    check(*drawn(seed))


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(100, 250))
def test_more_random_cases(seed):
    dtype = (torch.float32, torch.float16, torch.bfloat16)[seed % 3]
    check(*drawn(seed), dtype)


def maps(n, heads, height, width, d, dv=None):
    """Small random q, k, v."""
    torch.manual_seed(0)
    return [torch.randn(n, heads, height, width, x) for x in (d, d, dv or d)]


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """All tables, products of half precision and sums of single precision."""
    tables = torch.randn(2, 5, 5), torch.randn(1, 5, 3), torch.randn(2, 5, 3)

    def call(q, k, v, bias, rel_h, rel_w, impl):
        terms = dict(bias=bias, rel_h=rel_h, rel_w=rel_w)
        return local_attention(q, k, v, 3, border='zero', **terms, impl=impl)

    check(call, [*maps(1, 2, 3, 5, 3), *tables], dtype)


@pytest.mark.parametrize('width', [130])
def test_wide_heads_on_a_map_smaller_than_its_window(width):
    check(lambda *x, impl: local_attention(*x, 7, impl=impl), maps(1, 1, 2, 3, width))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
@pytest.mark.parametrize('hidden', [-1e9, -float('inf')])
def test_bias_that_hides_keys(hidden, dtype):
    """A table of single precision beside maps of half precision, which have no such number."""
    bias = torch.randn(1, 5, 7)
    bias[:, :, :3] = hidden
    x = [y.to(dtype) for y in maps(1, 1, 3, 4, 3)]

    def call(impl, exact=False):
        inputs = [y.double() if exact else y.clone() for y in (*x, bias)]
        inputs = [y.requires_grad_() for y in inputs]
        out = global_attention(*inputs[:3], bias=inputs[3], impl=impl)
        return out, *torch.autograd.grad(out.square().sum(), inputs)

    for found, expected in zip(call('triton'), call('reference', exact=True), strict=True):
        assert (found.double() - expected).abs().max() <= 3 * ROUNDING[dtype]


def test_gradients_of_some_inputs_only():
    """Of a frozen key, or with a fixed table: nothing is returned, nor computed wrongly."""
    q, k, v = maps(1, 1, 3, 4, 3)
    bias, rel_h = torch.randn(1, 5, 7), torch.randn(1, 5, 3, requires_grad=True)
    for learned in ((v, rel_h), (q,), (k, bias)):
        found = []
        for impl in ('triton', 'reference'):
            for x in (q, k, v, bias, rel_h):
                x.requires_grad_(any(x is y for y in learned))
            out = global_attention(q, k, v, bias=bias, rel_h=rel_h, impl=impl)
            found.append(torch.autograd.grad(out.square().sum(), learned))
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_empty_batch():
    inputs = [x[:0] for x in maps(1, 2, 3, 4, 3)]
    bias = torch.randn(2, 5, 5, requires_grad=True)
    inputs[0].requires_grad_()
    out = local_attention(*inputs, 3, bias=bias, impl='triton')
    assert out.shape == (0, 2, 3, 4, 3)
    out.sum().backward()
    assert inputs[0].grad.shape == (0, 2, 3, 4, 3)
    assert not bias.grad.any()


def test_distance_attention():
    q, k, v = maps(1, 2, 3, 5, 4, 6)

    def call(q, k, v, table, impl):
        return distance_attention(q[:, :, ::2, ::2], k, v, table, 2, impl=impl)

    check(call, [q, k, v, torch.randn(2, 3, 5)])


def test_operator_of_torch(opcheck):
    """Schema, shapes and strides without numbers, registration of the gradient."""
    pattern = Pattern(PatternType.WINDOW, AxisPattern(3), AxisPattern(3))
    rng = random.Random(3)
    x = [laid_out(rng, 1, 2, 3, 4, 5) for _ in range(3)]
    tables = torch.randn(2, 5, 5), None, torch.randn(1, 5, 5)
    arguments = (*x, *tables, 0.4, pattern.to_ints())
    opcheck(launches.attention, arguments, test_utils=CHECKS)
    needs = [True, False, True, True, False, True]
    out, lse = launches.attention(*arguments)
    for grad in (torch.randn(out.shape), torch.randn_like(out)):
        gradient = torch.ops.hybrid_mm.triton_attention_backward
        opcheck(gradient, (grad, None, needs, out, lse, *arguments), test_utils=CHECKS)


CHECKS = ('test_schema', 'test_faketensor', 'test_autograd_registration')


@pytest.mark.parametrize('memory', ['tokens', 'projection', 'planes', 'channels last'])
def test_memory_of_results(memory):
    """As torch.compile is told: tokens, and gradients in the order of their maps."""

    class Memory:
        choice = staticmethod(lambda kinds: memory)

    pattern = Pattern(PatternType.GRID, AxisPattern(2), AxisPattern(2)).to_ints()
    x = [laid_out(Memory, 2, 2, 3, 4, 5) for _ in range(3)]
    real = launches.attention(*x, None, None, None, 0.4, pattern)
    assert real[0].permute(0, 2, 3, 1, 4).is_contiguous()
    needs = [True] * 3 + [False] * 3
    arguments = torch.randn(real[0].shape), None, needs, *real, *x, None, None, None, 0.4, pattern
    gradients = torch.ops.hybrid_mm.triton_attention_backward(*arguments)
    with FakeTensorMode(allow_non_fake_inputs=True):
        fakes = torch.ops.hybrid_mm.triton_attention_backward(*arguments)
    for gradient, fake, y in zip(gradients, fakes, x, strict=True):
        assert gradient.stride() == fake.stride()
        order = sorted(range(5), key=lambda dim: -y.stride(dim))
        assert gradient.permute(order).is_contiguous()


def test_without_kernels(monkeypatch):
    """Where they cannot be compiled the other algorithm gives the same in the same memory."""
    call, inputs = drawn(2)
    expected = results(call, inputs, 'reference', torch.float32)
    monkeypatch.setattr(kernels, '_failed', {'local_attention'})
    monkeypatch.setattr(kernels, 'interpreted', lambda: False)
    monkeypatch.setattr(kernels, 'unavailable', lambda *_: None)
    found = results(call, inputs, 'triton', torch.float32)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found[0].permute(0, 2, 3, 1, 4).is_contiguous()


def test_deterministic_algorithms(monkeypatch):
    """Sums in an open order are left to the algorithm in tiles."""
    x = [y.requires_grad_() for y in maps(1, 1, 3, 4, 3)]
    bias = torch.randn(1, 5, 7, requires_grad=True)
    monkeypatch.setattr(torch, 'are_deterministic_algorithms_enabled', lambda: True)
    found = []
    for tables, launches_expected in ((dict(bias=bias), 1), ({}, 3)):
        found.clear()
        with kernels.recorded(found.append):
            global_attention(*x, **tables, impl='triton').sum().backward()
        assert len(found) == launches_expected


class Calls(TorchDispatchMode):
    """Counts calls below autograd that are kernels on a GPU."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        views = ('view', 'permute', 'split', 'empty', 'detach', 'alias', 'expand', 'slice', 'lift')
        if func.namespace == 'aten' and not any(x in func.__name__ for x in views):
            self.number += 1
        return func(*args, **(kwargs or {}))


def test_launches(monkeypatch):
    """At most 3 kernels forward and 6 backward, whatever the tables; 'auto' takes them on GPUs."""
    monkeypatch.delenv(kernels.INTERPRET_VARIABLE)
    pattern = Pattern(PatternType.WINDOW, AxisPattern(7), AxisPattern(7))
    with FakeTensorMode():
        x = [torch.empty(2, 4, 20, 30, 32, device='cuda', dtype=torch.half) for _ in range(3)]
        tables = Tables(
            *(torch.empty(1, 13, n, device='cuda') for n in (13, 32, 32)),
        )
        for given in (tables, Tables(tables.bias), Tables(None, *tables[1:]), Tables()):
            needs = [True] * 3 + [t is not None for t in given]
            for _ in range(2):  # tables are copied to the GPU once
                record, calls = [], Calls()
                with kernels.recorded(record.append), calls:
                    out, lse = launches.attention._init_fn(*x, *given, 0.2, pattern.to_ints())
                    forward = len(record) + calls.number
                    launches._backward(
                        out, None, needs, out, lse, *x, *given, 0.2, pattern.to_ints()
                    )
            assert forward == 1
            assert len(record) + calls.number - forward <= 6
            assert [launch.kernel.__name__ for launch in record] == [
                'attend', 'differentiate_queries', 'differentiate_keys']  # fmt: skip
        for dtype, width, taken in (
            (torch.half, 256, True), (torch.half, 257, False),
            (torch.float32, 32, True), (torch.float32, 33, False), (torch.float64, 8, False),
        ):  # fmt: skip
            y = torch.empty(1, 1, 4, 4, width, device='cuda', dtype=dtype)
            assert launches.available(y, y, y) is taken
        y = torch.empty(1, 1, 4, 4, 130, device='cuda', dtype=torch.half)
        assert not launches.available(y, y, y, tables.bias)


def test_auto_on_a_gpu(monkeypatch):
    """All functions take the kernels, but with dropout."""
    monkeypatch.delenv(kernels.INTERPRET_VARIABLE)
    taken = []

    def attention(q, *others):
        taken.append(Pattern.from_ints(others[-1]).type.name)
        return q, None

    monkeypatch.setattr(launches, 'attention', attention)
    with FakeTensorMode():
        q, k, v = (torch.empty(1, 2, 8, 8, 16, device='cuda') for _ in range(3))
        local_attention(q, k, v, 3)
        block_attention(q, k, v, 4, 1)
        global_attention(q, k, v)
        partition_attention(q, k, v, 4)
        partition_attention(q, k, v, 4, grid=True)
        distance_attention(q, k, v, torch.empty(2, 8, 8, device='cuda'))
        partition_attention(q, k, v, 4, dropout=0.5)
        assert taken == ['WINDOW', 'BLOCK', 'WHOLE', 'PARTITION', 'GRID', 'WHOLE']
        with pytest.raises(RuntimeError, match=r'of local_attention: queries of 80 .* at most 32'):
            global_attention(*(torch.empty(1, 1, 4, 4, 80, device='cuda'),) * 3, impl='triton')
