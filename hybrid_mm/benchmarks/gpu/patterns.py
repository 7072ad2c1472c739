"""Every operator with the patterns of the papers: its inputs at three sizes, and the call.

Vector attention is missing: what it does between the convolutions of its layer is no function of
tensors alone, see :mod:`~hybrid_mm.benchmarks.gpu.layers`.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybrid_mm.layers.convolution.peripheral_convolution import sharing_grid
from hybrid_mm.ops.decomposed_attention import decomposed_attention
from hybrid_mm.ops.distance_attention import distance_attention
from hybrid_mm.ops.evolving_attention import evolving_attention
from hybrid_mm.ops.ghost_attention import ghost_attention
from hybrid_mm.ops.global_filter import global_filter
from hybrid_mm.ops.grid_convolution import grid_convolution
from hybrid_mm.ops.learned_queries import learned_query_attention
from hybrid_mm.ops.local_attention import (
    block_attention,
    global_attention,
    local_attention,
    partition_attention,
)
from hybrid_mm.ops.mixed_shift import mixed_shift
from hybrid_mm.ops.separable_attention import separable_attention

Size = tuple[int, ...]
CHANNELS_FIRST = (0, 1, 4, 2, 3)  # (N, heads, H, W, d) in the memory order of a convolution
TOKENS_FIRST = (0, 2, 3, 1, 4)  # and in that of a linear layer


class Draw(NamedTuple):
    """How an input is drawn: a normal of this shape, and the order of its axes in memory."""

    shape: Size
    std: float = 1.0
    mean: float = 0.0
    order: Size | None = None


class Problem(NamedTuple):
    """Inputs of an operator by name, and the operator with its other arguments, ``impl`` left."""

    inputs: dict[str, Draw]
    call: Callable[..., Any]


class Pattern(NamedTuple):
    """An operator as a network uses it.

    Attributes:
        operator: Its name in :data:`~hybrid_mm.ops.dispatch.ALGORITHMS`.
        name: What is special, and the network.
        build: Makes the problem for a size.
        tiny: Size for Triton's interpreter.
        small: Size at which results are compared on a GPU; nothing divides it.
        paper: Size in the smallest detector of the paper, on two images of 800 x 1216.
        slack: Multiple of the tolerances, where rounding counts more.
    """

    operator: str
    name: str
    build: Callable[..., Problem]
    tiny: Size
    small: Size
    paper: Size
    slack: float = 1.0


def draw(inputs: dict[str, Draw], seed: int) -> dict[str, Tensor]:
    """Draw inputs, in double precision on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, (shape, std, mean, order) in inputs.items():
        x = torch.randn(shape, generator=generator, dtype=torch.float64) * std + mean
        if order is not None:
            inverse = [order.index(axis) for axis in range(len(order))]
            x = x.permute(order).contiguous().permute(inverse)
        found[name] = x
    return found


# ---- attention to parts of the map: sizes are (N, heads, H, W, d)


def _maps(size: Size, stride: int = 1, order: Size | None = None) -> dict[str, Draw]:
    n, heads, height, width, d = size
    q = (n, heads, math.ceil(height / stride), math.ceil(width / stride), d)
    return {'q': Draw(q, order=order), 'k': Draw(size, order=order), 'v': Draw(size, order=order)}


def _relative(rows: int, columns: int, d: int, heads: int = 1) -> dict[str, Draw]:
    std = d**-0.5
    return dict(rel_h=Draw((heads, rows, d), std), rel_w=Draw((heads, columns, d), std))


def _window(
    *size: int, window: int = 7, bias: bool = False, relative: bool = False, **settings: Any
) -> Problem:
    order = CHANNELS_FIRST if relative else TOKENS_FIRST
    inputs = _maps(size, settings.get('stride', 1), order)
    entries = 2 * window - 1
    if bias:
        inputs['bias'] = Draw((size[1], entries, entries))
    if relative:
        inputs |= _relative(entries, entries, size[-1])
    return Problem(inputs, partial(local_attention, window=window, **settings))


