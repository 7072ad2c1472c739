"""Depthwise convolution on GPUs: how it becomes launches of the kernels of ``triton.py``."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hybrid_mm.ops.device_tables import on_device
from hybrid_mm.ops.grid_convolution import triton

_VECTOR = 8  # numbers at whose multiples rows of x begin
_PATCHES = ((2, 32), (4, 16))  # rows and columns of a patch, 64 pixels
_INPUTS = 32  # columns of x in a step of the product
_SWAPPING = 1.5  # how much more work the other way round must be, as it takes transposed copies
_BUSY = 2048  # programs that keep a GPU busy
_TERMS = 256  # terms of a sum that are worth a program of their own


class Taps(NamedTuple):
    """Taps of a kernel on one axis, without those that always leave the map.

    Attributes:
        widths: Taps in every group of the whole kernel.
        before: Taps before the one in the centre, as many as after it.
    """

    widths: tuple[int, ...]
    before: int

    @property
    def number(self) -> int:
        """Taps that are left."""
        return 2 * self.before + 1

    def groups(self, mirrored: bool, device: torch.device) -> Tensor:
        """Group of every tap, or of the mirrored kernel's."""
        return on_device(_tap_tables, *self, device=device)[1 if mirrored else 0]

    def first(self, device: torch.device) -> Tensor:
        """First tap of every group, and the end."""
        return on_device(_tap_tables, *self, device=device)[2]


def _tap_tables(widths: tuple[int, ...], before: int) -> tuple[np.ndarray, ...]:
    """Group of every tap that is left, the same mirrored, and the first tap of every group."""
    left_out = sum(widths) // 2 - before
    groups = np.repeat(np.arange(len(widths), dtype=np.int32), widths)
    groups = groups[left_out : left_out + 2 * before + 1]
    first = np.searchsorted(groups, np.arange(len(widths) + 1)).astype(np.int32)
    return groups, groups[::-1], first


class Shape(NamedTuple):
    """How a convolution becomes products, rows and columns of everything swapped or not.

    Attributes:
        swapped: Whether maps and weights are transposed.
        rows: Taps on the axis of rows.
        columns: Taps on the axis of columns.
        patch: Rows and columns of a patch.
    """

    swapped: bool
    rows: Taps
    columns: Taps
    patch: tuple[int, int]

    @property
    def steps(self) -> int:
        """Rows of x that a patch needs."""
        return self.patch[0] + self.rows.number - 1

    @property
    def left(self) -> int:
        """Vectors of x before a patch that it needs."""
        return math.ceil(self.columns.before / _VECTOR)

    @property
    def blocks(self) -> int:
        """Blocks of columns of x that a patch needs."""
        return math.ceil((self.patch[1] + self.left * _VECTOR + self.columns.before) / _INPUTS)

    @property
    def skew(self) -> int:
        """Where the first tap is in a row of windows."""
        return self.patch[1] - 1 + self.left * _VECTOR - self.columns.before

    def patches(self, height: int, width: int) -> tuple[int, int]:
        """Patches of a map, down and across."""
        return math.ceil(height / self.patch[0]), math.ceil(width / self.patch[1])


