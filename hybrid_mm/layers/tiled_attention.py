"""The tiled algorithm behind :mod:`hybrid_mm.layers.local_attention`.

Queries are cut into tiles; the keys that any query of a tile sees are one rectangle, so that a row
of tiles is one batched matrix product. Scores of a row of tiles live only as long as the row; the
backward pass recomputes them from q, k and v.

Cost of a tile of t x t queries that see h x h keys: t^2 h^2 (d + d_v) multiplications forward and
t^2 h^2 (3 d + 2 d_v) backward; of the h^2 keys k^2 are used. Extra memory: the copy of k and v in
windows, h/t times the map each (backward: their gradients as well), and one row of scores.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hybrid_mm.layers.attention_axes import Axis, block_axis, whole_axis, window_axis

_AXES = (window_axis, block_axis, whole_axis)
# scores of a row of tiles, in elements: what stays in the cache of a core; a GPU wants more at once
_ROW_BUDGET = {'cpu': 2**19}
_GPU_ROW_BUDGET = 2**25
_LOW = -1e30  # logit of a key that is not seen; finite, because 0 * inf is not 0


@dataclass(frozen=True, eq=False)
class Tiles:
    """An :class:`Axis` cut into ``number`` tiles of ``size`` queries that see ``reach`` positions.

    Attributes:
        queries: Query index of each slot, -1 for an empty one, (number * size,).
        start: First laid-out key position of each tile.
        base: Relative index of that position for the first query of the tile.
        step: By how much the relative index falls from a query to the next.
        valid: Which positions of the tile a query sees, (number, size, reach).
        kinds: For each tile, the first tile with the same ``base`` and ``valid``.
        runs: Stretches (first, last + 1, kind) of tiles of one kind.
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
    kinds: tuple[int, ...]
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

    @functools.cached_property
    def plain_queries(self) -> bool:
        """Slots follow the queries in order, empty ones at the end."""
        n = self.axis.queries
        return bool((self.queries[:n] == np.arange(n)).all())