def _block(*size: int, block: int = 8, halo: int = 3, stride: int = 1) -> Problem:
    entries = 2 * (block + 2 * halo) - 1
    inputs = _maps(size, stride, CHANNELS_FIRST) | _relative(entries, entries, size[-1])
    return Problem(inputs, partial(block_attention, block=block, halo=halo, stride=stride))


def _whole(*size: int, bias: bool = False) -> Problem:
    rows, columns = 2 * size[2] - 1, 2 * size[3] - 1
    if bias:
        return Problem(
            _maps(size, order=TOKENS_FIRST) | dict(bias=Draw((size[1], rows, columns))),
            global_attention,
        )
    inputs = _maps(size, order=CHANNELS_FIRST) | _relative(rows, columns, size[-1])
    return Problem(inputs, global_attention)


def _partition(*size: int, window: int = 7, **settings: Any) -> Problem:
    entries = 2 * window - 1
    inputs = _maps(size, order=TOKENS_FIRST) | dict(bias=Draw((size[1], entries, entries)))
    return Problem(inputs, partial(partition_attention, window=window, **settings))


def _decomposed(*size: int, reduction: int = 1) -> Problem:
    n, heads, height, width, d = size
    keys = (n, heads, math.ceil(height / reduction), math.ceil(width / reduction), d)
    inputs = _maps(size, order=TOKENS_FIRST)
    inputs |= dict(k=Draw(keys, order=TOKENS_FIRST), v=Draw(keys, order=TOKENS_FIRST))
    for name, length in (('rel_h', height), ('rel_w', width)):
        inputs[name] = Draw((2 * length - 1, d), d**-0.5)
    return Problem(inputs, decomposed_attention)


def _distance(*size: int, stride: int = 1) -> Problem:
    inputs = _maps(size, stride, TOKENS_FIRST) | dict(table=Draw(size[1:4]))
    inputs['v'] = Draw((*size[:4], 2 * size[4]), order=TOKENS_FIRST)
    return Problem(inputs, partial(distance_attention, stride=stride))


def _evolving(*size: int) -> Problem:
    n, heads, height, width, d = size
    inputs = _maps(size, order=CHANNELS_FIRST)
    inputs['q'] = Draw(size, d**-0.5, order=CHANNELS_FIRST)
    for name, length in (('rel_h', height), ('rel_w', width)):
        inputs[name] = Draw((2 * length - 1, d), d**-0.5)
    inputs['previous'] = Draw((n, heads, height * width, height * width))
    inputs['weight'] = Draw((heads, heads, 3, 3), 0.3 * (9 * heads) ** -0.5)
    # logits far from the kink of the ReLU, where rounding decides about the gradient
    inputs['bias'] = Draw((heads,), 0.1, mean=4.0)
    return Problem(inputs, evolving_attention)


# ---- weighted taps and convolutions: sizes are (N, C, H, W)


def _ghost(*size: int, heads: int = 3, kernel_size: int = 7, factors: bool = False) -> Problem:
    n, c, height, width = size
    hidden, taps = 2 * c // 3, kernel_size**2
    inputs = {
        'hidden': Draw((n, hidden, height, width)),
        'v': Draw(size),
        'weight': Draw((heads * taps, hidden), 2 * hidden**-0.5),
        'bias': Draw((heads * taps,)),
    }
    if factors:
        inputs |= dict.fromkeys(('mul', 'add'), Draw((c, kernel_size, kernel_size)))
    return Problem(inputs, partial(ghost_attention, heads=heads, kernel_size=kernel_size))


def _mixed(*size: int, heads: int = 4, stride: int = 1) -> Problem:
    n, channels, height, width = size
    maps, d, taps = 3 * heads, channels // heads, 9
    inputs = {
        'x': Draw((n, maps, d, height, width)),
        'fc': Draw((taps, maps), maps**-0.5),
        'bias': Draw((taps,)),
        'weight': Draw((d * heads, taps, 3, 3), taps**-1.0),
    }
    return Problem(inputs, partial(mixed_shift, stride=stride))