def _shape(rows: Sequence[int], columns: Sequence[int], height: int, width: int) -> Shape:
    """The way that needs the fewest multiplications."""
    first, second = (
        Taps(tuple(widths), min(sum(widths) // 2, size - 1))
        for widths, size in ((rows, height), (columns, width))
    )
    found = [Shape(False, first, second, patch) for patch in _PATCHES]
    found += [Shape(True, second, first, patch) for patch in _PATCHES]

    def work(shape: Shape) -> float:
        down, across = shape.patches(*((width, height) if shape.swapped else (height, width)))
        return down * across * shape.steps * shape.blocks * (_SWAPPING if shape.swapped else 1)

    return min(found, key=work)


def on_tensor_cores(x: Tensor) -> bool:
    """Whether products of the numbers of x may run there."""
    half = x.dtype in (torch.float16, torch.bfloat16)
    return half or (x.dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32)


def _in_vectors(x: Tensor) -> Tensor:
    """Maps whose rows, channels and images begin at vectors, rows padded with zeros."""
    others = (x.storage_offset(), x.shape[3], *x.stride()[:3])
    if x.stride(3) == 1 and not any(number % _VECTOR for number in others):
        return x
    padded = math.ceil(x.shape[3] / _VECTOR) * _VECTOR
    out = x.new_empty(*x.shape[:3], padded)
    # what the columns change place with in a tile: what is next to each other in x
    lines = min(range(3), key=lambda dim: x.stride(dim) if x.shape[dim] > 1 else math.inf)
    outer, inner = (dim for dim in range(3) if dim != lines)
    grid = x.shape[outer] * x.shape[inner], math.ceil(x.shape[lines] / 32), math.ceil(padded / 64)
    triton.copy[grid](
        x, out, x.shape[inner], x.shape[lines], x.shape[3], padded,
        *(x.stride(dim) for dim in (outer, inner, lines, 3)),
        *(out.stride(dim) for dim in (outer, inner, lines)),
        LINES=32, COLUMNS=64, num_warps=4,
    )  # fmt: skip
    return out


def _vector_strides(x: Tensor) -> list[int]:
    return [stride // _VECTOR for stride in x.stride()[:3]]


def _stored(out: Tensor, shape: Shape) -> int:
    """Pixels of a patch that are stored at once: neighbours in memory, at multiples of that."""
    most, unit = (shape.patch[0], 2) if shape.swapped else (_VECTOR, 3)
    if out.stride(unit) != 1:
        return 1
    others = (stride for dim, stride in enumerate(out.stride()) if dim != unit)
    return math.gcd(most, out.storage_offset(), *others)


def _windows(x: Tensor, weight: Tensor, shape: Shape, mirrored: bool) -> Tensor:
    """Copies of the weights between zeros, (C, copies, rows, places)."""
    channels, rows = len(weight), shape.steps + shape.patch[0] - 1
    length = shape.blocks * _INPUTS + shape.patch[1]
    # as many copies as vectors of 16 bytes ask for, unless they outweigh the maps
    copies, pixels = _VECTOR, x.shape[0] * x.shape[2] * x.shape[3]
    while copies > 2 and copies * rows * length > pixels / 2:
        copies //= 2
    windows = x.new_empty(channels, copies, rows, length)
    groups = (taps.groups(mirrored, x.device) for taps in (shape.rows, shape.columns))
    triton.windows[channels, rows, math.ceil(length / 128)](
        weight, windows, *groups,
        shape.rows.number, shape.columns.number, length, shape.patch[0] - 1, shape.skew,
        *weight.stride(), COPIES=copies, BLOCK=128, num_warps=4,
    )  # fmt: skip
    return windows


def _products(maps: Tensor, weight: Tensor, out: Tensor, shape: Shape, mirrored: bool) -> None:
    """Convolve maps that lie in vectors by products of patches and windows of weights."""
    images, channels, height, width = out.shape
    windows = _windows(maps, weight, shape, mirrored)
    down, across = shape.patches(height, width)
    patches = images * down * across
    stored = _stored(out, shape)
    scattered = stored < (shape.patch[0] if shape.swapped else _VECTOR)  # takes many registers
    size = 128 if patches > 64 and not scattered else 64
    tiles = math.ceil(patches / size)
    # neighbours among channels-last results are written at the same time
    last = out.stride(1) == 1
    triton.product[(channels, tiles) if last else (tiles, channels)](
        maps, windows, out, patches, across, down, height, width, maps.shape[3] // _VECTOR,
        windows.shape[2], shape.blocks, shape.rows.before, shape.left, windows.shape[3] // _VECTOR,
        *_vector_strides(maps), *out.stride(),
        ROWS=shape.patch[0], COLUMNS=shape.patch[1], COPIES=windows.shape[1], PATCHES=size,
        INPUTS=_INPUTS, CHANNEL_AXIS=0 if last else 1, SWAPPED=shape.swapped,
        STORED=stored, PRECISION='tf32', num_warps=8, num_stages=_stages(maps),
    )  # fmt: skip


def _direct(x: Tensor, weight: Tensor, out: Tensor, shape: Shape, mirrored: bool) -> None:
    """Convolve tap by tap."""
    images, channels, height, width = x.shape
    rows, columns, together = (1, 32, 32) if x.stride(1) == 1 != x.stride(3) else (16, 64, 1)
    across = math.ceil(width / columns)
    groups = (taps.groups(mirrored, x.device) for taps in (shape.rows, shape.columns))
    triton.direct[math.ceil(height / rows) * across, math.ceil(channels / together), images](
        x, weight, out, *groups, channels, height, width, across,
        shape.rows.number, shape.columns.number, shape.rows.before, shape.columns.before,
        *x.stride(), *out.stride(), *weight.stride(),
        ROWS=rows, COLUMNS=columns, CHANNELS=together, num_warps=4,
    )  # fmt: skip


class _Sums(NamedTuple):
    """Parts of the gradients of taps.

    Attributes:
        parts: (parts, C, lines, blocks, rows, taps), float32; a block has some of the taps.
        inputs: Columns in a block.
        diagonals: Diagonals in a block.
        skew: Diagonal of the first tap in the first block.
    """

    parts: Tensor
    inputs: int
    diagonals: int
    skew: int


def _weight_products(x: Tensor, grad: Tensor, height: int, width: int, shape: Shape) -> _Sums:
    """Gradients of taps by products of maps that lie in vectors."""
    images, channels = x.shape[:2]
    down, across = shape.patches(height, width)
    patches = images * down * across
    inputs = 2 * _INPUTS if shape.blocks % 2 == 0 else _INPUTS
    blocks = shape.blocks * _INPUTS // inputs
    diagonals = 1 << (inputs + shape.patch[1] - 2).bit_length()
    parts, share = _parts(channels * shape.steps * blocks, patches)
    taps = shape.columns.number
    sums = x.new_empty(
        parts, channels, shape.steps, blocks, shape.patch[0], taps, dtype=torch.float32
    )
    triton.weight_product[shape.steps, channels, blocks * parts](
        x, grad, sums, patches, across, down, height, x.shape[3] // _VECTOR, blocks,
        shape.rows.before, shape.left, share, taps, shape.skew,
        *_vector_strides(x), *_vector_strides(grad),
        ROWS=shape.patch[0], COLUMNS=shape.patch[1], PATCHES=64, INPUTS=inputs,
        DIAGONALS=diagonals, PRECISION='tf32', num_warps=8, num_stages=_stages(x),
    )  # fmt: skip
    return _Sums(sums, inputs, diagonals, shape.skew)


def _direct_weight(x: Tensor, grad: Tensor, shape: Shape) -> _Sums:
    """Gradients of taps, one by one."""
    images, channels, height, width = x.shape
    lines, taps, inputs = shape.rows.number, shape.columns.number, 16
    blocks = math.ceil(taps / inputs)
    parts, share = _parts(channels * lines * blocks, images * height)
    sums = x.new_empty(parts, channels, lines, blocks, 1, taps, dtype=torch.float32)
    triton.direct_weight[lines, channels, blocks * parts](
        x, grad, sums, height, width, images * height, share, blocks, taps,
        shape.rows.before, shape.columns.before, *x.stride(), *grad.stride(),
        TAPS=inputs, COLUMNS=64, num_warps=4,
    )  # fmt: skip
    return _Sums(sums, inputs, inputs, 0)


def _add_up(sums: _Sums, out: Tensor, shape: Shape) -> None:
    """Add up parts, and the taps that share a weight."""
    parts, channels, lines, blocks, rows, taps = sums.parts.shape
    row_groups, column_groups = out.shape[1:]
    triton.add_up[channels, row_groups](
        sums.parts, out, shape.rows.first(out.device), shape.columns.first(out.device),
        parts, lines, blocks, column_groups, taps, max(shape.columns.widths), sums.skew,
        *out.stride(), ROWS=rows, INPUTS=sums.inputs, DIAGONALS=sums.diagonals,
        BLOCK=max(16, 1 << (column_groups - 1).bit_length()), num_warps=4,
    )  # fmt: skip


def _parts(programs: int, number: int) -> tuple[int, int]:
    """Into how many parts to divide sums that so many programs add up, and terms in a part."""
    parts = max(1, min(_BUSY // programs, number // _TERMS))
    size = max(1, math.ceil(number / parts))  # of no image there is one part, of zeros
    return max(1, math.ceil(number / size)), size


def _stages(x: Tensor) -> int:
    """How many steps ahead operands are read: what 96 KB hold."""
    return 3 if x.element_size() == 2 else 2


def forward(
    x: Tensor, weight: Tensor, rows: Sequence[int], columns: Sequence[int], out: Tensor
) -> Tensor:
    """Convolve maps (N, C, H, W) with weights (C, row groups, column groups).

    Returns:
        ``out``, of any strides, filled.
    """
    shape = _shape(rows, columns, *x.shape[2:])
    maps, kernel, result = (t.mT if shape.swapped else t for t in (x, weight, out))
    if on_tensor_cores(x):
        _products(_in_vectors(maps), kernel, result, shape, mirrored=False)
    else:
        _direct(maps, kernel, result, shape, mirrored=False)
    return out


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    rows: Sequence[int],
    columns: Sequence[int],
    grad_x: Tensor | None,
    grad_weight: Tensor | None,
) -> None:
    """Fill in the gradients that are wanted, of any strides, from that of the result."""
    shape = _shape(rows, columns, *x.shape[2:])
    if shape.swapped:
        grad, x, weight = grad.mT, x.mT, weight.mT
        grad_x, grad_weight = (t if t is None else t.mT for t in (grad_x, grad_weight))
    height, width = x.shape[2:]
    products = on_tensor_cores(x)
    if products:
        grad = _in_vectors(grad)
    if grad_x is not None:
        (_products if products else _direct)(grad, weight, grad_x, shape, mirrored=True)
    if grad_weight is not None and products:
        _add_up(_weight_products(_in_vectors(x), grad, height, width, shape), grad_weight, shape)
    elif grad_weight is not None:
        _add_up(_direct_weight(x, grad, shape), grad_weight, shape)
