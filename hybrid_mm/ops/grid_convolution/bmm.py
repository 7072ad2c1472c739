"""Depthwise convolution with shared taps by box sums, doubled, and one batched product."""

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.grid_convolution.axes import GridAxis

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
    count = budget.fitting(channels, groups * n * height * width, x.device)
    for part in budget.chunks(channels, count):
        sums = _column_sums(x[:, part].transpose(0, 1), columns)
        products = torch.bmm(weight[part], sums).unflatten(2, (n, height, width))
        out[:, part] = _add_rows(products, rows).transpose(0, 1)
    return out


def _bmm_weight(x: Tensor, grad: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    n, channels, height, width = x.shape
    out = x.new_empty(channels, len(rows.groups), len(columns.groups))
    groups = len(rows.groups) + len(columns.groups)
    count = budget.fitting(channels, groups * n * height * width, x.device)
    for part in budget.chunks(channels, count):
        left = _row_sums(grad[:, part].transpose(0, 1), rows)
        right = _column_sums(x[:, part].transpose(0, 1), columns)
        torch.bmm(left, right.transpose(1, 2), out=out[part])
    return out
