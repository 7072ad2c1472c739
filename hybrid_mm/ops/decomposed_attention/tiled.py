"""Decomposed attention, a few rows of queries at a time; the backward pass recomputes the logits.

Maps of all images and heads are one batch B = N * heads here.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.positions import decomposed_logits
from hybrid_mm.ops.precision import accurate_dtype, multiplies_accurately


class _Steps:
    """Probabilities of a few rows of queries after the other, in one piece of memory."""

    def __init__(self, q: Tensor, k: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> None:
        n, heads, self.height, width, _ = q.shape
        keys = k.shape[2] * k.shape[3]
        # float16 would overflow above 65504
        self.dtype = accurate_dtype(q.dtype)
        self.scale, self.maps = scale, n * heads
        self.rel = rel_h.to(self.dtype), rel_w.to(self.dtype)
        terms = decomposed_logits(q.to(self.dtype), *self.rel)
        self.terms = tuple(term.flatten(0, 1) for term in terms)
        self.q, self.k = q.flatten(0, 1), k.reshape(n * heads, keys, -1)
        row = width * keys
        self.rows = budget.fitting(self.height, row, q.device)
        self.batch = budget.fitting(self.maps, self.height * row, q.device)
        self.shape = (self.batch, self.rows, width, *k.shape[2:4])

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        """Maps and rows of one step after the other."""
        for batch in budget.chunks(self.maps, self.batch):
            for rows in budget.chunks(self.height, self.rows):
                yield batch, rows

    def buffer(self) -> Tensor:
        """Memory for the logits of one step, for all steps: new pages cost much."""
        return self.q.new_empty(self.shape, dtype=self.dtype)

    def part(self, buffer: Tensor, batch: slice, rows: slice) -> Tensor:
        """What a step takes of a buffer, (batch, rows, W, H_k, W_k)."""
        shape = (batch.stop - batch.start, rows.stop - rows.start, *self.shape[2:])
        return buffer.flatten()[: math.prod(shape)].view(shape)

    def probabilities(self, buffer: Tensor, batch: slice, rows: slice) -> tuple[Tensor, Tensor]:
        """Probabilities (batch, queries, keys) of a step, and its queries."""
        grid = self.part(buffer, batch, rows)
        height, width = (term[batch, rows] for term in self.terms)
        torch.add(height.unsqueeze(-1), width.unsqueeze(-2), out=grid)
        queries = self.q[batch, rows].flatten(1, 2)
        logits = grid.flatten(3, 4).flatten(1, 2)
        keys = self.k[batch].transpose(1, 2)
        if multiplies_accurately(queries):
            product = torch.bmm(queries, keys, out_dtype=self.dtype)
            logits.add_(product, alpha=self.scale)
        else:
            logits.baddbmm_(queries.to(self.dtype), keys.to(self.dtype), alpha=self.scale)
        return torch.softmax(logits, -1, out=logits), queries


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float
) -> list[Tensor]:
    steps = _Steps(q, k, rel_h, rel_w, scale)
    grad = grad.reshape(steps.maps, *q.shape[2:4], v.shape[-1])
    values = v.reshape(steps.maps, -1, v.shape[-1])
    grad_q = torch.empty_like(steps.q, memory_format=torch.contiguous_format)
    grad_k, grad_v = (
        torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (steps.k, values)
    )
    grad_terms = tuple(torch.empty_like(term) for term in steps.terms)
    buffers = steps.buffer(), steps.buffer()
    for batch, rows in steps:
        p, queries = steps.probabilities(buffers[0], batch, rows)
        grid = steps.part(buffers[1], batch, rows)
        logits = grid.flatten(3, 4).flatten(1, 2)
        upper = grad[batch, rows].flatten(1, 2)
        if p.dtype == upper.dtype:
            torch.bmm(upper, values[batch].transpose(1, 2), out=logits)
        elif multiplies_accurately(upper):
            torch.bmm(upper, values[batch].transpose(1, 2), out_dtype=p.dtype, out=logits)
        else:
            logits.copy_(torch.bmm(upper, values[batch].transpose(1, 2)))
        torch.ops.aten._softmax_backward_data.out(logits, p, -1, p.dtype, grad_input=logits)
        low = logits.to(q.dtype)
        grad_v[batch].baddbmm_(p.to(v.dtype).transpose(1, 2), upper)
        grad_k[batch].baddbmm_(low.transpose(1, 2), queries, alpha=scale)
        part = grad_q[batch, rows]
        part.copy_(torch.bmm(low, steps.k[batch]).mul_(scale).view(part.shape))
        torch.sum(grid, -1, out=grad_terms[0][batch, rows])
        torch.sum(grid, -2, out=grad_terms[1][batch, rows])
    precise = steps.q.to(steps.dtype)
    grad_q = grad_q.to(steps.dtype)
    tables = []
    for along, term, table in zip('yx', grad_terms, steps.rel, strict=True):
        grad_q += torch.einsum(f'byxk,{along}kd->byxd', term, table)
        tables.append(torch.einsum(f'byxk,byxd->{along}kd', term, precise))
    return [
        grad_q.to(q.dtype).view(q.shape),
        grad_k.view(k.shape),
        grad_v.view(v.shape),
        *(table.to(like.dtype) for table, like in zip(tables, (rel_h, rel_w), strict=True)),
    ]


@custom_op(
    'hybrid_mm::decomposed_attention',
    fake=lambda q, k, v, *_: q.new_empty(*q.shape[:4], v.shape[-1]),
    backward=_backward,
)
def attend(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
    """Attention of maps (N, heads, H, W, d); ``rel_h`` is (H, H_k, d), ``rel_w`` (W, W_k, d)."""
    steps = _Steps(q, k, rel_h, rel_w, scale)
    values = v.reshape(steps.maps, -1, v.shape[-1])
    out = q.new_empty(steps.maps, *q.shape[2:4], v.shape[-1])
    buffer = steps.buffer()
    for batch, rows in steps:
        p, _ = steps.probabilities(buffer, batch, rows)
        part = out[batch, rows]
        part.copy_(torch.bmm(p.to(v.dtype), values[batch]).view(part.shape))
    return out.view(*q.shape[:4], v.shape[-1])