@functools.lru_cache(maxsize=512)
def cut(axis: Axis, size: int) -> Tiles:
    """Cut an axis into tiles of at most ``size`` queries."""
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
        valid[tile, len(group) :] = seen[-1]  # empty slots: any, so that tiles are of one kind
        base.append(first + int(shift[group[0]]))
    first_of: dict = {}
    kinds = [first_of.setdefault((base[i], valid[i].tobytes()), i) for i in range(len(groups))]
    edges = [i for i in range(len(kinds)) if i == 0 or kinds[i] != kinds[i - 1]]
    runs = [(a, b, kinds[a]) for a, b in zip(edges, [*edges[1:], len(kinds)], strict=True)]
    return Tiles(
        axis, len(groups), size, reach, queries.ravel(), tuple(start), tuple(base), step, valid,
        tuple(kinds), tuple(runs),
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def plan(spec: tuple[int, ...], height: int, width: int) -> tuple[Tiles, Tiles]:
    """Tiles of the rows and of the columns; ``spec`` is made by ``local_attention``."""
    kind, tile_h, tile_w, *axes = spec
    half = len(axes) // 2
    make = _AXES[kind]
    return cut(make(height, *axes[:half]), tile_h), cut(make(width, *axes[half:]), tile_w)


def _select(x: Tensor, dim: int, index: np.ndarray) -> Tensor:
    """Entries of ``x`` along ``dim``; zeros where the index is -1."""
    out = x.index_select(dim, torch.from_numpy(np.maximum(index, 0)).to(x.device))
    if (index < 0).any():
        out.index_fill_(dim, torch.from_numpy(np.flatnonzero(index < 0)).to(x.device), 0)
    return out


def _unselect(grad: Tensor, dim: int, index: np.ndarray, length: int) -> Tensor:
    """Transpose of :func:`_select`."""
    kept = np.flatnonzero(index >= 0)
    run = index[kept]
    if len(kept) == length and (run == np.arange(length)).all() and kept[-1] - kept[0] < length:
        return grad.narrow(dim, int(kept[0]), length)
    shape = list(grad.shape)
    shape[dim] = length
    if len(kept) < len(index):
        grad = grad.index_select(dim, torch.from_numpy(kept).to(grad.device))
    out = grad.new_zeros(shape)
    return out.index_add_(dim, torch.from_numpy(run).to(grad.device), grad)


def _lay_out(x: Tensor, rows: Tiles, columns: Tiles) -> Tensor:
    """Keys (N, h, H, W, d) in the layout of both axes."""
    for dim, tiles in ((2, rows), (3, columns)):
        source = tiles.axis.source
        if len(source) != x.shape[dim] or (source != np.arange(len(source))).any():
            x = _select(x, dim, source)
    return x


def _windows(x: Tensor, columns: Tiles) -> Tensor:
    """Laid-out keys as one strip per column of tiles, (columns * N * h, P, reach, d)."""
    n, h, height, _, d = x.shape
    if columns.number == 1 and columns.reach == x.shape[3] and x.is_contiguous():
        return x.view(n * h, height, -1, d)
    out = x.new_empty(columns.number, n, h, height, columns.reach, d)
    for tile, start in zip(out, columns.start, strict=True):
        tile.copy_(x[:, :, :, start : start + columns.reach])
    return out.view(-1, height, columns.reach, d)


def _fold(strips: Tensor, rows: Tiles, columns: Tiles, like: Tensor) -> Tensor:
    """Transpose of :func:`_lay_out` and :func:`_windows`: gradient of the keys."""
    n, h, height, width, d = like.shape
    strips = strips.view(columns.number, n, h, -1, columns.reach, d)
    if columns.number == 1 and columns.reach == len(columns.axis.source):
        laid = strips[0]
    else:
        laid = strips.new_zeros(n, h, strips.shape[3], len(columns.axis.source), d)
        for strip, start in zip(strips, columns.start, strict=True):
            laid[:, :, :, start : start + columns.reach].add_(strip)
    laid = _unselect(laid, 3, columns.axis.source, width)
    return _unselect(laid, 2, rows.axis.source, height)


def _to_tiles(x: Tensor, rows: Tiles, columns: Tiles) -> Tensor:
    """Queries (N, h, H', W', d) as (tile rows, tile columns * N * h, queries of a tile, d)."""
    n, h, _, _, d = x.shape
    for dim, tiles in ((2, rows), (3, columns)):
        slots = tiles.number * tiles.size
        if not tiles.plain_queries:
            x = _select(x, dim, tiles.queries)
        elif slots > x.shape[dim]:
            pad = [0, 0] * (4 - dim) + [0, slots - x.shape[dim]]
            x = torch.nn.functional.pad(x, pad)
    x = x.reshape(n, h, rows.number, rows.size, columns.number, columns.size, d)
    x = x.permute(2, 4, 0, 1, 3, 5, 6)
    return x.reshape(rows.number, columns.number * n * h, rows.size * columns.size, d)


def _from_tiles(tiles: Tensor, rows: Tiles, columns: Tiles, n: int) -> Tensor:
    """Inverse of :func:`_to_tiles`."""
    d = tiles.shape[-1]
    x = tiles.view(rows.number, columns.number, n, -1, rows.size, columns.size, d)
    x = x.permute(2, 3, 0, 4, 1, 5, 6)
    x = x.reshape(n, x.shape[1], rows.number * rows.size, columns.number * columns.size, d)
    for dim, axis_tiles in ((2, rows), (3, columns)):
        if axis_tiles.plain_queries:
            x = x.narrow(dim, 0, axis_tiles.axis.queries)
        else:
            slots = np.flatnonzero(axis_tiles.queries >= 0)
            order = slots[np.argsort(axis_tiles.queries[slots])]
            x = x.index_select(dim, torch.from_numpy(order).to(x.device))
    return x


class _Bias:
    """The additive term of a row of tiles that does not depend on the query: mask and bias."""

    def __init__(self, bias: Tensor | None, rows: Tiles, columns: Tiles, like: Tensor) -> None:
        self.rows, self.columns = rows, columns
        self.needed = bias is not None or not (rows.all_valid and columns.all_valid)
        self.shape = (1, 1) if bias is None else bias.shape[1:]
        self.has_table = bias is not None
        if self.needed:
            table = like.new_zeros(1, 1) if bias is None else bias.flatten(1).to(like.dtype)
            self.table = torch.nn.functional.pad(table, (0, 1), value=_LOW)
        self.device = like.device
        self._cache: dict = {}
        self._sums: dict = {}

    def _index(self, row_kind: int, column_kind: int) -> Tensor:
        rows, columns = self.rows, self.columns
        height, width = self.shape
        valid = rows.valid[row_kind][:, None, :, None] & columns.valid[column_kind][:, None]
        if self.has_table:
            i = np.clip(rows.relative[row_kind] + (height - 1) // 2, 0, height - 1)
            j = np.clip(columns.relative[column_kind] + (width - 1) // 2, 0, width - 1)
            index = i[:, None, :, None] * width + j[:, None]
        else:
            index = 0
        index = np.where(valid, index, height * width)
        index = index.reshape(rows.size * columns.size, rows.reach * columns.reach)
        return torch.from_numpy(index).to(self.device)

    def of(self, row_kind: int, column_kind: int) -> Tensor:
        """Bias of a kind of tile, (heads or 1, queries, keys)."""
        key = (row_kind, column_kind)
        if key not in self._cache:
            index = self._index(*key)
            value = self.table.index_select(1, index.view(-1)).view(-1, *index.shape)
            self._cache[key] = value
        return self._cache[key]

    def write(self, scores: Tensor, row: int, heads: slice) -> None:
        """Set scores (tile columns, N, h, queries, keys) to the bias."""
        for first, last, kind in self.columns.runs:
            value = self.of(self.rows.kinds[row], kind)
            scores[first:last] = value if len(value) == 1 else value[heads]

    def accumulate(self, grad: Tensor, row: int, heads: slice) -> None:
        """Add the gradient of scores to that of the kinds of tiles."""
        for first, last, kind in self.columns.runs:
            key = (self.rows.kinds[row], kind)
            if key not in self._sums:
                self._sums[key] = torch.zeros_like(self.of(*key))
            total, part = self._sums[key], grad[first:last]
            if len(total) == 1:
                total += part.sum((0, 1, 2))
            else:
                total[heads] += part.sum((0, 1))

    def grad(self) -> Tensor:
        """Gradient of the bias table, (heads or 1, rows, columns)."""
        out = torch.zeros_like(self.table)
        for key, total in self._sums.items():
            out.index_add_(1, self._index(*key).view(-1), total.flatten(1))
        return out[:, :-1].unflatten(1, self.shape)


class _Relative:
    """The term q . rel of one axis: a product with the table, read with a stride (the skew)."""

    def __init__(self, table: Tensor, tiles: Tiles, like: Tensor) -> None:
        centre = (table.shape[1] - 1) // 2
        low = min(tiles.base) + centre - tiles.step * (tiles.size - 1)
        high = max(tiles.base) + centre + tiles.reach - 1
        self.left = max(0, -low)
        self.entries = table.shape[1]
        pad = (0, 0, self.left, max(0, high + 1 - self.entries))
        self.table = torch.nn.functional.pad(table.to(like.dtype), pad)
        self.first = [b + centre + self.left for b in tiles.base]
        self.tiles = tiles
        self.grad_table = torch.zeros_like(self.table)

    def part(self, heads: slice) -> Tensor:
        return self.table if len(self.table) == 1 else self.table[heads]

    def product(self, q: Tensor, heads: slice) -> Tensor:
        """Product of q (tile columns * N, h, queries, d) and the table: (..., entries)."""
        return torch.matmul(q, self.part(heads).transpose(1, 2))

    def view(self, product: Tensor, tile: int, along: int, other: int, rows: bool) -> Tensor:
        """The entries of a tile as (batch, rows of queries, columns of queries, reach)."""
        entries = product.shape[-1]
        size = self.tiles.size
        batch = product.numel() // (size * other * entries)
        i = (other if rows else 1) * entries - self.tiles.step
        j = entries if rows else size * entries
        shape = (batch, size, other, self.tiles.reach)
        strides = (size * other * entries, i, j, 1)
        view = product.as_strided(shape, strides, product.storage_offset() + self.first[tile])
        return view if rows else view.transpose(1, 2)


class _Scores:
    """Probabilities of a row of tiles, and the way back from the gradient of its scores."""

    def __init__(
        self,
        rows: Tiles,
        columns: Tiles,
        like: Tensor,
        scale: float,
        bias: Tensor | None,
        rel_h: Tensor | None,
        rel_w: Tensor | None,
    ) -> None:
        self.rows, self.columns, self.scale = rows, columns, scale
        self.dtype = torch.float32 if like.dtype in (torch.half, torch.bfloat16) else like.dtype
        accurate = like.new_empty(0, dtype=self.dtype)
        self.bias = _Bias(bias, rows, columns, accurate)
        self.has_bias = bias is not None
        self.rel_h = None if rel_h is None else _Relative(rel_h, rows, accurate)
        self.rel_w = None if rel_w is None else _Relative(rel_w, columns, accurate)

    def _grid(self, x: Tensor) -> Tensor:
        """(B, queries, keys) as (B, rows, columns of queries, rows, columns of keys)."""
        rows, columns = self.rows, self.columns
        return x.view(-1, rows.size, columns.size, rows.reach, columns.reach)

    def probabilities(self, q: Tensor, k: Tensor, row: int, batch: int, heads: slice) -> Tensor:
        """Softmax of the scores, (tile columns * N * h, queries, keys)."""
        scores = q.new_empty(len(q), q.shape[1], k.shape[1], dtype=self.dtype)
        beta = 0
        if self.bias.needed:
            shape = (self.columns.number, batch, -1, *scores.shape[1:])
            self.bias.write(scores.view(shape), row, heads)
            beta = 1
        if self.rel_h is not None or self.rel_w is not None:
            self._add_relative(scores, q.to(self.dtype), row, heads, replace=not beta)
            beta = 1
        if q.dtype == self.dtype:
            torch.baddbmm(scores, q, k.transpose(1, 2), beta=beta, alpha=self.scale, out=scores)
        elif beta:
            scores.add_(torch.bmm(q, k.transpose(1, 2)), alpha=self.scale)
        else:
            torch.mul(torch.bmm(q, k.transpose(1, 2)), self.scale, out=scores)
        return torch.softmax(scores, -1)

    def _terms(self, q: Tensor, row: int, heads: slice) -> tuple[Tensor | None, Tensor | None]:
        """The relative terms, over rows (B, i, j, reach_h) and over columns (B, i, j, reach_w)."""
        rows, columns = self.rows, self.columns
        h = w = None
        grouped = self._by_head(q, heads)
        if self.rel_h is not None:
            h = self.rel_h.view(self.rel_h.product(grouped, heads), row, 0, columns.size, True)
        if self.rel_w is not None:
            product = self.rel_w.product(grouped, heads).flatten(0, -3)
            parts = [
                self.rel_w.view(part, first, 0, rows.size, False)
                for part, first in self._column_runs(product)
            ]
            w = parts[0] if len(parts) == 1 else torch.cat(parts)
        return h, w

    def _by_head(self, x: Tensor, heads: slice) -> Tensor:
        """Split the heads off the batch where a table has them."""
        tables = [r.part(heads) for r in (self.rel_h, self.rel_w) if r is not None]
        number = max(len(t) for t in tables)
        return x.view(-1, number, *x.shape[1:])

    def _column_runs(self, x: Tensor) -> list[tuple[Tensor, int]]:
        """Parts of (tile columns * ..., ...) that are of one kind, and the kind."""
        each = len(x) // self.columns.number
        return [(x[a * each : b * each], kind) for a, b, kind in self.columns.runs]

    def _add_relative(
        self, scores: Tensor, q: Tensor, row: int, heads: slice, replace: bool
    ) -> None:
        h, w = self._terms(q, row, heads)
        grid = self._grid(scores)
        terms = [t for t in (None if h is None else h[..., None],
                             None if w is None else w[..., None, :]) if t is not None]  # fmt: skip
        if replace and len(terms) == 2:
            torch.add(*terms, out=grid)
        elif replace:
            grid.copy_(terms[0])
        else:
            for term in terms:
                grid.add_(term)

    def backward(
        self, grad: Tensor, q: Tensor, grad_q: Tensor, row: int, batch: int, heads: slice
    ) -> None:
        """Take the gradient of the scores to bias, tables and (for the tables' part) queries."""
        if self.has_bias:
            shape = (self.columns.number, batch, -1, *grad.shape[1:])
            self.bias.accumulate(grad.view(shape), row, heads)
        if self.rel_h is None and self.rel_w is None:
            return
        grid, q = self._grid(grad), q.to(self.dtype)
        grouped = self._by_head(q, heads)
        if self.rel_h is not None:
            entries = self.rel_h.table.shape[1]
            product = q.new_zeros(*grouped.shape[:-1], entries)
            view = self.rel_h.view(product, row, 0, self.columns.size, True)
            view.copy_(grid.sum(-1))
            self._table_grad(self.rel_h, product, grouped, grad_q, heads)
        if self.rel_w is not None:
            entries = self.rel_w.table.shape[1]
            product = q.new_zeros(*grouped.shape[:-1], entries)
            total = grid.sum(-2)
            parts = zip(
                self._column_runs(product.flatten(0, -3)), self._column_runs(total), strict=True
            )
            for (part, kind), (value, _) in parts:
                self.rel_w.view(part, kind, 0, self.rows.size, False).copy_(value)
            self._table_grad(self.rel_w, product, grouped, grad_q, heads)

    @staticmethod
    def _table_grad(
        relative: _Relative, product: Tensor, q: Tensor, grad_q: Tensor, heads: slice
    ) -> None:
        """Gradients of q and of the table from that of their product."""
        grad_q.add_(torch.matmul(product, relative.part(heads)).view_as(grad_q))
        if len(relative.table) == 1:
            relative.grad_table[0] += product.flatten(0, -2).t() @ q.flatten(0, -2)
        else:
            each = product.transpose(0, 1).flatten(1, 2).transpose(1, 2)
            relative.grad_table[heads] += each @ q.transpose(0, 1).flatten(1, 2)


def _chunks(q: Tensor, rows: Tiles, columns: Tiles) -> list[tuple[slice, slice]]:
    """Images and heads that are worked on together."""
    n, h = q.shape[:2]
    one = columns.number * rows.size * columns.size * rows.reach * columns.reach
    room = max(1, _ROW_BUDGET.get(q.device.type, _GPU_ROW_BUDGET) // one)
    heads = max(i for i in range(1, h + 1) if h % i == 0 and i <= room)
    images = max(1, min(n, room // heads)) if heads == h else 1
    return [
        (slice(i, min(i + images, n)), slice(j, j + heads))
        for i in range(0, n, images)
        for j in range(0, h, heads)
    ]


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    scale: float,
    spec: tuple,
) -> Tensor:
    """Output (N, h, H', W', d_v) of the pattern ``spec``."""
    rows, columns = plan(spec, k.shape[2], k.shape[3])
    scores = _Scores(rows, columns, q, scale, bias, rel_h, rel_w)
    out = q.new_empty(*q.shape[:4], v.shape[-1])
    for images, heads in _chunks(q, rows, columns):
        queries = _to_tiles(q[images, heads], rows, columns)
        keys, values = (
            _windows(_lay_out(x[images, heads], rows, columns), columns) for x in (k, v)
        )
        n = images.stop - images.start
        tiles = queries.new_empty(*queries.shape[:3], v.shape[-1])
        for row, first in enumerate(rows.start):
            key, value = (x[:, first : first + rows.reach].flatten(1, 2) for x in (keys, values))
            p = scores.probabilities(queries[row], key, row, n, heads)
            torch.bmm(p.to(q.dtype), value, out=tiles[row])
        out[images, heads] = _from_tiles(tiles, rows, columns, n)
    return out


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    scale: float,
    spec: tuple,
) -> list[Tensor]:
    """Gradients of q, k, v and of those of bias, rel_h and rel_w that are given."""
    rows, columns = plan(spec, k.shape[2], k.shape[3])
    scores = _Scores(rows, columns, q, scale, bias, rel_h, rel_w)
    grads = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)]
    softmax_backward = torch.ops.aten._softmax_backward_data
    for images, heads in _chunks(q, rows, columns):
        n = images.stop - images.start
        queries, grad_out = (_to_tiles(x[images, heads], rows, columns) for x in (q, grad))
        keys, values = (
            _windows(_lay_out(x[images, heads], rows, columns), columns) for x in (k, v)
        )
        grad_queries = torch.empty_like(queries)
        grad_keys, grad_values = torch.zeros_like(keys), torch.zeros_like(values)
        for row, first in enumerate(rows.start):
            part = slice(first, first + rows.reach)
            key, value = keys[:, part].flatten(1, 2), values[:, part].flatten(1, 2)
            p = scores.probabilities(queries[row], key, row, n, heads)
            grad_p = torch.bmm(grad_out[row], value.transpose(1, 2)).to(p.dtype)
            grad_s = softmax_backward(grad_p, p, -1, p.dtype)
            p, low = p.to(q.dtype), grad_s.to(q.dtype)
            grad_values[:, part].flatten(1, 2).baddbmm_(p.transpose(1, 2), grad_out[row])
            grad_keys[:, part].flatten(1, 2).baddbmm_(
                low.transpose(1, 2), queries[row], alpha=scale
            )
            grad_q = grad_queries[row]
            torch.baddbmm(grad_q, low, key, beta=0, alpha=scale, out=grad_q)
            scores.backward(grad_s, queries[row], grad_q, row, n, heads)
        grads[0][images, heads] = _from_tiles(grad_queries, rows, columns, n)
        for target, strips, x in ((grads[1], grad_keys, k), (grads[2], grad_values, v)):
            like = x[images, heads]
            target[images, heads] = _fold(strips, rows, columns, like)
    tables = [scores.bias.grad() if bias is not None else None]
    for relative in (scores.rel_h, scores.rel_w):
        tables.append(
            None
            if relative is None
            else relative.grad_table[:, relative.left : relative.left + relative.entries]
        )
    tables = [
        None if t is None else t.to(like.dtype)
        for t, like in zip(tables, (bias, rel_h, rel_w), strict=True)
    ]
    return [*grads, *(t for t in tables if t is not None)]
