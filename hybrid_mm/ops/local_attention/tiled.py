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
from hybrid_mm.ops.local_attention.tiles import Chunk, TileRow, chunks, tiling
from hybrid_mm.ops.precision import accurate


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
    rows, columns = tiling(pattern, tile, *k.shape[2:4])
    like = accurate(q.new_empty(0))  # type of the scores
    terms = PositionTerms(tables, rows, columns, like)
    work = chunks(q, rows, columns)
    memory = _score_memory(work, like)
    out = q.new_empty(*q.shape[:4], v.shape[-1])
    for chunk in work:
        # lay out
        queries = chunk.query_tiles(q)
        keys, values = chunk.column_windows(k), chunk.column_windows(v)
        results = queries.new_empty(*queries.shape[:3], v.shape[-1])
        scores = memory[: chunk.score_shape[0]]
        for row in chunk.tile_rows():
            query, key, value = queries[row.place], _seen(keys, row), _seen(values, row)
            p = _probabilities(query, key, terms, row, scale, out=scores)
            torch.bmm(p.to(q.dtype), value, out=results[row.place])
        chunk.write_query_tiles(results, out)
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
    rows, columns = tiling(pattern, tile, *k.shape[2:4])
    like = accurate(q.new_empty(0))  # type of the scores
    terms = PositionTerms(tables, rows, columns, like)
    work = chunks(q, rows, columns)
    memory, memory_grad = _score_memory(work, like), _score_memory(work, like)
    grad_q, grad_k, grad_v = (
        torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)
    )
    for chunk in work:
        # lay out
        queries, grad_results = chunk.query_tiles(q), chunk.query_tiles(grad)
        keys, values = chunk.column_windows(k), chunk.column_windows(v)
        grad_queries = torch.empty_like(queries)
        grad_keys, grad_values = torch.zeros_like(keys), torch.zeros_like(values)
        scores, grad_s = (x[: chunk.score_shape[0]] for x in (memory, memory_grad))
        for row in chunk.tile_rows():
            query, grad_out, grad_query = (
                x[row.place] for x in (queries, grad_results, grad_queries)
            )
            key, value = _seen(keys, row), _seen(values, row)
            # scores and softmax once more
            p = _probabilities(query, key, terms, row, scale, out=scores)
            # through the sum of values and the softmax
            if p.dtype == q.dtype:
                torch.bmm(grad_out, value.transpose(1, 2), out=grad_s)
            else:
                grad_s.copy_(torch.bmm(grad_out, value.transpose(1, 2)))
            torch.ops.aten._softmax_backward_data.out(grad_s, p, -1, p.dtype, grad_input=grad_s)
            # to values, keys, queries and tables
            p, low = p.to(q.dtype), grad_s.to(q.dtype)
            _add_product(_seen(grad_values, row), p, grad_out, 1.0)
            _add_product(_seen(grad_keys, row), low, query, scale)
            torch.baddbmm(grad_query, low, key, beta=0, alpha=scale, out=grad_query)
            terms.backward(grad_s, query, grad_query, row)
        # back to the maps
        chunk.write_query_tiles(grad_queries, grad_q)
        chunk.add_column_windows(grad_keys, grad_k)
        chunk.add_column_windows(grad_values, grad_v)
    return grad_q, grad_k, grad_v, terms.grads()


def _score_memory(work: list[Chunk], like: Tensor) -> Tensor:
    """Memory for the scores of a row of tiles, once for all rows: new pages cost much time."""
    shapes = [chunk.score_shape for chunk in work]
    return like.new_empty(max(shapes, default=(0, 0, 0)))


def _seen(windows: Tensor, row: TileRow) -> Tensor:
    """View of what a row of tiles sees of column windows, (batch, keys, d)."""
    return windows[:, row.keys].flatten(1, 2)


def _probabilities(
    query: Tensor, key: Tensor, terms: PositionTerms, row: TileRow, scale: float, out: Tensor
) -> Tensor:
    """Scores of a row of tiles and their softmax, (batch, queries, keys), in the memory of out."""
    query, key = query.to(out.dtype), key.to(out.dtype)  # float16 would overflow above 65504
    beta = int(terms.write(out, query, row))
    torch.baddbmm(out, query, key.transpose(1, 2), beta=beta, alpha=scale, out=out)
    return torch.softmax(out, -1, out=out)


def _add_product(target: Tensor, a: Tensor, b: Tensor, factor: float) -> None:
    """Add factor * a^T b to the target, for every member of the batch."""
    if target.is_contiguous():
        target.baddbmm_(a.transpose(1, 2), b, alpha=factor)
    else:  # baddbmm_ would do one product of the batch after the other
        target.add_(torch.bmm(a.transpose(1, 2), b), alpha=factor)
