"""Triton kernels of local attention, in Triton's interpreter, against the reference."""

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
        return function(q, k, v, **options, **dict(zip(tables, tables_given)), impl=impl)

    return call, [q, k, v, *tables.values()]


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
    """The kernels agree with the reference, which computes in float64, to the rounding of a type."""
    inputs = [x.to(dtype) for x in inputs]
    found = results(call, inputs, 'triton', dtype, grad)
    expected = results(call, inputs, 'reference', torch.float64, grad)
    for x, y in zip(found, expected, strict=True):
        assert x.dtype == dtype
        error, largest = (x.double() - y).abs().max(), y.abs().max().clamp(min=1)
        assert error <= ROUNDING[dtype] * largest, (tuple(x.shape), error / largest)


@pytest.mark.parametrize('seed', range(15))
def test_outputs_and_gradients_of_random_cases(seed):
    check(*drawn(seed))


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(100, 250))
def test_more_random_cases(seed):
    dtype = (torch.float32, torch.float16, torch.bfloat16)[seed % 3]
    check(*drawn(seed), dtype)