def _learned(
    *size: int, heads: int = 8, queries: int = 2, kernel_size: int = 3, stride: int = 1
) -> Problem:
    n, _, height, width = size
    table = (queries, heads, kernel_size, kernel_size)
    inputs = {
        'scores': Draw((n, queries, heads, height, width)),
        'values': Draw(size),
        'bias': Draw(table),
        'scale': Draw(table),
    }
    return Problem(inputs, partial(learned_query_attention, stride=stride))


def _grid(*size: int, rows: list[int], columns: list[int] | None = None) -> Problem:
    columns = columns or rows
    weight = (size[1], len(rows), len(columns))
    inputs = dict(x=Draw(size), weight=Draw(weight, (sum(rows) * sum(columns)) ** -0.5))
    return Problem(inputs, partial(grid_convolution, rows=rows, columns=columns))


def _separable(*size: int, heads: int = 4) -> Problem:
    n, c, height, width = size
    inputs = {
        'x': Draw((n, height, width, c)),
        'rows': Draw((heads, height, height), height**-0.5),
        'columns': Draw((heads, width, width), width**-0.5),
        'weight': Draw((heads, c, c), (heads * c) ** -0.5),
    }
    return Problem(inputs, separable_attention)


def _filter(*size: int) -> Problem:
    return Problem(dict(x=Draw(size), spectrum=Draw((size[1], 14, 8, 2))), global_filter)


_TINY, _SMALL = (1, 2, 7, 9, 16), (2, 4, 37, 51, 32)
_FINE, _MIDDLE, _COARSE = (200, 304), (100, 152), (50, 76)  # maps of 1/4, 1/8 and 1/16

