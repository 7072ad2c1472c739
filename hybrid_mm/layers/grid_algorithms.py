"""Exact algorithms for depthwise convolutions whose taps share weights over a grid of boxes.

All compute the same two functions of maps (N, C, H, W) and shared weights (C, groups, groups): the
convolution, and its gradient for the weights. (The gradient for x is the convolution with mirrored
weights.) Groups come as :class:`~hybrid_mm.layers.grid_axes.GridAxis`, which have left out what
never meets the map.
"""

import ctypes
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.layers import native
from hybrid_mm.layers.grid_axes import GridAxis, c_axis, expand, sum_groups

_BUFFER = 2**22  # numbers in the working memory of a chunk of channels


def _chunks(channels: int, numbers: int) -> Iterator[slice]:
    """Slices of the channels, when one channel needs so many numbers of working memory."""
    size = max(1, min(channels, _BUFFER // numbers))
    for first in range(0, channels, size):
        yield slice(first, first + size)


# Box sums by doubling and one batched product -----------------------------------------------------


def _levels(x: Tensor, axis: GridAxis, dim: int) -> list[Tensor]:
    """Sums over 2^j neighbours from every place of x, padded by the reach of the axis."""
    pad = (0, 0) * (-1 - dim) + (axis.reach, axis.reach)
    levels = [F.pad(x, pad)]
    for level in range(1, axis.levels):
        half, last = 1 << (level - 1), levels[-1]
        size = last.shape[dim] - half
        levels.append(last.narrow(dim, 0, size) + last.narrow(dim, half, size))
    return levels


def _column_sums(x: Tensor, axis: GridAxis) -> Tensor:
    """Sums over every group of columns, (C, N, H, W) to (C, groups, N * H * W)."""
    width, levels = x.shape[3], _levels(x, axis, -1)
    out = x.new_empty(x.shape[0], len(axis.groups), *x.shape[1:])
    for g, group in enumerate(axis.groups):
        for i, block in enumerate(group):
            part = levels[block.level].narrow(3, axis.reach + block.offset, width)
            if i:
                out[:, g] += part
            else:
                out[:, g] = part
    return out.flatten(2)


def _row_sums(grad: Tensor, axis: GridAxis) -> Tensor:
    """What the result's gradient gives every row of x by a group, (C, groups, N * H * W)."""
    height, levels = grad.shape[2], _levels(grad, axis, -2)
    out = grad.new_empty(grad.shape[0], len(axis.groups), *grad.shape[1:])
    for g, group in enumerate(axis.groups):
        for i, block in enumerate(group):  # rows y - offset - size + 1 .. y - offset
            begin = axis.reach - block.offset - block.size + 1
            part = levels[block.level].narrow(2, begin, height)
            if i:
                out[:, g] += part
            else:
                out[:, g] = part
    return out.flatten(2)


def _add_rows(products: Tensor, axis: GridAxis) -> Tensor:
    """Sums over the groups of rows, (C, groups, N, H, W) to (C, N, H, W)."""
    channels, _, images, height, width = products.shape
    maps = [
        products.new_zeros(channels, images, height + (1 << level) - 1, width)
        for level in range(axis.levels)
    ]
    for g, group in enumerate(axis.groups):
        for block in group:  # row y of x belongs to the rows y - offset - size + 1 .. y - offset
            to = maps[block.level]
            first, last = max(0, block.offset), min(height, to.shape[2] + block.offset)
            if first < last:
                rows = slice(first - block.offset, last - block.offset)
                to[:, :, rows] += products[:, g, :, first:last]
    for level in range(axis.levels - 1, 0, -1):
        half, above = 1 << (level - 1), maps[level]
        maps[level - 1] += above[:, :, half:]
        maps[level - 1] += above[:, :, :-half]
    return maps[0]


def _bmm_forward(x: Tensor, weight: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    n, channels, height, width = x.shape
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    groups = len(rows.groups) + len(columns.groups)
    for part in _chunks(channels, groups * n * height * width):
        sums = _column_sums(x[:, part].transpose(0, 1), columns)
        products = torch.bmm(weight[part], sums).unflatten(2, (n, height, width))
        out[:, part] = _add_rows(products, rows).transpose(0, 1)
    return out


def _bmm_weight(x: Tensor, grad: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    n, channels, height, width = x.shape
    out = x.new_empty(channels, len(rows.groups), len(columns.groups))
    groups = len(rows.groups) + len(columns.groups)
    for part in _chunks(channels, groups * n * height * width):
        left = _row_sums(grad[:, part].transpose(0, 1), rows)
        right = _column_sums(x[:, part].transpose(0, 1), columns)
        torch.bmm(left, right.transpose(1, 2), out=out[part])
    return out


# Fourier transform of the dense kernel ------------------------------------------------------------


def _smooth(size: int) -> int:
    """Smallest number from ``size`` on with no prime factor above 5."""
    while True:
        left = size
        for prime in (2, 3, 5):
            while left % prime == 0:
                left //= prime
        if left == 1:
            return size
        size += 1


def _size(x: Tensor, rows: GridAxis, columns: GridAxis) -> tuple[int, int]:
    """Size of the transform: what wraps around falls on zeros or on what is cut away."""
    return _smooth(x.shape[2] + rows.reach), _smooth(x.shape[3] + columns.reach)


def _fft_forward(x: Tensor, weight: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    n, channels, height, width = x.shape
    size = _size(x, rows, columns)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    shift = -rows.begin, -columns.begin
    for part in _chunks(channels, 4 * n * size[0] * size[1]):
        dense = expand(weight[part], rows.widths, columns.widths)
        kernel = torch.fft.rfft2(dense, size).conj_physical_()
        maps = torch.fft.irfft2(torch.fft.rfft2(x[:, part], size).mul_(kernel), size)
        out[:, part] = maps.roll(shift, (2, 3))[..., :height, :width]
    return out


def _fft_weight(x: Tensor, grad: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    n, channels = x.shape[:2]
    size = _size(x, rows, columns)
    out = x.new_empty(channels, len(rows.groups), len(columns.groups))
    shift = -rows.begin, -columns.begin
    taps = sum(rows.widths), sum(columns.widths)
    for part in _chunks(channels, 4 * n * size[0] * size[1]):
        other = torch.fft.rfft2(grad[:, part], size).conj_physical_()
        products = torch.fft.rfft2(x[:, part], size).mul_(other).sum(0)
        dense = torch.fft.irfft2(products, size).roll(shift, (1, 2))[:, : taps[0], : taps[1]]
        out[part] = sum_groups(dense, rows.widths, columns.widths)
    return out


# One pass over every map, in C --------------------------------------------------------------------


def has_fused(x: Tensor) -> bool:
    """Whether the compiled kernel can run: a CPU, and a compiler at hand."""
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    return x.device.type == 'cpu' and native.load('grid_convolution', dtype) is not None


def _call(function: str, x: Tensor, other: Tensor, out: Tensor, *axes: GridAxis) -> Tensor:
    library = native.load('grid_convolution', x.dtype)
    if library is None:
        raise RuntimeError(
            "impl='fused' needs a C compiler and float32 or float64 numbers on a CPU, got "
            f"{x.dtype} on {x.device}: use impl='auto', which takes what there is"
        )
    if x.stride(3) != 1:
        x = x.contiguous()
    n, channels, height, width = (ctypes.c_long(size) for size in x.shape)
    done = getattr(library, function)(
        *(ctypes.c_void_p(t.data_ptr()) for t in (x, other, out)),
        n,
        channels,
        height,
        width,
        (ctypes.c_long * 3)(*x.stride()[:3]),
        *(ctypes.byref(c_axis(axis)) for axis in axes),
        torch.get_num_threads(),
    )
    if not done:
        raise MemoryError('grid_convolution: no memory for the working space of a thread')
    return out


def _fused_forward(x: Tensor, weight: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    return _call('forward', x, weight.contiguous(), out, rows, columns)


def _fused_weight(x: Tensor, grad: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    out = x.new_empty(x.shape[1], len(rows.groups), len(columns.groups))
    return _call('weight_gradient', x, grad.contiguous(), out, rows, columns)


Algorithm = Callable[[Tensor, Tensor, GridAxis, GridAxis], Tensor]
FORWARD: dict[str, Algorithm] = {
    'bmm': _bmm_forward,
    'fft': _fft_forward,
    'fused': _fused_forward,
}
WEIGHT_GRADIENT: dict[str, Algorithm] = {
    'bmm': _bmm_weight,
    'fft': _fft_weight,
    'fused': _fused_weight,
}
