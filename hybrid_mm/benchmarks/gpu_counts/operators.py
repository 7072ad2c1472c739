"""Operators at the shapes of their papers' smallest detection backbones, 2 images of 800 x 1216."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hybrid_mm.ops.decomposed_attention import decomposed_attention
from hybrid_mm.ops.distance_attention import distance_attention
from hybrid_mm.ops.evolving_attention import evolving_attention
from hybrid_mm.ops.ghost_attention import ghost_attention
from hybrid_mm.ops.global_filter import global_filter
from hybrid_mm.ops.grid_convolution import grid_convolution
from hybrid_mm.ops.lambda_attention import lambda_attention
from hybrid_mm.ops.learned_queries import learned_query_attention
from hybrid_mm.ops.local_attention import (
    block_attention,
    global_attention,
    local_attention,
    partition_attention,
)
from hybrid_mm.ops.mirrored_attention import mirrored_attention
from hybrid_mm.ops.mixed_shift import mixed_shift
from hybrid_mm.ops.separable_attention import separable_attention
from hybrid_mm.ops.vector_attention import Window, aggregate, algorithm

Shape = tuple[int, ...]

# row and column groups of PeLK's 51 x 51 kernel
_PELK = [9, 8, 4, 2, 1, 1, 1, 1, 1, 2, 4, 8, 9]


@dataclass(frozen=True)
class Operator:
    """An operator and what it is called with.

    Attributes:
        name: Kind of operator, its paper and the stride of the map.
        call: Function of the maps and the parameters.
        maps: Shapes of inputs of the type that autocast gives them.
        parameters: Shapes of inputs that stay float32.
        flops: FLOPs of the products of the forward pass that nobody can spare.
        gradients: FLOPs of the backward pass as a multiple: 2 for a product, 2.5 for attention,
            which computes the logits again.
        budget: Whether it has to be a few kernels: local attention and large convolutions.
    """

    name: str
    call: Callable[..., Any]
    maps: Sequence[Shape]
    parameters: Sequence[Shape] = ()
    flops: float = 0.0
    gradients: float = 2.5
    budget: bool = True


def _attention(
    name: str,
    call: Callable[..., Tensor],
    queries: Shape,
    keys: int,
    *tables: Shape,
    map_of_keys: tuple[int, int] | None = None,
    values: int | None = None,
    budget: bool = True,
) -> Operator:
    """Attention of queries (N, heads, H, W, d) to so many keys each."""
    *start, height, width, dim = queries
    size = map_of_keys or (height, width)
    values = values or dim
    maps = queries, (*start, *size, dim), (*start, *size, values)
    flops = 2 * math.prod(queries[:-1]) * keys * (dim + values)
    return Operator(name, call, maps, tables, flops, budget=budget)


def _grid(name: str, rows: list[int], columns: list[int], shape: Shape) -> Operator:
    """Depthwise convolution of maps; its products are those of the shared weights."""

    def call(x: Tensor, weight: Tensor) -> Tensor:
        return grid_convolution(x, weight, rows, columns)

    weight = shape[1], len(rows), len(columns)
    flops = 2 * math.prod(shape) * len(rows) * len(columns)
    return Operator(name, call, [shape], [weight], flops, 2)


def _window(**settings: Any) -> Callable[..., Tensor]:
    return lambda q, k, v, bias: local_attention(q, k, v, 7, bias=bias, **settings)


def _sasa(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    return local_attention(q, k, v, 7, border='zero', scale=1.0, rel_h=rel_h, rel_w=rel_w)


def _halo(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    return block_attention(q, k, v, 8, 3, stride=2, rel_h=rel_h, rel_w=rel_w)


def _whole(**settings: Any) -> Callable[..., Tensor]:
    return lambda q, k, v, rel_h, rel_w: global_attention(
        q, k, v, rel_h=rel_h, rel_w=rel_w, **settings
    )


def _biased(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    return global_attention(q, k, v, bias=bias)


def _partition(**settings: Any) -> Callable[..., Tensor]:
    return lambda q, k, v, bias: partition_attention(q, k, v, 7, bias=bias, **settings)


def _ghost(hidden: Tensor, v: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return ghost_attention(hidden, v, weight, bias, heads=3, kernel_size=7)


def _evolving(q: Tensor, k: Tensor, v: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    rel_h, rel_w, weight, bias, previous = others
    return evolving_attention(q, k, v, rel_h, rel_w, previous, weight, bias)


def _aggregate(weights: Tensor, values: Tensor) -> Tensor:
    weights, size = weights.flatten(3), weights.shape[3:]
    return aggregate(Window(7, 1, 1), weights, values, size, algorithm('auto', weights, values))


def _mix(x: Tensor, fc: Tensor, weight: Tensor) -> Tensor:
    return mixed_shift(x, fc.to(x.dtype), None, weight.to(x.dtype))


def _lambda(q: Tensor, k: Tensor, v: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return lambda_attention(q, k, v, weight, bias)


# maps of 2 x 800 x 1216 images at strides 4, 8, 16, 32
_4, _8, _16, _32 = (200, 304), (100, 152), (50, 76), (25, 38)

OPERATORS = (
    _attention('window 7 NAT 1/4', _window(), (2, 2, *_4, 32), 49, (2, 13, 13)),
    _attention('window 7 NAT 1/16', _window(), (2, 8, *_16, 32), 49, (8, 13, 13)),
    _attention(
        'window 7 dilation 16 DiNAT 1/4', _window(dilation=16), (2, 2, *_4, 32), 49, (2, 13, 13)
    ),
    _attention(
        'window 7 dilation 4 DiNAT 1/16', _window(dilation=4), (2, 8, *_16, 32), 49, (8, 13, 13)
    ),
    Operator(
        'window 7 mirrored ACmix 1/4',
        partial(mirrored_attention, window=7),
        [(2, 4, *_4, 16)] * 3 + [(*_4, 16)],
        flops=2 * 2 * 4 * math.prod(_4) * 49 * 32,
    ),
    _attention('window 7 zeros SASA 1/4', _sasa, (2, 8, *_4, 8), 49, (1, 7, 8), (1, 7, 8)),
    _attention(
        'block 4 SASA stem 1/1',
        partial(block_attention, block=4, halo=0, border='mask'),
        (2, 8, 800, 1216, 8),
        16,
    ),
    _attention(
        'block 8 halo 3 HaloNet 1/16',
        _halo,
        (2, 8, *_32, 64),
        196,
        (1, 27, 64),
        (1, 27, 64),
        map_of_keys=_16,
    ),
    _attention('map BoTNet 1/16', _whole(), (2, 4, *_16, 128), 3800, (1, 99, 128), (1, 151, 128)),
    _attention(
        'map AA 1/8',
        _whole(scale=1.0),
        (2, 8, *_8, 20),
        15200,
        (1, 199, 20),
        (1, 303, 20),
        values=3,
    ),
    _attention('map CoAtNet 1/16', _biased, (2, 12, *_16, 32), 3800, (12, 99, 151)),
    _attention('map LeViT 1/16', distance_attention, (2, 4, *_16, 16), 3800, (4, *_16), values=32),
    _attention('partition 7 Swin 1/4', _partition(shift=3), (2, 3, 203, 308, 32), 49, (3, 13, 13)),
    _attention('grid 7 MaxViT 1/4', _partition(grid=True), (2, 2, *_4, 32), 49, (2, 13, 13)),
    _attention(
        'decomposed MViTv2 1/8',
        decomposed_attention,
        (2, 2, *_8, 96),
        950,
        (199, 96),
        (303, 96),
        map_of_keys=_32,
        budget=False,
    ),
    _attention(
        'decomposed MViTv2 window 1/4',
        decomposed_attention,
        (48, 1, 56, 56, 96),
        196,
        (111, 96),
        (111, 96),
        map_of_keys=(14, 14),
        budget=False,
    ),
    _attention(
        'decomposed ViTDet 1/16',
        decomposed_attention,
        (2, 12, *_16, 64),
        3800,
        (99, 64),
        (151, 64),
        budget=False,
    ),
    _attention(
        'evolving EA-AA 1/32',
        _evolving,
        (2, 8, *_32, 16),
        950,
        (49, 16),
        (75, 16),
        (8, 8, 3, 3),
        (8,),
        (2, 8, 950, 950),
        values=8,
        budget=False,
    ),
    Operator(
        'ghost 7 ELSA 1/4',
        _ghost,
        [(2, 64, *_4), (2, 96, *_4)],
        [(147, 64), (147,)],
        2 * 2 * math.prod(_4) * (147 * 64 + 49 * 96),
        budget=False,
    ),
    Operator(
        'taps 7 SAN 1/4',
        _aggregate,
        [(2, 8, 49, *_4), (2, 64, 206, 310)],
        flops=2 * 2 * math.prod(_4) * 49 * 64,
        gradients=2,
        budget=False,
    ),
    Operator(
        'shifts ACmix-R 1/4',
        _mix,
        [(2, 12, 16, *_4)],
        [(9, 12), (64, 9, 3, 3)],
        2 * 2 * math.prod(_4) * 16 * (9 * 12 + 81 * 4),
        2,
        budget=False,
    ),
    Operator(
        'shifts ACmix-Swin 1/4',
        _mix,
        [(2, 9, 32, 203, 308)],
        [(9, 9), (96, 9, 3, 3)],
        2 * 2 * 203 * 308 * 32 * (9 * 9 + 81 * 3),
        2,
        budget=False,
    ),
    Operator(
        'learned queries 3 QnA 1/4',
        learned_query_attention,
        [(2, 2, 8, *_4), (2, 64, *_4)],
        [(2, 8, 3, 3), (2, 8, 3, 3)],
        2 * 2 * math.prod(_4) * 2 * 9 * (64 + 8),
        2,
        budget=False,
    ),
    Operator(
        'separable Quadratic 1/4',
        separable_attention,
        [(2, *_4, 64)],
        [(9, 200, 200), (9, 304, 304), (9, 64, 64)],
        2 * 2 * 9 * math.prod(_4) * 64 * (200 + 304 + 64),
        2,
        budget=False,
    ),
    _grid('depthwise 31 RepLKNet 1/4', [1] * 31, [1] * 31, (2, 128, *_4)),
    _grid('depthwise 51 x 5 SLaK 1/4', [1] * 51, [1] * 5, (2, 124, *_4)),
    _grid('depthwise 51 shared PeLK 1/4', _PELK, _PELK, (2, 46, *_4)),
    _grid('depthwise 7 HorNet 1/4', [1] * 7, [1] * 7, (2, 96, *_4)),
    Operator(
        'global filter HorNet 1/16',
        global_filter,
        [(2, 240, *_16)],
        [(240, 14, 8, 2)],
        gradients=2,
        budget=False,
    ),
    Operator(
        'lambda LambdaNet 1/16',
        _lambda,
        [(2, 64, *_16), (2, 16, *_16), (2, 64, *_16)],
        [(16, 1, 23, 23), (16,)],
        2 * 2 * math.prod(_16) * 16 * 64 * (4 + 23**2 + 1),
        2,
        budget=False,
    ),
)


def inputs_of(operator: Operator, dtype: torch.dtype) -> list[Tensor]:
    """Tensors that need a gradient on the GPU, maps in a type and parameters in float32."""
    maps = [torch.empty(shape, device='cuda', dtype=dtype) for shape in operator.maps]
    parameters = [torch.empty(shape, device='cuda') for shape in operator.parameters]
    return [x.requires_grad_() for x in (*maps, *parameters)]
