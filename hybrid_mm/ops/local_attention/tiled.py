"""The tiled algorithm of :mod:`hybrid_mm.ops.local_attention`.

Queries are cut into tiles; the keys that any query of a tile sees are one rectangle, so that a row
of tiles is one batched matrix product. Scores of a row of tiles live only as long as the row; the
backward pass recomputes them from q, k and v.

Cost of a tile of t x t queries that see h x h keys: t^2 h^2 (d + d_v) multiplications forward and
t^2 h^2 (3 d + 2 d_v) backward; of the h^2 keys k^2 are used. Extra memory: the copy of k and v in
windows, h/t times the map each (backward: their gradients as well), and one row of scores.
"""

import torch
from torch import Tensor

from hybrid_mm.ops.local_attention.pattern import Pattern, Tables
from hybrid_mm.ops.local_attention.terms import PositionTerms
from hybrid_mm.ops.local_attention.tiles import Chunk, TileRow, Tiles, chunks, tiling
from hybrid_mm.ops.precision import accurate, multiplies_accurately


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: Tables,
    scale: float,
    pattern: Pattern,
    tile: tuple[int, int],
) -> Tensor:
    """Output (N, h, H', W', d_v) of a pattern, in tiles of so many rows and columns of queries."""
    tiles = tiling(pattern, tile, *k.shape[2:4])
    scores = _Scores(q, tables, scale, *tiles)
    out = q.new_empty(*q.shape[:4], v.shape[-1])
    for chunk in chunks(q, *tiles):
        _attend(chunk, q, k, v, scores, out)
    return out


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: Tables,
    scale: float,
    pattern: Pattern,
    tile: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor, Tables]:
    """Gradients of q, k, v and the tables from that of the output."""
    tiles = tiling(pattern, tile, *k.shape[2:4])
    scores = _Scores(q, tables, scale, *tiles)
    grad_q, grad_k, grad_v = (
        torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)
    )
    for chunk in chunks(q, *tiles):
        _differentiate(chunk, grad, (q, k, v), scores, (grad_q, grad_k, grad_v))
    return grad_q, grad_k, grad_v, scores.terms.grads()


def _attend(chunk: Chunk, q: Tensor, k: Tensor, v: Tensor, scores: '_Scores', out: Tensor) -> None:
    """Write the results of a chunk to the output."""
    # lay out
    queries, keys, values = chunk.query_tiles(q), chunk.column_windows(k), chunk.column_windows(v)
    results = queries.new_empty(*queries.shape[:3], v.shape[-1])
    for row in chunk.tile_rows():
        p = scores.probabilities(queries[row.place], _seen(keys, row), row)
        torch.bmm(p.to(q.dtype), _seen(values, row), out=results[row.place])
    # back to the map
    chunk.write_query_tiles(results, out)


def _differentiate(
    chunk: Chunk,
    grad: Tensor,
    inputs: tuple[Tensor, Tensor, Tensor],
    scores: '_Scores',
    grads: tuple[Tensor, Tensor, Tensor],
) -> None:
    """Add the part of a chunk to the gradients of q, k, v and the tables."""
    (q, k, v), (grad_q, grad_k, grad_v) = inputs, grads
    # lay out
    queries, grad_results = chunk.query_tiles(q), chunk.query_tiles(grad)
    keys, values = chunk.column_windows(k), chunk.column_windows(v)
    grad_queries = torch.empty_like(queries)
    grad_keys, grad_values = torch.zeros_like(keys), torch.zeros_like(values)
    for row in chunk.tile_rows():
        query, grad_query = queries[row.place], grad_queries[row.place]
        key, value, grad_result = _seen(keys, row), _seen(values, row), grad_results[row.place]
        # the weights once more, and through the sum of values and the softmax
        p = scores.probabilities(query, key, row)
        grad_s = scores.gradient(p, value, grad_result)
        # to values, keys, queries and tables
        low = grad_s.to(q.dtype)
        _add_product(_seen(grad_values, row), p.to(q.dtype), grad_result, 1.0)
        _add_product(_seen(grad_keys, row), low, query, scores.scale)
        torch.baddbmm(grad_query, low, key, beta=0, alpha=scores.scale, out=grad_query)
        scores.terms.backward(grad_s, query, grad_query, row)
    # back to the maps
    chunk.write_query_tiles(grad_queries, grad_q)
    chunk.add_column_windows(grad_keys, grad_k)
    chunk.add_column_windows(grad_values, grad_v)


class _Scores:
    """Scores of a row of tiles, (batch, queries, keys), in the memory that all rows share.

    New pages of memory for every row would cost much time.
    """

    def __init__(
        self, q: Tensor, tables: Tables, scale: float, rows: Tiles, columns: Tiles
    ) -> None:
        self.scale, self.like = scale, accurate(q.new_empty(0))
        self.terms = PositionTerms(tables, rows, columns, self.like)
        self._memory: list[Tensor | None] = [None, None]

    def _take(self, which: int, shape: tuple[int, ...]) -> Tensor:
        """Memory for scores, or for their gradient; only the last images may need less."""
        memory = self._memory[which]
        if memory is None:
            memory = self._memory[which] = self.like.new_empty(shape)
        return memory[: shape[0]]

    def probabilities(self, query: Tensor, key: Tensor, row: TileRow) -> Tensor:
        """Softmax of the scores of queries (batch, queries, d) and keys (batch, keys, d)."""
        scores = self._take(0, (len(query), query.shape[1], key.shape[1]))
        # in half precision, products above 65504 would overflow
        if multiplies_accurately(query):
            product = torch.bmm(query, key.transpose(1, 2), out_dtype=scores.dtype)
            if self.terms.write(scores, query, row):
                scores.add_(product, alpha=self.scale)
            else:
                torch.mul(product, self.scale, out=scores)
        else:
            query, key = query.to(scores.dtype), key.to(scores.dtype)
            beta, alpha = int(self.terms.write(scores, query, row)), self.scale
            torch.baddbmm(scores, query, key.transpose(1, 2), beta=beta, alpha=alpha, out=scores)
        return torch.softmax(scores, -1, out=scores)

    def gradient(self, p: Tensor, value: Tensor, grad_result: Tensor) -> Tensor:
        """Gradient of the scores from that of the results (batch, queries, d_v)."""
        grad = self._take(1, tuple(p.shape))
        if p.dtype == value.dtype:
            torch.bmm(grad_result, value.transpose(1, 2), out=grad)
        elif multiplies_accurately(value):
            torch.bmm(grad_result, value.transpose(1, 2), out_dtype=p.dtype, out=grad)
        else:
            grad.copy_(torch.bmm(grad_result, value.transpose(1, 2)))
        return torch.ops.aten._softmax_backward_data.out(grad, p, -1, p.dtype, grad_input=grad)


def _seen(windows: Tensor, row: TileRow) -> Tensor:
    """View of what a row of tiles sees of column windows, (batch, keys, d)."""
    return windows[:, row.keys].flatten(1, 2)


def _add_product(target: Tensor, a: Tensor, b: Tensor, factor: float) -> None:
    """Add factor * a^T b to the target, for every member of the batch."""
    if target.is_contiguous():
        target.baddbmm_(a.transpose(1, 2), b, alpha=factor)
    else:  # baddbmm_ would do one product of the batch after the other
        target.add_(torch.bmm(a.transpose(1, 2), b), alpha=factor)
