"""Decomposed attention, a few rows of queries at a time; backward recomputes the logits."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.positions import decomposed_logits


class _Tiles:
    """Probabilities of some rows of queries after the other, in one piece of memory."""

    def __init__(self, q: Tensor, k: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> None:
        n, heads, self.height, width, _ = q.shape
        keys = k.shape[2] * k.shape[3]
        # float16 would overflow above 65504
        self.dtype = torch.promote_types(q.dtype, torch.float32)
        self.scale, self.images = scale, n * heads
        self.rel = rel_h.to(self.dtype), rel_w.to(self.dtype)
        terms = decomposed_logits(q.to(self.dtype), *self.rel)
        self.terms = tuple(term.flatten(0, 1) for term in terms)
        self.q, self.k = q.flatten(0, 1), k.reshape(n * heads, keys, -1)
        row = width * keys
        self.rows = budget.fitting(self.height, row, q.device)
        self.batch = budget.fitting(self.images, self.height * row, q.device)
        self.shape = (self.batch, self.rows, width, *k.shape[2:4])

    def buffer(self) -> Tensor:
        """Memory for the logits of one step: new pages cost much."""
        return self.q.new_empty(self.shape, dtype=self.dtype)

    def steps(self) -> Iterator[tuple[slice, slice]]:
        """Images (with heads) and rows of one step after the other."""
        for batch in budget.chunks(self.images, self.batch):
            for rows in budget.chunks(self.height, self.rows):
                yield batch, rows

    def part(self, buffer: Tensor, batch: slice, rows: slice) -> Tensor:
        """What a step takes of a buffer, (images, rows, W, H_k, W_k)."""
        return buffer.flatten()[
            : (batch.stop - batch.start) * (rows.stop - rows.start) * math.prod(self.shape[2:])
        ].view(batch.stop - batch.start, rows.stop - rows.start, *self.shape[2:])

    def probabilities(self, buffer: Tensor, batch: slice, rows: slice) -> tuple[Tensor, Tensor]:
        """Probabilities (images, queries, keys) of a step, and its queries."""
        grid = self.part(buffer, batch, rows)
        height, width = (term[batch, rows] for term in self.terms)
        torch.add(height.unsqueeze(-1), width.unsqueeze(-2), out=grid)
        queries = self.q[batch, rows].flatten(1, 2)
        logits = grid.flatten(3, 4).flatten(1, 2)
        keys = self.k[batch].to(self.dtype).transpose(1, 2)
        logits.baddbmm_(queries.to(self.dtype), keys, alpha=self.scale)
        return torch.softmax(logits, -1, out=logits), queries


def _forward(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
    tiles = _Tiles(q, k, rel_h, rel_w, scale)
    values = v.reshape(tiles.images, -1, v.shape[-1])
    out = q.new_empty(tiles.images, *q.shape[2:4], v.shape[-1])
    buffer = tiles.buffer()
    for batch, rows in tiles.steps():
        p, _ = tiles.probabilities(buffer, batch, rows)
        part = out[batch, rows]
        part.copy_(torch.bmm(p.to(v.dtype), values[batch]).view(part.shape))
    return out.view(*q.shape[:4], v.shape[-1])


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float
) -> list[Tensor]:
    tiles = _Tiles(q, k, rel_h, rel_w, scale)
    grad = grad.reshape(tiles.images, *q.shape[2:4], v.shape[-1])
    values = v.reshape(tiles.images, -1, v.shape[-1])
    grad_q = torch.empty_like(tiles.q, memory_format=torch.contiguous_format)
    grad_k, grad_v = (
        torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (tiles.k, values)
    )
    terms = tuple(torch.empty_like(term) for term in tiles.terms)
    buffers = tiles.buffer(), tiles.buffer()
    for batch, rows in tiles.steps():
        p, queries = tiles.probabilities(buffers[0], batch, rows)
        grid = tiles.part(buffers[1], batch, rows)
        logits = grid.flatten(3, 4).flatten(1, 2)
        upper = grad[batch, rows].flatten(1, 2)
        if p.dtype == upper.dtype:
            torch.bmm(upper, values[batch].transpose(1, 2), out=logits)
        else:
            logits.copy_(torch.bmm(upper, values[batch].transpose(1, 2)))
        torch.ops.aten._softmax_backward_data.out(logits, p, -1, p.dtype, grad_input=logits)
        low = logits.to(q.dtype)
        grad_v[batch].baddbmm_(p.to(v.dtype).transpose(1, 2), upper)
        grad_k[batch].baddbmm_(low.transpose(1, 2), queries, alpha=scale)
        part = grad_q[batch, rows]
        part.copy_(torch.bmm(low, tiles.k[batch]).mul_(scale).view(part.shape))
        torch.sum(grid, -1, out=terms[0][batch, rows])
        torch.sum(grid, -2, out=terms[1][batch, rows])
    precise = tiles.q.to(tiles.dtype)
    grad_q = grad_q.to(tiles.dtype)
    tables = []
    for axis, (term, table) in enumerate(zip(terms, tiles.rel, strict=True)):
        along = 'y' if axis == 0 else 'x'
        grad_q += torch.einsum(f'byxk,{along}kd->byxd', term, table)
        tables.append(torch.einsum(f'byxk,byxd->{along}kd', term, precise))
    given = zip(tables, (rel_h, rel_w), strict=True)
    return [
        grad_q.to(q.dtype).view(q.shape),
        grad_k.view(k.shape),
        grad_v.view(v.shape),
        *(table.to(like.dtype) for table, like in given),
    ]


@custom_op('hybrid_mm::decomposed_attention')
def _tiled(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):
        return _forward(q, k, v, rel_h, rel_w, scale)


@_tiled.register_fake
def _(q, k, v, rel_h, rel_w, scale):
    return q.new_empty(*q.shape[:4], v.shape[-1])


@custom_op('hybrid_mm::decomposed_attention_backward')
def _tiled_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float
) -> list[Tensor]:
    with torch.autocast(q.device.type, enabled=False):
        return _backward(grad, q, k, v, rel_h, rel_w, scale)


@_tiled_backward.register_fake
def _(grad, q, k, v, rel_h, rel_w, scale):
    return [x.new_empty(x.shape) for x in (q, k, v, rel_h, rel_w)]


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad):
    return *_tiled_backward(grad, *ctx.saved_tensors, ctx.scale), None


_tiled.register_autograd(_differentiate, setup_context=_setup_context)
