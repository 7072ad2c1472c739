"""Depthwise convolution with shared taps in exported graphs, in what onnxruntime does fast.

onnxruntime has fast kernels for depthwise convolutions, but only of a multiple of 4 channels: with
others, 46 channels with 51 x 51 taps on 128 x 128 pixels take 342 ms in place of 66 (one thread).
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.export import numbers, once_per_graph
from hybrid_mm.ops.grid_convolution import reference
from hybrid_mm.ops.windows import missing

_CHANNELS = 4
_SHARED = 4  # taps per weight from which on products are faster


def convolve(x: Tensor, weight: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Convolve maps (N, C, H, W) with weights (C, row groups, column groups)."""
    if sum(rows) * sum(columns) > _SHARED * len(rows) * len(columns):
        return by_products(x, weight, rows, columns)
    lacking, channels = missing(x.shape[1], _CHANNELS), x.shape[1]
    if torch.jit.is_tracing():  # the older exporter knows no shape of padded weights
        lacking = 0
    if lacking:
        x, weight = (F.pad(y, (0, 0, 0, 0, 0, lacking)) for y in (x, weight))
    y = reference.convolve(x, weight, rows, columns)
    return y[:, :channels] if lacking else y


def by_products(x: Tensor, weight: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Sums over groups of rows, then weights, then sums over groups of columns: three products.

    ``a H + a b + b W`` multiplications per pixel with a and b groups.
    """
    channels, height, width = numbers(x.shape[1:])
    dtype, x = x.dtype, x.to(weight.dtype)
    of_row = _members(tuple(rows), height, x.dtype, x.device).flatten(0, 1)
    of_column = _members(tuple(columns), width, x.dtype, x.device).transpose(1, 2).flatten(0, 1)
    by_row = (of_row @ x).reshape(-1, channels, len(rows), height * width)
    mixed = weight.transpose(1, 2) @ by_row
    mixed = mixed.unflatten(3, (height, width)).transpose(2, 3).flatten(3)  # (N, C, H, b W)
    return (mixed @ of_column).to(dtype)


@once_per_graph
def _members(
    widths: tuple[int, ...], length: int, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Ones where a place belongs to a group around another, (groups, places around, places)."""
    place = torch.arange(length, device=device)
    offset = place - place[:, None]
    ends = torch.tensor([*accumulate(widths)], device=device) - sum(widths) // 2
    begins = ends - torch.tensor(list(widths), device=device)
    inside = (offset >= begins[:, None, None]) & (offset < ends[:, None, None])
    return inside.to(dtype)
