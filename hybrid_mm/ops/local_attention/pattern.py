"""What :mod:`hybrid_mm.ops.local_attention` is asked for: a pattern, and tables of positions."""

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from hybrid_mm.ops.local_attention.axes import (
    BORDERS,
    Axis,
    Border,
    block_axis,
    grid_axis,
    partition_axis,
    whole_axis,
    window_axis,
)

_ONE_TILE = 512  # pixels of a window up to which it is one tile
_FEW = 200  # pixels of a whole map up to which it is one tile


class PatternType(enum.IntEnum):
    """How the keys of a query lie on the map."""

    WINDOW = 0  # in a window around the query
    BLOCK = 1  # in the block of the query and a halo around it
    WHOLE = 2  # everywhere
    PARTITION = 3  # in one of the windows that lie side by side
    GRID = 4  # at equal distances, spread over the map


class AxisPattern(NamedTuple):
    """A pattern on the rows, or on the columns. What a type of pattern does not have is left out.

    Attributes:
        size: Taps of a window, pixels of a block, of a window side by side or of a grid.
        stride: Distance of the queries in pixels.
        dilation: Distance of the taps of a window.
        halo: Pixels around a block that it sees.
        shift: By how much a map with windows side by side was rolled.
        border: What windows and blocks see beyond the border.
    """

    size: int = 0
    stride: int = 1
    dilation: int = 1
    halo: int = 0
    shift: int = 0
    border: Border = 'mask'


