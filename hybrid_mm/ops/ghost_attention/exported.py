"""ELSA's ghost head in an exported graph, for maps of any size.

Pixels lie in front of channels. The weighted sum is a product with matrices, as in
:mod:`~hybrid_mm.ops.ghost_attention.tiled`: pixels are cut into tiles, and what their windows see
is a rectangle. The weights of a pixel, as if it were the first of its tile, are moved to where its
window is by rows of memory that are shorter than the rectangle by the step of a pixel.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.export import ceil_div, moved_on, numbers, once_per_graph
from hybrid_mm.ops.precision import accurate

_ROWS, _COLUMNS = 4, 8  # pixels of a tile


class _Layout(NamedTuple):
    """Tiles of a map of one size, which layers of a graph share.

    Attributes:
        queries: Pixel of each slot of each tile, (tiles * slots,); columns of a tile come first.
        keys: Pixels of the rectangle of a tile, (tiles, pixels); that after the last is zero.
        place: Slot of each pixel, (H * W,).
    """

    queries: Tensor
    keys: Tensor
    place: Tensor


def attend(
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    mul: Tensor | None,
    add: Tensor | None,
    heads: int,
    kernel_size: int,
    dilation: int,
) -> Tensor:
    """Attention of maps (N, D, H, W) to values (N, C, H, W); see the public function."""
    groups = hidden.shape[1] // weight.shape[1]
    if groups > 1:
        weight = torch.block_diag(*weight.chunk(groups))
    height, width = numbers(v.shape[2:])
    layout = _layout(height, width, kernel_size, dilation, v.device)
    active = F.gelu(hidden).permute(0, 2, 3, 1).flatten(1, 2)
    values = F.pad(v.permute(0, 2, 3, 1).flatten(1, 2), (0, 0, 0, 1))
    active = active.index_select(1, layout.queries)
    # (N, heads, slots, k^2): heads in front of pixels from the start
    matrices = weight.unflatten(0, (heads, -1)).transpose(1, 2)
    logits = active.unsqueeze(1) @ matrices + bias.unflatten(0, (heads, 1, -1))
    weights = accurate(logits).softmax(-1).to(v.dtype)
    if mul is None:
        out = _products(weights, values, layout, kernel_size, dilation)
    else:
        out = _factors(weights, values, mul, layout, kernel_size, dilation)
    out = out.index_select(1, layout.place).unflatten(1, (height, width)).permute(0, 3, 1, 2)
    if add is None:
        return out
    reach = kernel_size // 2 * dilation
    filters = add.unsqueeze(1).to(v.dtype)
    return out + F.conv2d(v, filters, padding=reach, dilation=dilation, groups=v.shape[1])


def _products(
    weights: Tensor, values: Tensor, layout: _Layout, kernel_size: int, dilation: int
) -> Tensor:
    """Sums (N, slots, C) of weights (N, heads, slots, k^2) and values (N, pixels + 1, C)."""
    heads = weights.shape[1]
    rows, columns = _rectangle(kernel_size, dilation)
    taps = weights.unflatten(3, (kernel_size, 1, kernel_size, 1))
    taps = F.pad(taps, (0, dilation - 1, 0, 0, 0, dilation - 1)).flatten(5, 6).flatten(3, 4)
    reach = dilation * (kernel_size - 1) + 1
    taps = taps[..., :reach, :reach]
    # where the window is for the first pixel of a tile, and one row more
    taps = F.pad(taps, (0, columns - reach, 0, rows + 1 - reach)).flatten(3, 4)
    # each pixel lower by its row, as rows of memory get shorter by that; then further right
    number = rows * columns
    taps = moved_on(taps, _ROWS, _ROWS * number + 1)
    taps = moved_on(taps, _COLUMNS, _COLUMNS * _ROWS * number)
    taps = taps.unflatten(3, (_COLUMNS * _ROWS, number))
    values = values.unflatten(2, (heads, -1)).transpose(1, 2)
    values = values.index_select(2, layout.keys.flatten()).unflatten(2, layout.keys.shape)
    return (taps @ values).permute(0, 2, 3, 1, 4).flatten(3, 4).flatten(1, 2)


def _factors(
    weights: Tensor,
    values: Tensor,
    mul: Tensor,
    layout: _Layout,
    kernel_size: int,
    dilation: int,
) -> Tensor:
    """The same with factors (C, k, k), with which every channel has weights of its own."""
    heads = weights.shape[1]
    columns = _rectangle(kernel_size, dilation)[1]
    tap = torch.arange(kernel_size, device=mul.device) * dilation
    slot = torch.arange(_COLUMNS * _ROWS, device=mul.device)
    first = slot % _ROWS * columns + slot // _ROWS
    window = first[:, None] + (tap[:, None] * columns + tap).flatten()
    taps = layout.keys.index_select(1, window.flatten()).unflatten(1, window.shape).flatten(0, 1)
    values = values.index_select(1, taps.flatten()).unflatten(1, taps.shape)
    values = values * mul.flatten(1).t().to(values.dtype)  # (N, slots, k^2, C)
    values = values.unflatten(3, (heads, -1)).transpose(2, 3)
    return (weights.transpose(1, 2).unsqueeze(3) @ values).squeeze(3).flatten(2)


def _rectangle(kernel_size: int, dilation: int) -> tuple[int, int]:
    """Rows and columns that the windows of a tile see."""
    reach = dilation * (kernel_size - 1)
    return _ROWS + reach, _COLUMNS + reach


@once_per_graph
def _layout(
    height: int, width: int, kernel_size: int, dilation: int, device: torch.device
) -> _Layout:
    down, across = ceil_div(height, _ROWS), ceil_div(width, _COLUMNS)
    top = torch.arange(down, device=device)[:, None] * _ROWS
    left = torch.arange(across, device=device)[:, None] * _COLUMNS
    bottom, last = (torch.arange(n, device=device)[-1:] for n in (height, width))
    row = torch.minimum(top + torch.arange(_ROWS, device=device), bottom)
    column = torch.minimum(left + torch.arange(_COLUMNS, device=device), last)
    # (down, across, columns of a tile, rows of a tile)
    queries = row[:, None, None] * width + column[None, :, :, None]
    reach = kernel_size // 2 * dilation
    rows, columns = (
        first - reach + torch.arange(n, device=device)
        for first, n in zip((top, left), _rectangle(kernel_size, dilation), strict=True)
    )
    keys = rows[:, None, :, None] * width + columns[None, :, None]
    inside = ((rows >= 0) & (rows <= bottom))[:, None, :, None]
    inside = inside & ((columns >= 0) & (columns <= last))[None, :, None]
    keys = torch.where(inside, keys, height * width).flatten(2).flatten(0, 1)
    y, x = (torch.arange(n, device=device) for n in (height, width))
    y, x = y[:, None], x[None]
    place = (y // _ROWS * across + x // _COLUMNS) * (_ROWS * _COLUMNS)
    place = place + x % _COLUMNS * _ROWS + y % _ROWS
    return _Layout(queries.flatten(), keys, place.flatten())
