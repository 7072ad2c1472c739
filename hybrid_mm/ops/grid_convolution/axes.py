"""Groups of taps that share a weight, on one axis of a kernel."""

import ctypes
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hybrid_mm.ops.device_tables import on_device
from hybrid_mm.ops.precision import no_autocast


class Block(NamedTuple):
    """The 2^level offsets from ``offset`` on."""

    level: int
    offset: int

    @property
    def size(self) -> int:
        """Number of offsets."""
        return 1 << self.level


class GridAxis(NamedTuple):
    """Groups of offsets of a centred kernel, without offsets that always leave the map.

    Attributes:
        first: Index of the first group that has offsets left; the others follow it.
        groups: Blocks of every group, ascending.
    """

    first: int
    groups: tuple[tuple[Block, ...], ...]

    @property
    def part(self) -> slice:
        """The groups as a slice of all groups of the kernel."""
        return slice(self.first, self.first + len(self.groups))

    @property
    def levels(self) -> int:
        """Number of levels of blocks."""
        return 1 + max(block.level for group in self.groups for block in group)

    @property
    def begin(self) -> int:
        """Smallest offset."""
        return self.groups[0][0].offset

    @property
    def widths(self) -> list[int]:
        """Offsets in every group."""
        return [sum(block.size for block in group) for group in self.groups]

    @property
    def reach(self) -> int:
        """Largest absolute offset."""
        return max(-self.begin, self.begin + sum(self.widths) - 1)


@functools.lru_cache(4096)
def grid_axis(widths: tuple[int, ...], size: int) -> GridAxis:
    """Axis of a kernel with groups of these widths, on a map of a size.

    Offsets that leave the map from every pixel are left out: their weights meet zeros only.
    """
    offset, first = -(sum(widths) // 2), 0
    groups: list[tuple[Block, ...]] = []
    for width in widths:
        begin, end = max(offset, 1 - size), min(offset + width, size)
        offset += width
        if begin >= end:
            first += not groups
            continue
        blocks = []
        while begin < end:
            blocks.append(Block((end - begin).bit_length() - 1, begin))
            begin += blocks[-1].size
        groups.append(tuple(blocks))
    return GridAxis(first, tuple(groups))


def check_widths(widths: Sequence[int], axis: str) -> tuple[int, ...]:
    """Widths of groups as a tuple.

    Raises:
        ValueError: A width below 1, or an even sum of widths.
    """
    widths = tuple(int(width) for width in widths)
    if not widths or min(widths) < 1 or sum(widths) % 2 == 0:
        raise ValueError(
            f'the widths of the groups of {axis} must be at least 1 and add up to an odd kernel '
            f'size, got {list(widths)} (sum {sum(widths)})'
        )
    return widths


def expand(weight: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Weights (C, groups, groups) repeated over their taps, (C, sum(rows), sum(columns))."""
    for dim, widths in ((1, rows), (2, columns)):
        if max(widths) > 1:
            (index,) = on_device(_group_of_tap, tuple(widths), device=weight.device)
            weight = weight.index_select(dim, index)
    return weight


def _group_of_tap(widths: tuple[int, ...]) -> tuple[np.ndarray]:
    return (np.repeat(np.arange(len(widths)), widths),)


def sum_groups(taps: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Adjoint of :func:`expand`: sums of (C, sum(rows), sum(columns)) over groups of taps."""
    if taps.is_cuda:
        return sum_by_products(taps, rows, columns)
    for dim, widths in ((1, rows), (2, columns)):
        if len(widths) < taps.shape[dim]:
            taps = torch.stack([t.sum(dim) for t in taps.split(list(widths), dim)], dim)
    return taps


def sum_by_products(taps: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """:func:`sum_groups` by two products, where starting a sum for every group costs more."""
    with no_autocast(taps):
        if max(rows) > 1:
            (members,) = on_device(_members, tuple(rows), device=taps.device)
            taps = members.to(taps.dtype) @ taps
        if max(columns) > 1:
            (members,) = on_device(_members, tuple(columns), device=taps.device)
            taps = taps @ members.to(taps.dtype).transpose(-1, -2)
    return taps


def _members(widths: tuple[int, ...]) -> tuple[np.ndarray]:
    """Matrix (groups, taps) with ones where a tap belongs to a group."""
    return (np.repeat(np.eye(len(widths), dtype=np.float32), widths, 1),)


class CAxis(ctypes.Structure):
    """``axis`` of ``native/grid_convolution.c``."""

    _fields_ = (
        ('groups', ctypes.c_long),
        ('levels', ctypes.c_long),
        ('first', ctypes.POINTER(ctypes.c_long)),
        ('level', ctypes.POINTER(ctypes.c_long)),
        ('offset', ctypes.POINTER(ctypes.c_long)),
    )


@functools.lru_cache(4096)
def c_axis(axis: GridAxis) -> CAxis:
    """The axis for the compiled kernel."""
    blocks = [block for group in axis.groups for block in group]
    first = [0]
    for group in axis.groups:
        first.append(first[-1] + len(group))
    arrays = (
        (ctypes.c_long * len(numbers))(*numbers)
        for numbers in (first, [b.level for b in blocks], [b.offset for b in blocks])
    )
    return CAxis(len(axis.groups), axis.levels, *arrays)  # which keeps the arrays
