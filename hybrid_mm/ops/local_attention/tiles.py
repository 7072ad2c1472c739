"""How the tiled algorithm lays out queries, keys and values.

An axis is cut into tiles of queries that see keys side by side (:func:`cut`); the work is cut into
chunks of tile rows (:func:`chunks`), which copy maps to the layout of the tiles and back.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.device_tables import on_device
from hybrid_mm.ops.local_attention.axes import Axis
from hybrid_mm.ops.local_attention.pattern import Pattern


@dataclass(frozen=True, eq=False)
class Tiles:
    """An :class:`Axis` cut into ``number`` tiles of ``size`` queries that see ``reach`` positions.

    Attributes:
        queries: Query index of each slot, -1 for an empty one, (number * size,).
        start: First laid-out key position of each tile.
        base: Relative index of that position for the first query of the tile.
        step: By how much the relative index falls from a query to the next.
        valid: Which positions of the tile a query sees, (number, size, reach).
        types: For each tile its type, the first tile with the same ``base`` and ``valid``.
        runs: Stretches (first, last + 1, type) of tiles of one type.
    """

    axis: Axis
    number: int
    size: int
    reach: int
    queries: np.ndarray
    start: tuple[int, ...]
    base: tuple[int, ...]
    step: int
    valid: np.ndarray
    types: tuple[int, ...]
    runs: tuple[tuple[int, int, int], ...]

    @functools.cached_property
    def relative(self) -> np.ndarray:
        """Relative index of each position for each query of a tile, (number, size, reach)."""
        i, j = np.arange(self.size)[:, None], np.arange(self.reach)
        return np.array(self.base)[:, None, None] + j - self.step * i

    @functools.cached_property
    def all_valid(self) -> bool:
        """Every query sees every position of its tile."""
        return bool(self.valid.all())


@functools.lru_cache(maxsize=512)
def cut(axis: Axis, size: int) -> Tiles:
    """Cut an axis into tiles of at most ``size`` queries that lie evenly spaced."""
    size = min(size, max(len(s) for s in axis.segments))
    groups = [s[i : i + size] for s in axis.segments for i in range(0, len(s), size)]
    shift = axis.offset - axis.start
    steps = {int(s[0] - s[1]) for s in (shift[g] for g in groups) if len(s) > 1}
    step = steps.pop() if steps else 1
    end = axis.start + axis.count
    reach = max(int(end[g].max() - axis.start[g].min()) for g in groups)
    start = [min(int(axis.start[g].min()), len(axis.source) - reach) for g in groups]
    queries = np.full((len(groups), size), -1)
    valid = np.ones((len(groups), size, reach), dtype=bool)
    base = []
    for tile, (group, first) in enumerate(zip(groups, start, strict=True)):
        queries[tile, : len(group)] = group
        position = first + np.arange(reach)
        seen = (position >= axis.start[group, None]) & (position < end[group, None])
        if axis.masked:
            seen &= axis.source[position] >= 0
        valid[tile, : len(group)] = seen
        valid[tile, len(group) :] = seen[-1]  # empty slots: any, so that tiles are of one type
        base.append(first + int(shift[group[0]]))
    first_of: dict[tuple[int, bytes], int] = {}
    types = [first_of.setdefault((base[i], valid[i].tobytes()), i) for i in range(len(groups))]
    edges = [i for i in range(len(types)) if i == 0 or types[i] != types[i - 1]]
    runs = [(a, b, types[a]) for a, b in zip(edges, [*edges[1:], len(types)], strict=True)]
    return Tiles(
        axis=axis,
        number=len(groups),
        size=size,
        reach=reach,
        queries=queries.ravel(),
        start=tuple(start),
        base=tuple(base),
        step=step,
        valid=valid,
        types=tuple(types),
        runs=tuple(runs),
    )


@functools.lru_cache(maxsize=256)
def tiling(pattern: Pattern, tile: tuple[int, int], height: int, width: int) -> tuple[Tiles, Tiles]:
    """Tiles of the rows and of the columns of a map of height x width keys."""
    rows, columns = pattern.axes(height, width)
    return cut(rows, tile[0]), cut(columns, tile[1])


def _run(index: np.ndarray) -> slice | None:
    """An index of consecutive entries as a slice, any other as None."""
    if not len(index):
        return None
    first, last = int(index[0]), int(index[-1])
    if first >= 0 and last - first + 1 == len(index) and (np.diff(index) == 1).all():
        return slice(first, last + 1)
    return None


def _tensor(index: np.ndarray, like: Tensor) -> Tensor:
    return on_device(_index, index.astype(np.int64).tobytes(), device=like.device)[0]


def _index(numbers: bytes) -> tuple[np.ndarray]:
    return (np.frombuffer(numbers, np.int64),)


def _select(x: Tensor, dim: int, index: np.ndarray) -> Tensor:
    """Entries of ``x`` along ``dim``; zeros where the index is -1."""
    kept = np.flatnonzero(index >= 0)
    place, run = _run(kept), _run(index[kept])
    if place is not None and run is not None:  # a stretch of x, perhaps between zeros
        part = x.narrow(dim, run.start, len(kept))
        if len(kept) == len(index):
            return part
        pad = (0, 0) * (x.ndim - 1 - dim) + (place.start, len(index) - place.stop)
        return torch.nn.functional.pad(part, pad)
    out = x.index_select(dim, _tensor(np.maximum(index, 0), x))
    if len(kept) < len(index):
        out.index_fill_(dim, _tensor(np.flatnonzero(index < 0), x), 0)
    return out


def _add_selected(target: Tensor, dim: int, index: np.ndarray, grad: Tensor) -> None:
    """Transpose of :func:`_select`: add ``grad`` to the entries that it took."""
    kept = np.flatnonzero(index >= 0)
    if not len(kept):
        return
    index, grad = index[kept], _select(grad, dim, kept)
    run = _run(index)
    if run is not None:
        target.narrow(dim, run.start, len(kept)).add_(grad)
    else:
        target.index_add_(dim, _tensor(index, grad), grad)


@dataclass(frozen=True)
class TileRow:
    """A row of tiles of a chunk.

    Attributes:
        number: Which of all tile rows of the map.
        place: Which of the tile rows of the chunk.
        keys: Rows of the chunk's column windows that it sees.
        heads: Heads of the chunk.
    """

    number: int
    place: int
    keys: slice
    heads: slice


@dataclass(frozen=True)
class Chunk:
    """Some tile rows of some images and heads: what is worked on at once.

    The batch of its products are tile columns x images x heads.
    """

    rows: Tiles
    columns: Tiles
    images: slice
    heads: slice
    first: int  # tile rows first .. last - 1
    last: int

    def tile_rows(self) -> Iterator[TileRow]:
        """The rows of tiles, from the top."""
        top = self.rows.start[self.first]
        for number in range(self.first, self.last):
            start = self.rows.start[number] - top
            keys = slice(start, start + self.rows.reach)
            yield TileRow(number, number - self.first, keys, self.heads)

    def _key_rows(self) -> np.ndarray:
        """Key index of the laid-out rows that the chunk sees."""
        end = self.rows.start[self.last - 1] + self.rows.reach
        return self.rows.axis.source[self.rows.start[self.first] : end]

    def _query_rows(self) -> np.ndarray:
        return self.rows.queries[self.first * self.rows.size : self.last * self.rows.size]

    def column_windows(self, x: Tensor) -> Tensor:
        """Copy keys (N, h, H, W, d) to windows, one per tile column: (batch, rows, reach, d)."""
        x = _select(x[self.images, self.heads], 2, self._key_rows())
        x = _select(x, 3, self.columns.axis.source)
        n, h, height, width, d = x.shape
        columns = self.columns
        if columns.number == 1 and columns.reach == width and x.is_contiguous():
            return x.view(n * h, height, width, d)
        out = x.new_empty(columns.number, n, h, height, columns.reach, d)
        for window, start in zip(out, columns.start, strict=True):
            window.copy_(x[:, :, :, start : start + columns.reach])
        return out.view(-1, height, columns.reach, d)

    def add_column_windows(self, windows: Tensor, grad: Tensor) -> None:
        """Transpose of :meth:`column_windows`: add to the gradient (N, h, H, W, d) of keys."""
        grad = grad[self.images, self.heads]
        n, h, _, _, d = grad.shape
        columns, key_rows = self.columns, self._key_rows()
        windows = windows.view(columns.number, n, h, -1, columns.reach, d)
        run, source = _run(key_rows), columns.axis.source
        plain = run is not None and _run(source) is not None
        if plain:
            laid_out = grad[:, :, run, source[0] :]
        else:
            laid_out = windows.new_zeros(n, h, len(key_rows), len(source), d)
        for window, start in zip(windows, columns.start, strict=True):
            laid_out[:, :, :, start : start + columns.reach].add_(window)
        if not plain:
            wide = windows.new_zeros(n, h, len(key_rows), grad.shape[3], d)
            _add_selected(wide, 3, source, laid_out)
            _add_selected(grad, 2, key_rows, wide)

    def query_tiles(self, x: Tensor) -> Tensor:
        """Copy queries (N, h, H', W', d) to tiles, (tile rows, batch, queries of a tile, d)."""
        rows, columns = self.rows, self.columns
        x = _select(x[self.images, self.heads], 2, self._query_rows())
        x = _select(x, 3, columns.queries)
        n, h, _, _, d = x.shape
        x = x.reshape(n, h, -1, rows.size, columns.number, columns.size, d)
        x = x.permute(2, 4, 0, 1, 3, 5, 6)
        # a view of NCHW would make every product read with a stride
        x = x.reshape(x.shape[0], columns.number * n * h, rows.size * columns.size, d)
        return x.contiguous()

    def write_query_tiles(self, tiles: Tensor, out: Tensor) -> None:
        """Inverse of :meth:`query_tiles`: write to the rows of ``out`` that are queries."""
        rows, columns = self.rows, self.columns
        out = out[self.images, self.heads]
        n, h, _, _, d = out.shape
        x = tiles.view(-1, columns.number, n, h, rows.size, columns.size, d)
        x = x.permute(2, 3, 0, 4, 1, 5, 6)
        x = x.reshape(n, h, -1, columns.number * columns.size, d)
        slots = np.flatnonzero(columns.queries >= 0)
        x = _select(x, 3, slots[np.argsort(columns.queries[slots])])
        index = self._query_rows()
        kept = np.flatnonzero(index >= 0)
        x, run = _select(x, 2, kept), _run(index[kept])
        if run is not None:
            out[:, :, run] = x
        else:
            out.index_copy_(2, _tensor(index[kept], x), x)


def chunks(q: Tensor, rows: Tiles, columns: Tiles) -> list[Chunk]:
    """Cut the work so that a row of scores and the windows of a chunk stay in the cache.

    The first chunk is the largest.
    """
    n, h, d = q.shape[0], q.shape[1], q.shape[-1]
    limit = budget.elements(q.device) // 2  # scores and their gradient
    one = columns.number * rows.size * columns.size * rows.reach * columns.reach
    room = max(1, limit // one)
    heads = max(i for i in range(1, h + 1) if h % i == 0 and i <= room)
    images = max(1, min(n, room // heads)) if heads == h else 1
    # a chunk reads the keys around it once more than the next one does: keep that below a quarter
    row = columns.number * images * heads * rows.size * columns.reach * d
    height = max(-(-4 * (rows.reach - rows.size) // rows.size), 2 * limit // row, 1)
    return [
        Chunk(
            rows,
            columns,
            slice(i, min(i + images, n)),
            slice(j, j + heads),
            first,
            min(first + height, rows.number),
        )
        for i in range(0, n, images)
        for j in range(0, h, heads)
        for first in range(0, rows.number, height)
    ]
