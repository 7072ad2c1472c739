"""Vector attention in an exported graph, for maps of any size.

Pixels lie in front of channels: taps are gathered as whole vectors, and the layers of gamma are
products with matrices. The weighted sum is one, too: pixels of a row are cut into tiles whose
windows lie within ``columns`` of keys, and the weights of each are moved to where its window is.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_mm.ops.export import ceil_div, moved_on, numbers, once_per_graph
from hybrid_mm.ops.local_attention.axes import reflected_index
from hybrid_mm.ops.vector_attention.window import Window

_SIDE = 8  # pixels of a tile


class Tiles(NamedTuple):
    """Windows of all pixels of a map, by tiles; a row may be filled up with copies of its last.

    Attributes:
        query: Pixel of the map of each query, (queries,).
        taps: Pixels of its window, (queries, k^2).
        keys: Pixels that a tile sees, (tiles, k * columns).
        columns: How many of them are side by side.
    """

    query: Tensor
    taps: Tensor
    keys: Tensor
    columns: int


def tiles_of(window: Window, x: Tensor) -> Tiles:
    """Tiles of a map (N, C, H, W).

    Args:
        window: The windows.
        x: Map of any channels.
    """
    height, width = numbers(x.shape[2:])
    return _tiles(window, height, width, x.device)


@once_per_graph
def _tiles(window: Window, height: int, width: int, device: torch.device) -> Tiles:
    size, stride, dilation = window
    reach = dilation * (size // 2)
    rows, across = ceil_div(height, stride), ceil_div(ceil_div(width, stride), _SIDE)
    columns = stride * (_SIDE - 1) + dilation * (size - 1) + 1
    tap = torch.arange(size, device=device) * dilation - reach
    row = torch.arange(rows, device=device) * stride
    tile = torch.arange(across, device=device)[:, None] * (_SIDE * stride)
    bottom, last = (torch.arange(side, device=device)[-1:] for side in (height, width))
    column = tile + torch.arange(_SIDE, device=device) * stride
    column = torch.minimum(column, last // stride * stride).flatten()
    key_row = reflected_index(row[:, None] + tap, bottom)
    of_tap = reflected_index(column[:, None] + tap, last)
    of_key = reflected_index(tile - reach + torch.arange(columns, device=device), last)
    query = (row[:, None] * width + column).flatten()
    # (rows, columns, taps of rows, taps of columns)
    taps = key_row[:, None, :, None] * width + of_tap[None, :, None]
    keys = key_row[:, None, :, None] * width + of_key[None, :, None]
    return Tiles(query, taps.flatten(0, 1).flatten(1), keys.flatten(0, 1).flatten(1), columns)


def vectors(x: Tensor, index: Tensor) -> Tensor:
    """Vectors of pixels of a map (N, C, H, W), (N, *index, C).

    Args:
        x: The map.
        index: Pixels, of any shape.
    """
    found = x.flatten(2).transpose(1, 2).index_select(1, index.flatten())
    return found.unflatten(1, index.shape)


def aggregate(window: Window, tiles: Tiles, weights: Tensor, values: Tensor) -> Tensor:
    """Weighted sum of taps.

    Args:
        window: The windows.
        tiles: Their tiles.
        weights: (N, G, queries, k^2).
        values: Map (N, C, H, W).

    Returns:
        (N, C, H', W').
    """
    size, stride, dilation = window
    height, width = numbers(values.shape[2:])
    rows, length = ceil_div(height, stride), ceil_div(width, stride)
    groups = weights.shape[1]
    # the taps of a row of the window where they are for the first pixel of a tile
    weights = weights.unflatten(3, (size, size))
    if dilation > 1:
        weights = F.pad(weights.unsqueeze(5), (0, dilation - 1)).flatten(4, 5)
        weights = weights[..., : tiles.columns]
    weights = F.pad(weights, (0, tiles.columns - weights.shape[4])).flatten(3, 4)
    # in memory with rows that are longer by the stride, each pixel is moved on by it
    across = weights.shape[3]
    weights = moved_on(F.pad(weights, (0, stride)), _SIDE, _SIDE * across)
    weights = weights.unflatten(3, (_SIDE, across))
    maps = values.unflatten(1, (-1, groups)).transpose(1, 2)  # (N, G, C / G, H, W)
    maps = maps.flatten(3, 4).transpose(2, 3).index_select(2, tiles.keys.flatten())
    out = weights.to(maps.dtype) @ maps.unflatten(2, tiles.keys.shape)
    # (N, G, tiles, pixels of a tile, C / G)
    out = out.flatten(2, 3).unflatten(2, (rows, -1))[:, :, :, :length]
    return out.permute(0, 4, 1, 2, 3).flatten(1, 2)
