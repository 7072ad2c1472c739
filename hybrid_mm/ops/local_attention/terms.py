"""What the tiled algorithm adds to the products of queries and keys: bias, relative tables, masks.

Scores of a row of tiles are (tile columns * images * heads, queries, keys). Every term knows how to
add itself to them, and how to take their gradient back to its table and to the queries.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.device_tables import on_device
from hybrid_mm.ops.local_attention.pattern import Tables
from hybrid_mm.ops.local_attention.tiles import TileRow, Tiles

_LOW = -1e30  # logit of a key that is not seen; finite, because 0 * inf is not 0


class _BiasTerm:
    """The term that does not depend on the query: bias and mask.

    The table is laid out for the columns of a tile first, then for its rows: what is copied then
    are whole rows of keys. Tiles of one type share their term; where every row of tiles is of a
    type of its own (attention to all pixels), it lives as long as the row.
    """

    def __init__(self, bias: Tensor | None, rows: Tiles, columns: Tiles, like: Tensor) -> None:
        self.rows, self.columns, self.learned = rows, columns, bias is not None
        self.needed = self.learned or not (rows.all_valid and columns.all_valid)
        table = like.new_zeros(1, 1, 1) if bias is None else bias.to(like.dtype)
        # one more entry per axis, for keys that are not seen
        self.table = F.pad(table, (0, 1, 0, 1), value=_LOW)
        self.shared = len(set(rows.types)) < rows.number
        self._columns: dict[int, Tensor] = {}
        self._tiles: dict[tuple[int, int], Tensor] = {}
        self._columns_grad: dict[int, Tensor] = {}
        self._tiles_grad: dict[tuple[int, int], Tensor] = {}

    def write(self, scores: Tensor, row: TileRow) -> None:
        """Set scores (tile columns, N, h, queries, keys) to the term."""
        for first, last, column_type in self.columns.runs:
            scores[first:last] = self._tile(self.rows.types[row.number], column_type, row.heads)

    def backward(self, grad: Tensor, row: TileRow) -> None:
        """Add the gradient of scores (tile columns, N, h, queries, keys) to that of the table."""
        heads = row.heads
        if len(self.table) == 1:
            grad, heads = grad.sum(2, keepdim=True), slice(0, 1)
        for first, last, column_type in self.columns.runs:
            part = grad[first:last]
            part = part[0, 0] if part.shape[:2] == (1, 1) else part.sum((0, 1))
            key = (self.rows.types[row.number], column_type)
            if not self.shared:
                self._add_to_columns(part, *key, heads)
                continue
            if key not in self._tiles_grad:
                self._tiles_grad[key] = part.new_zeros(len(self.table), *part.shape[1:])
            self._tiles_grad[key][heads] += part

    def grad(self) -> Tensor:
        """Gradient of the bias, (heads or 1, rows, columns)."""
        for key, total in self._tiles_grad.items():
            self._add_to_columns(total, *key, slice(0, len(total)))
        out = torch.zeros_like(self.table)
        for column_type, total in self._columns_grad.items():
            out.index_add_(2, self._index(self.columns, column_type, 2), total)
        return out[:, :-1, :-1]

    def _index(self, tiles: Tiles, tile: int, dim: int) -> Tensor:
        """Entry of the table, along a dimension, for each query and position of a tile."""
        length = self.table.shape[dim] - 1
        return on_device(_entries, tiles, length, device=self.table.device)[0][tile]

    def _tile(self, row_type: int, column_type: int, heads: slice) -> Tensor:
        """Term of a type of tile, (heads or 1, queries, keys)."""
        key = (row_type, column_type)
        heads = heads if len(self.table) > 1 else slice(0, 1)
        if key in self._tiles:
            return self._tiles[key][heads]
        if column_type not in self._columns:
            index = self._index(self.columns, column_type, 2)
            self._columns[column_type] = self.table.index_select(2, index)
        table = self._columns[column_type]
        if not self.shared:
            return self._lay_out_rows(table[heads], row_type)
        self._tiles[key] = self._lay_out_rows(table, row_type)
        return self._tiles[key][heads]

    def _lay_out_rows(self, table: Tensor, row_type: int) -> Tensor:
        """From a table that is laid out for columns to (heads or 1, queries, keys)."""
        rows, columns = self.rows, self.columns
        value = table.index_select(1, self._index(rows, row_type, 1))
        value = value.view(-1, rows.size, rows.reach, columns.size, columns.reach)
        return value.transpose(2, 3).reshape(
            -1, rows.size * columns.size, rows.reach * columns.reach
        )

    def _add_to_columns(self, grad: Tensor, row_type: int, column_type: int, heads: slice) -> None:
        """Transpose of :meth:`_lay_out_rows`: add to the gradient of the laid-out table."""
        rows, columns = self.rows, self.columns
        shape = len(self.table), self.table.shape[1], columns.size * columns.reach
        if column_type not in self._columns_grad:
            self._columns_grad[column_type] = grad.new_zeros(shape)
        grad = grad.view(-1, rows.size, columns.size, rows.reach, columns.reach).transpose(2, 3)
        grad = grad.reshape(len(grad), -1, shape[2])
        target = self._columns_grad[column_type][heads]
        target.index_add_(1, self._index(rows, row_type, 1), grad)


def _entries(tiles: Tiles, length: int) -> tuple[np.ndarray]:
    """Entry of a table of a length for the queries and positions of every tile, by tile.

    Keys that are not seen read the entry behind the last one.
    """
    index = np.clip(tiles.relative + (length - 1) // 2, 0, length - 1)
    return (np.where(tiles.valid, index, length).reshape(tiles.number, -1),)


class _RelativeTerm:
    """The product of queries with a table of one axis, each key reading the entry of its offset.

    Query i and position j of a tile read entry ``first + j - step * i`` of the product, which is a
    view with other strides.
    """

    def __init__(self, table: Tensor, rows: Tiles, columns: Tiles, axis: int, like: Tensor) -> None:
        self.rows, self.columns, self.axis = rows, columns, axis
        tiles = (rows, columns)[axis]
        centre = (table.shape[1] - 1) // 2
        low = min(tiles.base) + centre - tiles.step * (tiles.size - 1)
        high = max(tiles.base) + centre + tiles.reach - 1
        self.left, self.entries = max(0, -low), table.shape[1]
        pad = (0, 0, self.left, max(0, high + 1 - self.entries))
        self.table = F.pad(table.to(like.dtype), pad)
        self.table_grad = torch.zeros_like(self.table)
        self.first = [base + centre + self.left for base in tiles.base]
        self.step, self.reach = tiles.step, tiles.reach

    def of(self, q: Tensor, row: TileRow) -> Tensor:
        """Term of queries (batch, queries, d).

        Returns:
            (batch, rows and columns of queries, rows of keys, 1), or columns of keys last.
        """
        q, table = self._by_head(q.to(self.table.dtype), row), self._table(row)
        product = torch.matmul(q, table.transpose(1, 2))
        product = product.flatten(0, -3)
        parts = [self._skewed(product[part], tile) for part, tile in self._parts(len(product), row)]
        term = parts[0] if len(parts) == 1 else torch.cat(parts)
        return term.unsqueeze(-1 if self.axis == 0 else -2)

    def backward(self, grad: Tensor, q: Tensor, grad_q: Tensor, row: TileRow) -> None:
        """Add to the gradients of table and queries.

        Args:
            grad: Of the scores, (batch, rows and columns of queries, rows and columns of keys).
            q: Queries, (batch, queries, d).
            grad_q: Their gradient, to add to.
            row: The row of tiles.
        """
        q, table = self._by_head(q.to(grad.dtype), row), self._table(row)
        grad = grad.sum(-1 if self.axis == 0 else -2)
        grad_product = q.new_zeros(*q.shape[:-1], self.table.shape[1])
        flat = grad_product.flatten(0, -3)
        for part, tile in self._parts(len(flat), row):
            self._skewed(flat[part], tile).copy_(grad[part])
        grad_q.add_(torch.matmul(grad_product, table).view_as(grad_q))
        if len(self.table) == 1:
            self.table_grad[0] += grad_product.flatten(0, -2).t() @ q.flatten(0, -2)
        else:
            grad_product, q = (x.transpose(0, 1).flatten(1, 2) for x in (grad_product, q))
            self.table_grad[row.heads] += grad_product.transpose(1, 2) @ q

    def grad(self) -> Tensor:
        """Gradient of the table, (heads or 1, entries, d)."""
        return self.table_grad[:, self.left : self.left + self.entries]

    def _table(self, row: TileRow) -> Tensor:
        return self.table if len(self.table) == 1 else self.table[row.heads]

    def _by_head(self, x: Tensor, row: TileRow) -> Tensor:
        """(batch, ...) as (batch / heads, heads, ...), with the heads that the table has."""
        return x.view(-1, len(self._table(row)), *x.shape[1:])

    def _parts(self, batch: int, row: TileRow) -> list[tuple[slice, int]]:
        """Parts of a batch that read the same entries, each with a tile of the axis that does."""
        if self.axis == 0:
            return [(slice(None), row.number)]
        each = batch // self.columns.number
        return [(slice(a * each, b * each), tile) for a, b, tile in self.columns.runs]

    def _skewed(self, product: Tensor, tile: int) -> Tensor:
        """View of products (batch, queries, entries) as (batch, rows, columns, positions)."""
        rows, columns, entries = self.rows.size, self.columns.size, product.shape[-1]
        strides = [rows * columns * entries, columns * entries, entries, 1]
        strides[1 + self.axis] -= self.step
        first = product.storage_offset() + self.first[tile]
        return product.as_strided((len(product), rows, columns, self.reach), strides, first)


class PositionTerms:
    """All terms of a map that is cut into tiles, in the dtype of the scores.

    Args:
        tables: Bias and relative tables.
        rows: Tiles of the rows.
        columns: Tiles of the columns.
        like: Tensor with the device and the dtype of the scores.
    """

    def __init__(self, tables: Tables, rows: Tiles, columns: Tiles, like: Tensor) -> None:
        self.rows, self.columns = rows, columns
        self.bias = _BiasTerm(tables.bias, rows, columns, like)
        self.rel_h, self.rel_w = (
            None if table is None else _RelativeTerm(table, rows, columns, axis, like)
            for axis, table in enumerate((tables.rel_h, tables.rel_w))
        )
        self.relative = [term for term in (self.rel_h, self.rel_w) if term is not None]

    def write(self, scores: Tensor, q: Tensor, row: TileRow) -> bool:
        """Set the scores of queries (batch, queries, d) to the terms.

        Returns:
            Whether there is any; the scores are left as they are if there is none.
        """
        grid = self._grid(scores)
        if self.bias.needed:
            self.bias.write(self._by_image(scores, row), row)
        terms = [term.of(q, row) for term in self.relative]
        if self.bias.needed:
            for term in terms:
                grid.add_(term)
        elif len(terms) == 2:
            torch.add(*terms, out=grid)
        elif terms:
            grid.copy_(terms[0])
        return self.bias.needed or bool(terms)

    def backward(self, grad: Tensor, q: Tensor, grad_q: Tensor, row: TileRow) -> None:
        """Take the gradient of the scores to the tables, and add their part to that of queries."""
        if self.bias.learned:
            self.bias.backward(self._by_image(grad, row), row)
        for term in self.relative:
            term.backward(self._grid(grad), q, grad_q, row)

    def grads(self) -> Tables:
        """Gradients of the tables."""
        return Tables(
            self.bias.grad() if self.bias.learned else None,
            None if self.rel_h is None else self.rel_h.grad(),
            None if self.rel_w is None else self.rel_w.grad(),
        )

    def _by_image(self, x: Tensor, row: TileRow) -> Tensor:
        """(batch, queries, keys) as (tile columns, images, heads, queries, keys)."""
        return x.view(self.columns.number, -1, row.heads.stop - row.heads.start, *x.shape[1:])

    def _grid(self, x: Tensor) -> Tensor:
        """(batch, queries, keys) as (batch, rows and columns of queries, and of keys)."""
        rows, columns = self.rows, self.columns
        return x.view(-1, rows.size, columns.size, rows.reach, columns.reach)
