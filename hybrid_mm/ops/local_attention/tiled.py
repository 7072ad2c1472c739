"""The tiled algorithm behind :mod:`hybrid_mm.ops.local_attention`.

Queries are cut into tiles; the keys that any query of a tile sees are one rectangle, so that a row
of tiles is one batched matrix product. Scores of a row of tiles live only as long as the row; the
backward pass recomputes them from q, k and v.

Cost of a tile of t x t queries that see h x h keys: t^2 h^2 (d + d_v) multiplications forward and
t^2 h^2 (3 d + 2 d_v) backward; of the h^2 keys k^2 are used. Extra memory: the copy of k and v in
windows, h/t times the map each (backward: their gradients as well), and one row of scores.
"""

import numpy as np
import torch
from torch import Tensor

from hybrid_mm.ops.local_attention.tiles import Band, Tiles, bands, plan

_LOW = -1e30  # logit of a key that is not seen; finite, because 0 * inf is not 0


class _Bias:
    """The additive term of a row of tiles that does not depend on the query: mask and bias.

    The table is laid out for the columns of a tile first, then for its rows: what is copied then
    are whole rows of keys. Tiles of one kind share their term; where every row of tiles is of a
    kind of its own (attention to all pixels), it lives as long as the row.
    """

    def __init__(self, bias: Tensor | None, rows: Tiles, columns: Tiles, like: Tensor) -> None:
        self.rows, self.columns = rows, columns
        self.needed = bias is not None or not (rows.all_valid and columns.all_valid)
        self.shape = (1, 1) if bias is None else bias.shape[1:]
        if self.needed:
            table = like.new_zeros(1, 1, 1) if bias is None else bias.to(like.dtype)
            # the entry behind the last one is for keys that are not seen
            self.table = torch.nn.functional.pad(table, (0, 1, 0, 1), value=_LOW)
        self.device = like.device
        self.shared = len(set(rows.kinds)) < rows.number
        self._columns: dict = {}
        self._columns_grad: dict = {}
        self._cache: dict = {}
        self._sums: dict = {}

    def _index(self, tiles: Tiles, kind: int, axis: int) -> Tensor:
        """Entry of the table for each position of each query of a kind of tile, on one axis."""
        length = self.shape[axis]
        index = np.clip(tiles.relative[kind] + (length - 1) // 2, 0, length - 1)
        index = np.where(tiles.valid[kind], index, length)
        return torch.from_numpy(index.ravel()).to(self.device)

    def of(self, row_kind: int, column_kind: int, heads: slice) -> Tensor:
        """Bias of a kind of tile, (heads or 1, queries, keys)."""
        key = (row_kind, column_kind)
        heads = heads if len(self.table) > 1 else slice(0, 1)
        if key in self._cache:
            return self._cache[key][heads]
        if column_kind not in self._columns:
            index = self._index(self.columns, column_kind, 1)
            self._columns[column_kind] = self.table.index_select(2, index)
        table = self._columns[column_kind]
        value = self._lay_out(table if self.shared else table[heads], row_kind)
        if self.shared:
            self._cache[key] = value
            return value[heads]
        return value

    def _lay_out(self, table: Tensor, row_kind: int) -> Tensor:
        rows, columns = self.rows, self.columns
        value = table.index_select(1, self._index(rows, row_kind, 0))
        value = value.view(-1, rows.size, rows.reach, columns.size, columns.reach)
        value = value.transpose(2, 3)
        return value.reshape(-1, rows.size * columns.size, rows.reach * columns.reach)

    def write(self, scores: Tensor, row: int, heads: slice) -> None:
        """Set scores (tile columns, N, h, queries, keys) to the bias."""
        for first, last, kind in self.columns.runs:
            scores[first:last] = self.of(self.rows.kinds[row], kind, heads)

    def accumulate(self, grad: Tensor, row: int, heads: slice) -> None:
        """Add the gradient of scores to that of the kinds of tiles."""
        if len(self.table) == 1:
            grad, heads = grad.sum(2, keepdim=True), slice(0, 1)
        for first, last, kind in self.columns.runs:
            part = grad[first:last]
            part = part[0, 0] if part.shape[:2] == (1, 1) else part.sum((0, 1))
            key = (self.rows.kinds[row], kind)
            if not self.shared:
                self._add_rows(part, *key, heads)
                continue
            if key not in self._sums:
                self._sums[key] = part.new_zeros(len(self.table), *part.shape[1:])
            self._sums[key][heads] += part

    def _add_rows(self, grad: Tensor, row_kind: int, column_kind: int, heads: slice) -> None:
        """Transpose of :meth:`_lay_out`: add to the gradient of the table laid out by columns."""
        rows, columns = self.rows, self.columns
        shape = len(self.table), self.table.shape[1], columns.size * columns.reach
        if column_kind not in self._columns_grad:
            self._columns_grad[column_kind] = grad.new_zeros(shape)
        grad = grad.view(-1, rows.size, columns.size, rows.reach, columns.reach).transpose(2, 3)
        grad = grad.reshape(len(grad), -1, shape[2])
        target = self._columns_grad[column_kind][heads]
        target.index_add_(1, self._index(rows, row_kind, 0), grad)

    def grad(self) -> Tensor:
        """Gradient of the bias table, (heads or 1, rows, columns)."""
        for key, total in self._sums.items():
            self._add_rows(total, *key, slice(0, len(total)))
        out = torch.zeros_like(self.table)
        for kind, total in self._columns_grad.items():
            out.index_add_(2, self._index(self.columns, kind, 1), total)
        return out[:, :-1, :-1]


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

    def grad(self) -> Tensor:
        """Gradient of the table as it was given."""
        return self.grad_table[:, self.left : self.left + self.entries]

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
        self._buffers: list[Tensor | None] = [None, None]
        self.rel_h = None if rel_h is None else _Relative(rel_h, rows, accurate)
        self.rel_w = None if rel_w is None else _Relative(rel_w, columns, accurate)

    def buffer(self, which: int, q: Tensor, k: Tensor) -> Tensor:
        """Memory for scores of q and k, the same for every row of tiles: new pages cost much."""
        shape = (len(q), q.shape[1], k.shape[1])
        if self._buffers[which] is None or self._buffers[which].shape != shape:
            self._buffers[which] = q.new_empty(shape, dtype=self.dtype)
        return self._buffers[which]

    def _by_image(self, x: Tensor, heads: slice) -> Tensor:
        """(B, queries, keys) as (tile columns, images, heads, queries, keys)."""
        return x.view(self.columns.number, -1, heads.stop - heads.start, *x.shape[1:])

    def _grid(self, x: Tensor) -> Tensor:
        """(B, queries, keys) as (B, rows, columns of queries, rows, columns of keys)."""
        rows, columns = self.rows, self.columns
        return x.view(-1, rows.size, columns.size, rows.reach, columns.reach)

    def probabilities(self, q: Tensor, k: Tensor, row: int, band: Band) -> Tensor:
        """Softmax of the scores, (tile columns * N * h, queries, keys)."""
        scores = self.buffer(0, q, k)
        heads, beta = band.heads, 0
        if self.bias.needed:
            self.bias.write(self._by_image(scores, heads), row, heads)
            beta = 1
        if self.rel_h is not None or self.rel_w is not None:
            self._add_relative(scores, q.to(self.dtype), row, heads, replace=not beta)
            beta = 1
        q, k = q.to(self.dtype), k.to(self.dtype)  # float16 would overflow above 65504
        torch.baddbmm(scores, q, k.transpose(1, 2), beta=beta, alpha=self.scale, out=scores)
        return torch.softmax(scores, -1, out=scores)

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
        terms = [
            t
            for t in (None if h is None else h[..., None], None if w is None else w[..., None, :])
            if t is not None
        ]
        if replace and len(terms) == 2:
            torch.add(*terms, out=grid)
        elif replace:
            grid.copy_(terms[0])
        else:
            for term in terms:
                grid.add_(term)

    def backward(self, grad: Tensor, q: Tensor, grad_q: Tensor, row: int, band: Band) -> None:
        """Take the gradient of the scores to bias, tables and (for the tables' part) queries."""
        heads = band.heads
        if self.has_bias:
            self.bias.accumulate(self._by_image(grad, heads), row, heads)
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


def _add_product(target: Tensor, a: Tensor, b: Tensor, factor: float) -> None:
    """Add factor * a^T b to the target, for every member of the batch."""
    if target.is_contiguous():
        target.baddbmm_(a.transpose(1, 2), b, alpha=factor)
    else:  # baddbmm_ would do one product of the batch after the other
        target.add_(torch.bmm(a.transpose(1, 2), b), alpha=factor)


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
    for band in bands(q, rows, columns):
        queries, keys, values = band.tiles(q), band.strips(k), band.strips(v)
        tiles = queries.new_empty(*queries.shape[:3], v.shape[-1])
        for row in range(band.first, band.last):
            part = slice(rows.start[row] - band.top, rows.start[row] - band.top + rows.reach)
            query = queries[row - band.first]
            p = scores.probabilities(query, keys[:, part].flatten(1, 2), row, band)
            value = values[:, part].flatten(1, 2)
            torch.bmm(p.to(q.dtype), value, out=tiles[row - band.first])
        band.set_tiles(tiles, out)
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
    grad_q, grad_k, grad_v = (
        torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)
    )
    softmax_backward = torch.ops.aten._softmax_backward_data.out
    for band in bands(q, rows, columns):
        queries, grad_out = band.tiles(q), band.tiles(grad)
        keys, values = band.strips(k), band.strips(v)
        grad_queries = torch.empty_like(queries)
        grad_keys, grad_values = torch.zeros_like(keys), torch.zeros_like(values)
        for row in range(band.first, band.last):
            i = row - band.first
            part = slice(rows.start[row] - band.top, rows.start[row] - band.top + rows.reach)
            key, value = keys[:, part].flatten(1, 2), values[:, part].flatten(1, 2)
            p = scores.probabilities(queries[i], key, row, band)
            grad_s = scores.buffer(1, queries[i], key)
            if p.dtype == q.dtype:
                torch.bmm(grad_out[i], value.transpose(1, 2), out=grad_s)
            else:
                grad_s.copy_(torch.bmm(grad_out[i], value.transpose(1, 2)))
            softmax_backward(grad_s, p, -1, p.dtype, grad_input=grad_s)
            p, low = p.to(q.dtype), grad_s.to(q.dtype)
            _add_product(grad_values[:, part].flatten(1, 2), p, grad_out[i], 1.0)
            _add_product(grad_keys[:, part].flatten(1, 2), low, queries[i], scale)
            torch.baddbmm(grad_queries[i], low, key, beta=0, alpha=scale, out=grad_queries[i])
            scores.backward(grad_s, queries[i], grad_queries[i], row, band)
        band.set_tiles(grad_queries, grad_q)
        band.add_strips(grad_keys, grad_k)
        band.add_strips(grad_values, grad_v)
    tables = [scores.bias.grad() if bias is not None else None]
    for relative in (scores.rel_h, scores.rel_w):
        tables.append(None if relative is None else relative.grad())
    given = zip(tables, (bias, rel_h, rel_w), strict=True)
    # contiguous, as compiled graphs expect them
    tables = [t.to(x.dtype).contiguous() for t, x in given if t is not None]
    return [grad_q, grad_k, grad_v, *tables]