# The first pattern of an operator is the one that is tried first.
PATTERNS = (
    Pattern('local_attention', 'window 7 with bias (NAT)', partial(_window, bias=True),
            _TINY, _SMALL, (2, 2, *_FINE, 32)),
    Pattern('local_attention', 'window 7 (NAT without bias)', _window,
            _TINY, _SMALL, (2, 2, *_FINE, 32)),
    Pattern('local_attention', 'window 7 dilation 4 with bias (DiNAT)',
            partial(_window, bias=True, dilation=4), _TINY, _SMALL, (2, 4, *_MIDDLE, 32)),
    Pattern('local_attention', 'window 7 over the border, relative (SASA)',
            partial(_window, relative=True, border='zero'), _TINY, _SMALL, (2, 8, *_FINE, 8)),
    Pattern('local_attention', 'window 7 mirrored (ACmix)', partial(_window, border='reflect'),
            _TINY, _SMALL, (2, 4, *_FINE, 16)),
    Pattern('local_attention', 'window 7 stride 2 (ACmix)',
            partial(_window, border='reflect', stride=2), _TINY, _SMALL, (2, 4, *_FINE, 16)),
    Pattern('local_attention', 'block 8 halo 3, relative (HaloNet)', _block,
            _TINY, _SMALL, (2, 8, *_COARSE, 16)),
    Pattern('local_attention', 'block 8 halo 3 stride 2, relative (HaloNet)',
            partial(_block, stride=2), _TINY, _SMALL, (2, 8, *_COARSE, 16)),
    Pattern('local_attention', 'whole map, relative (BoTNet)', _whole,
            _TINY, (2, 4, 21, 27, 32), (2, 4, *_COARSE, 128)),
    Pattern('local_attention', 'whole map with bias (CoAtNet)', partial(_whole, bias=True),
            _TINY, (2, 4, 21, 27, 32), (2, 12, *_COARSE, 32)),
    Pattern('partition_attention', 'windows of 7, shifted (Swin)', partial(_partition, shift=3),
            _TINY, _SMALL, (2, 3, *_FINE, 32)),
    Pattern('partition_attention', 'grid of 7 (MaxViT)', partial(_partition, grid=True),
            _TINY, _SMALL, (2, 2, *_FINE, 32)),
    Pattern('decomposed_attention', 'whole map (ViTDet)', _decomposed,
            _TINY, (2, 4, 21, 27, 64), (2, 12, *_COARSE, 64)),
    Pattern('decomposed_attention', 'pooled keys (MViTv2)', partial(_decomposed, reduction=2),
            _TINY, (2, 4, 21, 27, 32), (2, 2, *_MIDDLE, 96)),
    Pattern('distance_attention', 'by distance (LeViT)', _distance,
            _TINY, (2, 4, 21, 27, 16), (2, 4, *_COARSE, 16)),
    Pattern('distance_attention', 'stride 2 (LeViT)', partial(_distance, stride=2),
            _TINY, (2, 4, 21, 27, 16), (2, 8, *_COARSE, 16)),
    Pattern('evolving_attention', 'in a chain (EA-AA-ResNet)', _evolving,
            (1, 2, 3, 5, 16), (2, 8, 13, 17, 16), (2, 8, 25, 38, 8), slack=2.0),
    Pattern('ghost_attention', 'window 7 (ELSA)', _ghost,
            (1, 12, 7, 9), (2, 48, 37, 51), (2, 96, *_FINE)),
    Pattern('ghost_attention', 'window 7 with factors (ELSA)', partial(_ghost, factors=True),
            (1, 12, 7, 9), (2, 48, 37, 51), (2, 96, *_FINE)),
    Pattern('mixed_shift', '4 heads (ACmix)', _mixed,
            (1, 8, 7, 9), (2, 64, 37, 51), (2, 64, *_FINE)),
    Pattern('mixed_shift', '4 heads, stride 2 (ACmix)', partial(_mixed, stride=2),
            (1, 8, 7, 9), (2, 64, 37, 51), (2, 64, *_FINE)),
    Pattern('learned_query_attention', 'window 3 (QnA)', _learned,
            (1, 16, 7, 9), (2, 64, 37, 51), (2, 64, *_FINE)),
    Pattern('learned_query_attention', 'window 3 stride 2 (QnA)', partial(_learned, stride=2),
            (1, 16, 7, 9), (2, 64, 37, 51), (2, 64, *_FINE)),
    Pattern('grid_convolution', '51 x 51, shared (PeLK)', partial(_grid, rows=sharing_grid(51, 5)),
            (1, 2, 7, 9), (2, 32, 37, 51), (2, 46, *_FINE)),
    Pattern('grid_convolution', '31 x 31 (RepLKNet)', partial(_grid, rows=[1] * 31),
            (1, 2, 7, 9), (2, 32, 37, 51), (2, 128, *_FINE)),
    Pattern('grid_convolution', '51 x 5 (SLaK)', partial(_grid, rows=[1] * 51, columns=[1] * 5),
            (1, 2, 7, 9), (2, 32, 37, 51), (2, 124, *_FINE)),
    Pattern('grid_convolution', '7 x 7 (HorNet)', partial(_grid, rows=[1] * 7),
            (1, 2, 7, 9), (2, 32, 37, 51), (2, 120, *_FINE)),
    Pattern('separable_attention', '4 heads (quadratic attention)', _separable,
            (1, 4, 7, 9), (2, 32, 21, 27), (2, 128, *_COARSE)),
    Pattern('global_filter', 'spectrum (HorNet-GF)', _filter,
            (1, 4, 7, 9), (2, 32, 37, 51), (2, 96, *_COARSE)),
)  # fmt: skip


def first_of_each() -> Iterator[Pattern]:
    """The pattern of every operator that is tried first."""
    seen = set()
    for pattern in PATTERNS:
        if pattern.operator not in seen:
            seen.add(pattern.operator)
            yield pattern
