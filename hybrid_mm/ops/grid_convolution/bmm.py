"""Depthwise convolution with shared taps by box sums, doubled, and one batched product."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.grid_convolution.axes import GridAxis


def _levels(x: Tensor, axis: GridAxis, dim: int) -> list[Tensor]:
    """Sums over the 2^j places from each on, j = 0, 1 ..., of x padded by the reach of the axis."""
    pad = (0, 0) * (3 - dim) + (axis.reach, axis.reach)
    levels = [F.pad(x, pad)]
    for level in range(1, axis.levels):
        half, last = 1 << (level - 1), levels[-1]
        size = last.shape[dim] - half
        levels.append(last.narrow(dim, 0, size) + last.narrow(dim, half, size))
    return levels


def _group_sums(x: Tensor, axis: GridAxis, dim: int, begins: list[list[int]]) -> Tensor:
    """Sums over every group around each pixel, (C, N, H, W) to (C, groups, N * H * W).

    Args:
        x: The maps.
        axis: The groups.
        dim: 2 for rows, 3 for columns.
        begins: Where the sums of every block begin in the padded maps, by group.
    """
    levels, size = _levels(x, axis, dim), x.shape[dim]
    out = x.new_empty(x.shape[0], len(axis.groups), *x.shape[1:])
    for g, (group, places) in enumerate(zip(axis.groups, begins, strict=True)):
        first, *others = (
            levels[block.level].narrow(dim, begin, size)
            for block, begin in zip(group, places, strict=True)
        )
        out[:, g] = first
        for part in others:
            out[:, g] += part
    return out.flatten(2)


def _column_sums(x: Tensor, axis: GridAxis) -> Tensor:
    """Sums of x over every group of columns around each pixel."""
    begins = [[axis.reach + block.offset for block in group] for group in axis.groups]
    return _group_sums(x, axis, 3, begins)


def _row_sums(grad: Tensor, axis: GridAxis) -> Tensor:
    """Gradients that reach each pixel through every group of rows.

    A block adds row y of x to the rows y - offset - size + 1 .. y - offset of the result.
    """
    begins = [
        [axis.reach - block.offset - block.size + 1 for block in group] for group in axis.groups
    ]
    return _group_sums(grad, axis, 2, begins)


def _add_rows(products: Tensor, axis: GridAxis) -> Tensor:
    """Sums over the groups of rows, (C, groups, N, H, W) to (C, N, H, W)."""
    channels, _, images, height, width = products.shape
    maps = [
        products.new_zeros(channels, images, height + (1 << level) - 1, width)
        for level in range(axis.levels)
    ]
    for g, group in enumerate(axis.groups):
        for block in group:  # see _row_sums
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


def _channels_at_a_time(x: Tensor, groups: int) -> int:
    """Channels whose sums over all groups exist at a time.

    They count a quarter: batched products of few channels are slow. Measured on a CPU, 51 x 51 taps
    on 56 x 56 pixels take 1.6 times as long with four times fewer channels.
    """
    n, channels, height, width = x.shape
    return budget.fitting(channels, math.ceil(groups * n * height * width / 4), x.device)


def forward(x: Tensor, weight: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    """Convolve maps (N, C, H, W) with weights (C, row groups, column groups)."""
    n, channels, height, width = x.shape
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    groups = len(rows.groups) + len(columns.groups)
    count = _channels_at_a_time(x, groups)
    for part in budget.chunks(channels, count):
        sums = _column_sums(x[:, part].transpose(0, 1), columns)
        products = torch.bmm(weight[part], sums).unflatten(2, (n, height, width))
        out[:, part] = _add_rows(products, rows).transpose(0, 1)
    return out


def weight_gradient(x: Tensor, grad: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    """Gradient (C, row groups, column groups) from maps and the gradient of the result."""
    channels = x.shape[1]
    out = x.new_empty(channels, len(rows.groups), len(columns.groups))
    groups = len(rows.groups) + len(columns.groups)
    count = _channels_at_a_time(x, groups)
    for part in budget.chunks(channels, count):
        left = _row_sums(grad[:, part].transpose(0, 1), rows)
        right = _column_sums(x[:, part].transpose(0, 1), columns)
        torch.bmm(left, right.transpose(1, 2), out=out[part])
    return out