@dataclass(frozen=True)
class Pattern:
    """Which keys every query sees: the product of a pattern of rows and one of columns."""

    type: PatternType
    rows: AxisPattern
    columns: AxisPattern

    def axes(self, height: int, width: int) -> tuple[Axis, Axis]:
        """Tables of rows and columns for a map of height x width keys."""
        return self._axis(self.rows, height), self._axis(self.columns, width)

    def _axis(self, axis: AxisPattern, length: int) -> Axis:
        if self.type == PatternType.WINDOW:
            return window_axis(length, axis.size, axis.dilation, axis.stride, axis.border)
        if self.type == PatternType.BLOCK:
            return block_axis(length, axis.size, axis.halo, axis.stride, axis.border)
        if self.type == PatternType.PARTITION:
            return partition_axis(length, axis.size, axis.shift)
        if self.type == PatternType.GRID:
            return grid_axis(length, axis.size)
        return whole_axis(length, axis.stride)

    def queries(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of queries for a map of height x width keys."""
        return math.ceil(height / self.rows.stride), math.ceil(width / self.columns.stride)

    def on_map(self, height: int, width: int) -> 'Pattern':
        """The simplest pattern that is the same on a map of height x width keys.

        A window or grid that covers the map is attention to everything, which can be cut into
        smaller tiles; they are faster on maps of more than 512 pixels (measured on CPUs).
        """
        sides = zip((self.rows, self.columns), (height, width), strict=True)
        separate = self.type in (PatternType.PARTITION, PatternType.GRID)
        covers = all(not axis.shift and axis.size >= length for axis, length in sides)
        if separate and covers and height * width > _ONE_TILE:
            return Pattern(PatternType.WHOLE, AxisPattern(), AxisPattern())
        return self

    def shortest_tables(self, height: int, width: int) -> tuple[int, int]:
        """Entries that tables of rows and columns need: one per offset of a key and a query."""
        return self._shortest_table(self.rows, height), self._shortest_table(self.columns, width)

    def _shortest_table(self, axis: AxisPattern, length: int) -> int:
        if self.type == PatternType.WINDOW and axis.border != 'shift':
            return axis.size
        if self.type == PatternType.WHOLE:
            return 2 * length - 1
        return 2 * (axis.size + 2 * axis.halo) - 1

    def tile_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Queries of a tile, by rows and columns, that may be fast; the default first."""
        rows, columns = self.rows, self.columns
        if self.type == PatternType.WHOLE:
            height, width = self.queries(height, width)
            few = [height] if height * width <= _FEW else []  # in one tile
            equal = [_even(height, n // width) for n in (144, 64, 256)]
            sizes = [(n, width) for n in (*few, *equal)]
        elif self.type == PatternType.BLOCK:
            side = columns.size // columns.stride
            sizes = [(max(1, min(side, n // side)), side) for n in (256, 64)]
        elif self.type == PatternType.WINDOW:
            default = _even_tile(rows, height, 4), _even_tile(columns, width, 8)
            sizes = [default, (4, 8), (7, 7), (2, 16), (8, 16)]
        else:
            sizes = [(rows.size, columns.size)]
        return list(dict.fromkeys(sizes))

    def to_ints(self) -> list[int]:
        """The pattern as a flat list, for operators of torch, whose arguments are plain."""
        numbers = [int(self.type)]
        for axis in (self.rows, self.columns):
            *sizes, border = axis
            numbers += [*sizes, BORDERS.index(border)]
        return numbers

    @classmethod
    def from_ints(cls, numbers: Sequence[int]) -> 'Pattern':
        """Inverse of :meth:`to_ints`."""
        number, *axes = numbers
        fields = len(AxisPattern._fields)
        rows, columns = (
            AxisPattern(size, stride, dilation, halo, shift, BORDERS[border])
            for size, stride, dilation, halo, shift, border in (axes[:fields], axes[fields:])
        )
        return cls(PatternType(number), rows, columns)


def _even(length: int, most: int) -> int:
    """The length of equal parts of at most ``most``, or of one if that is below."""
    return -(-length // -(-length // max(1, most)))


def _even_tile(axis: AxisPattern, length: int, side: int) -> int:
    """Queries of a tile on an axis: ``side``, or what cuts a short stretch into even parts.

    Residue classes of dilated windows are short. A tile of side + window / 2 costs less than two
    of which one is nearly empty, whose keys are those of nearly the whole stretch.
    """
    length = -(-length // (axis.dilation * axis.stride))
    if length >= 4 * side:
        return side
    return _even(length, side + axis.size // 2)


def about_middle(table: Tensor, lengths: Sequence[int]) -> Tensor:
    """The entries of a table that maps or windows need; it may be longer.

    Args:
        table: (heads or 1, entries, ...).
        lengths: Pixels on the axes of its entries, the first of which is dimension 1.
    """
    for dim, length in enumerate(lengths, 1):
        entries = 2 * length - 1
        table = table.narrow(dim, (table.shape[dim] - entries) // 2, entries)
    return table


class Tables(NamedTuple):
    """What is added to the logits by offset of a key and a query; None where nothing is.

    Attributes:
        bias: A number per offset, (heads or 1, rows, columns).
        rel_h: A vector per row offset that is multiplied with the query, (heads or 1, rows, d).
        rel_w: A vector per column offset, likewise.
    """

    bias: Tensor | None = None
    rel_h: Tensor | None = None
    rel_w: Tensor | None = None

    def check(self, heads: int, dim: int, shortest: tuple[int, int]) -> None:
        """Check the shapes.

        Args:
            heads: Number of heads.
            dim: Width d of a query.
            shortest: Entries that tables of rows and columns need.

        Raises:
            ValueError: A table of another shape, too short, or without a middle.
        """
        rows, columns = shortest
        wanted = (
            ('bias', (rows, columns), 2),
            ('rel_h', (rows, dim), 1),
            ('rel_w', (columns, dim), 1),
        )
        for (name, shape, lengths), table in zip(wanted, self, strict=True):
            if table is None:
                continue
            entries, rest = table.shape[1 : 1 + lengths], tuple(table.shape[1 + lengths :])
            fits = (
                table.ndim == 3
                and table.shape[0] in (1, heads)
                and all(n >= shape[i] and n % 2 == 1 for i, n in enumerate(entries))
                and rest == shape[lengths:]
            )
            if not fits:
                raise ValueError(
                    f'{name} must be ({heads} or 1, {shape[0]}, {shape[1]}), or longer and odd '
                    f'about its middle, got {tuple(table.shape)}'
                )
