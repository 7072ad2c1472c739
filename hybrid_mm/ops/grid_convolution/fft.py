"""Depthwise convolution with shared taps by the Fourier transform of the dense kernel."""

import torch
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.grid_convolution.axes import GridAxis, expand, sum_groups


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
    """Size of the transform: what wraps around meets zeros, or falls on what is cut away."""
    return _smooth(x.shape[2] + rows.reach), _smooth(x.shape[3] + columns.reach)


def forward(x: Tensor, weight: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    """Convolve maps (N, C, H, W) with weights (C, row groups, column groups)."""
    n, channels, height, width = x.shape
    size = _size(x, rows, columns)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    shift = -rows.begin, -columns.begin
    count = budget.fitting(channels, 4 * n * size[0] * size[1], x.device)
    for part in budget.chunks(channels, count):
        dense = expand(weight[part], rows.widths, columns.widths)
        kernel = torch.fft.rfft2(dense, size).conj_physical_()
        maps = torch.fft.irfft2(torch.fft.rfft2(x[:, part], size).mul_(kernel), size)
        out[:, part] = maps.roll(shift, (2, 3))[..., :height, :width]
    return out


def weight_gradient(x: Tensor, grad: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    """Gradient (C, row groups, column groups) from maps and the gradient of the result."""
    n, channels = x.shape[:2]
    size = _size(x, rows, columns)
    out = x.new_empty(channels, len(rows.groups), len(columns.groups))
    shift = -rows.begin, -columns.begin
    taps = sum(rows.widths), sum(columns.widths)
    count = budget.fitting(channels, 4 * n * size[0] * size[1], x.device)
    for part in budget.chunks(channels, count):
        other = torch.fft.rfft2(grad[:, part], size).conj_physical_()
        products = torch.fft.rfft2(x[:, part], size).mul_(other).sum(0)
        dense = torch.fft.irfft2(products, size).roll(shift, (1, 2))[:, : taps[0], : taps[1]]
        out[part] = sum_groups(dense, rows.widths, columns.widths)
    return out
