"""Which keys every query of one axis sees: windows with their borders, blocks, everything.

A pattern of attention over a map is the product of two of these, one for the rows and one for the
columns. All of them are small integer tables, cached by their arguments.
"""

import functools
import math
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

Border = Literal['shift', 'zero', 'mask', 'reflect']
BORDERS: tuple[Border, ...] = get_args(Border)


@dataclass(frozen=True, eq=False)
class Axis:
    """Pattern of one axis: each query sees ``count`` consecutive positions of a laid-out key axis.

    The layout puts what belongs together side by side: border positions around the map, and, with
    dilation, the positions of one residue class next to each other.

    Attributes:
        source: Key index of each laid-out position, -1 where the key is a zero vector, (P,).
        masked: Positions with source -1 take no part in the softmax.
        segments: Query indices that lie evenly spaced on one stretch of the layout.
        start: First laid-out position that a query sees, (Lq,).
        count: Number of positions that it sees, (Lq,).
        offset: Relative index of the first of them; the next ones follow by 1, (Lq,).
    """

    source: np.ndarray
    masked: bool
    segments: tuple[np.ndarray, ...]
    start: np.ndarray
    count: np.ndarray
    offset: np.ndarray

    @property
    def queries(self) -> int:
        """Number of queries."""
        return len(self.start)

    def taps(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Key index (-1: zero), validity and relative index of each tap, all (Lq, taps)."""
        tap = np.arange(self.count.max())
        position = np.minimum(self.start[:, None] + tap, len(self.source) - 1)
        index = self.source[position]
        valid = tap < self.count[:, None]
        if self.masked:
            valid = valid & (index >= 0)
        return index, valid, self.offset[:, None] + tap


Positions = TypeVar('Positions', np.ndarray, Tensor)


def reflected(position: Positions, length: int) -> Positions:
    """Positions mirrored into 0..length-1 without repeating the edge, however far outside."""
    if length == 1:
        return position * 0
    last = length - 1
    return last - abs(abs(position) % (2 * last) - last)


def reflected_index(position: Tensor, last: Tensor) -> Tensor:
    """:func:`reflected` in operators of a graph, for axes of any length.

    Args:
        position: Positions.
        last: The last position on the axis.
    """
    period = last.clamp(min=1)
    return torch.minimum(period - (position.abs() % (2 * period) - period).abs(), last)


def mirrored(x: Tensor, reach: int) -> Tensor:
    """Mirror (N, C, H, W, ...) by ``reach`` at the border of its rows and columns, of any size."""
    for dim in (2, 3):
        # computed where it is needed: a table would be copied at every call of a compiled graph
        position = torch.arange(-reach, x.shape[dim] + reach, device=x.device)
        x = x.index_select(dim, reflected(position, x.shape[dim]))
    return x


@functools.lru_cache(maxsize=512)
def window_axis(length: int, window: int, dilation: int, stride: int, border: Border) -> Axis:
    """Windows of ``window`` taps around every ``stride``-th position.

    Args:
        length: Number of keys L; there are ceil(L / stride) queries.
        window: Taps, odd.
        dilation: Distance of the taps.
        stride: Distance of the queries.
        border: 'shift' moves the window inwards (a stretch that is shorter than the window is seen
            whole), 'zero' and 'mask' surround the map by zero keys that do or do not take part,
            'reflect' mirrors it.
    """
    radius = window // 2
    queries = np.arange(math.ceil(length / stride))
    centre = queries * stride
    source, segments = [], []
    start, count, offset = (np.zeros_like(queries) for _ in range(3))
    base = 0
    for residue in range(min(dilation, length)):
        mine = queries[centre % dilation == residue]
        if not len(mine):
            continue
        place = centre[mine] // dilation
        if border == 'shift':
            keys: np.ndarray = np.arange(residue, length, dilation)
            first = np.clip(place - radius, 0, max(0, len(keys) - window))
            count[mine] = min(window, len(keys))
        else:
            keys = residue + dilation * np.arange(-radius, place[-1] + radius + 1)
            if border == 'reflect':
                keys = reflected(keys, length)
            else:
                keys = np.where((keys >= 0) & (keys < length), keys, -1)
            place = place + radius
            first = place - radius
            count[mine] = window
        start[mine] = base + first
        offset[mine] = first - place
        segments.append(mine)
        source.append(keys)
        base += len(keys)
    keys = np.concatenate(source)
    return Axis(keys, border == 'mask', tuple(segments), start, count, offset)


@functools.lru_cache(maxsize=512)
def block_axis(length: int, block: int, halo: int, stride: int, border: Border) -> Axis:
    """Blocks of ``block`` positions that see themselves and ``halo`` positions on either side.

    The relative index counts from the first key of the window and the first query of the block,
    queries by 1 whatever the stride is (HaloNet).
    """
    blocks = math.ceil(length / block)
    side = block // stride
    queries = np.arange(math.ceil(length / stride))
    number, row = queries // side, queries % side
    keys: np.ndarray = np.arange(-halo, blocks * block + halo)
    keys = np.where((keys >= 0) & (keys < length), keys, -1)
    segments = tuple(queries[number == i] for i in range(blocks))
    count = np.full_like(queries, block + 2 * halo)
    return Axis(keys, border == 'mask', segments, number * block, count, -row)


@functools.lru_cache(maxsize=512)
def partition_axis(length: int, window: int, shift: int) -> Axis:
    """Windows side by side that see themselves, the last one in two parts where a map is rolled.

    The relative index is key minus query.

    Args:
        length: Positions L.
        window: Positions of a window; the last one may be shorter.
        shift: By how much the map was rolled towards its start: the last ``shift`` positions come
            from the other end and do not see those before them.
    """
    positions = np.arange(length)
    part = positions // window
    part[max(0, length - shift) :] += part[-1] + 1
    segments = tuple(positions[part == i] for i in np.unique(part))
    start, count = (np.zeros_like(positions) for _ in range(2))
    for segment in segments:
        start[segment], count[segment] = segment[0], len(segment)
    return Axis(positions, False, segments, start, count, start - positions)


@functools.lru_cache(maxsize=512)
def grid_axis(length: int, grid: int) -> Axis:
    """Groups of ``grid`` positions at equal distances that see themselves (MaxViT).

    The distance is ceil(L / grid); groups that would reach over the end are shorter by one or more.
    The relative index is key minus query in steps of that distance.

    Args:
        length: Positions L.
        grid: Positions of a group.
    """
    step = math.ceil(length / grid)
    place, count = np.arange(length) // step, np.zeros(length, dtype=int)
    start, source, segments, base = np.zeros(length, dtype=int), [], [], 0
    for first in range(step):
        group = np.arange(first, length, step)
        start[group], count[group] = base, len(group)
        base += len(group)
        source.append(group)
        segments.append(group)
    return Axis(np.concatenate(source), False, tuple(segments), start, count, -place)


@functools.lru_cache(maxsize=512)
def whole_axis(length: int, stride: int = 1) -> Axis:
    """Every ``stride``-th position sees every key; the relative index is key minus query."""
    keys, queries = np.arange(length), np.arange(math.ceil(length / stride))
    start, count = np.zeros_like(queries), np.full_like(queries, length)
    return Axis(keys, False, (queries,), start, count, -stride * queries)
