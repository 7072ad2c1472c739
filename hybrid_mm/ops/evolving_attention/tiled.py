"""Evolving attention, a few rows of queries at a time; the backward pass recomputes the rest.

Tokens are (N, heads, T, d) here, T = H W, and logits (N, heads, T, T). Only the logits of a layer,
which the next one needs, are kept whole.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.positions import decomposed_logits, decomposed_tables

_ROWS = 32  # queries at a time at least, for each chunk computes a row above and below again


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    previous: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    alpha: float,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Result (N, heads, T, d_v) and logits (N, heads, T, T) of maps (N, heads, H, W, d)."""
    row = column = None
    if rel_h is not None and rel_w is not None:
        row, column = _relative_terms(q, rel_h.to(q.dtype), rel_w.to(q.dtype))
    tokens = (x.flatten(2, 3).contiguous() for x in (q, k, v))
    return evolve(*tokens, row, column, previous, weight, bias, list(q.shape[2:4]), alpha, beta)


def _relative_terms(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """Terms by key row and by key column, (N, heads, T, H) and (N, heads, T, W)."""
    height, width = q.shape[2:4]
    # decomposed tables are by query - key
    row, column = decomposed_logits(
        q,
        decomposed_tables(rel_h.flip(0), height, height, resize=False),
        decomposed_tables(rel_w.flip(0), width, width, resize=False),
    )
    return row.flatten(2, 3).contiguous(), column.flatten(2, 3).contiguous()


class _Chunk(NamedTuple):
    """What is worked on at a time."""

    images: slice
    own: slice  # queries
    wide: slice  # with the row above and below that a 3x3 convolution reads
    inner: slice  # where the queries lie within these


def _chunks(logits: Tensor) -> Iterator[_Chunk]:
    """Cut logits (N, heads, T, T) into chunks."""
    n, heads, queries, keys = logits.shape
    images = budget.fitting(n, heads * queries * keys, logits.device)
    rows = min(queries, max(_ROWS, budget.fitting(queries, heads * keys, logits.device)))
    for batch in budget.chunks(n, images):
        for own in budget.chunks(queries, rows):
            wide = _widened(own, queries)
            inner = slice(own.start - wide.start, own.stop - wide.start)
            yield _Chunk(batch, own, wide, inner)


def _widened(rows: slice, count: int) -> slice:
    """Rows with the one above and below, as far as there are any."""
    return slice(max(rows.start - 1, 0), min(rows.stop + 1, count))


def _mixed(
    q: Tensor,
    k: Tensor,
    row: Tensor | None,
    column: Tensor | None,
    previous: Tensor | None,
    beta: float,
    images: slice,
    rows: slice,
) -> Tensor:
    """Logits of some queries, mixed with those of the layer before, (images, heads, rows, T)."""
    logits = torch.matmul(q[images, :, rows], k[images].transpose(2, 3))
    if row is not None and column is not None:
        grid = logits.unflatten(3, (row.shape[3], column.shape[3]))
        grid += row[images, :, rows, :, None]
        grid += column[images, :, rows, None]
    return logits if previous is None else logits.lerp_(previous[images, :, rows], beta)


def _backward(
    grad: Tensor | None,
    grad_logits: Tensor | None,
    logits: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    row: Tensor | None,
    column: Tensor | None,
    previous: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    size: Sequence[int],
    alpha: float,
    beta: float,
) -> list[Tensor]:
    grad = None if grad is None else grad.contiguous()
    source = q, k, row, column, previous, beta
    given = (q, k, v, row, column, previous, weight, bias)
    found = [
        None if x is None else torch.zeros_like(x, memory_format=torch.contiguous_format)
        for x in given
    ]
    grad_q, grad_k, grad_v, grad_row, grad_column, grad_previous, grad_weight, grad_bias = found
    for images, own, wide, inner in _chunks(logits):
        if previous is None:
            wide, inner = own, slice(None)
        part = logits[images, :, wide]
        # gradient of the logits of these rows
        if grad is None:
            up = grad_logits[images, :, wide].clone()
        else:
            weights = part.softmax(-1)
            dy = grad[images, :, wide]
            grad_v[images] += weights[:, :, inner].transpose(2, 3) @ dy[:, :, inner]
            up = dy @ v[images].transpose(2, 3)
            up = torch._softmax_backward_data(up, weights, -1, up.dtype)
            del weights
            if grad_logits is not None:
                up += grad_logits[images, :, wide]
        if previous is not None:
            if alpha == 1:
                passed = torch.ops.aten.threshold_backward(up, part, 0)
            else:
                # the convolution once more, of rows further out: the outer ones need neighbours
                wider = _widened(wide, q.shape[2])
                convolved = F.conv2d(_mixed(*source, images, wider), weight, bias, padding=1)
                convolved = convolved.narrow(2, wide.start - wider.start, up.shape[2])
                passed = torch.ops.aten.threshold_backward(up * alpha, convolved, 0)
                del convolved
            flipped = weight.transpose(0, 1).flip(2, 3)
            down = F.conv2d(passed, flipped, padding=1)[:, :, inner]
            if alpha != 1:
                down.add_(up[:, :, inner], alpha=1 - alpha)
            passed[:, :, : inner.start] = 0
            passed[:, :, inner.stop :] = 0
            grad_bias += passed.sum((0, 2, 3))
            mixed = _mixed(*source, images, wide)
            grad_weight += torch.nn.grad.conv2d_weight(mixed, weight.shape, passed, padding=1)
            del mixed, passed
            torch.mul(down, beta, out=grad_previous[images, :, own])
            up = down.mul_(1 - beta)
        if row is not None:
            grid = up.unflatten(3, size)
            grad_row[images, :, own] = grid.sum(4)
            grad_column[images, :, own] = grid.sum(3)
        grad_q[images, :, own] = up @ k[images]
        grad_k[images] += up.transpose(2, 3) @ q[images, :, own]
    return [x for x in found if x is not None]


@custom_op(
    'hybrid_mm::evolving_attention',
    fake=lambda q, k, v, *_: (
        torch.empty_like(v),
        q.new_empty(*q.shape[:2], q.shape[2], q.shape[2]),
    ),
    backward=_backward,
    keep=[1],
)
def evolve(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    row: Tensor | None,
    column: Tensor | None,
    previous: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    size: Sequence[int],
    alpha: float,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Result and logits.

    Args:
        q: Queries (N, heads, T, d).
        k: Keys (N, heads, T, d).
        v: Values (N, heads, T, d_v), contiguous.
        row: Terms by key row (N, heads, T, H), or None.
        column: Terms by key column (N, heads, T, W), or None.
        previous: Logits of the layer before (N, heads, T, T), or None.
        weight: Kernel (heads, heads, 3, 3), with ``previous``.
        bias: Its bias (heads,), with ``previous``.
        size: Height and width of the map.
        alpha: Weight of the convolution.
        beta: Weight of the logits of the layer before.
    """
    out, logits = torch.empty_like(v), q.new_empty(*q.shape[:2], q.shape[2], q.shape[2])
    source = q, k, row, column, previous, beta
    for images, own, wide, inner in _chunks(logits):
        part = logits[images, :, own]
        if previous is None:
            part.copy_(_mixed(*source, images, own))
        else:
            mixed = _mixed(*source, images, wide)
            convolved = F.conv2d(mixed, weight, bias, padding=1)[:, :, inner]
            if alpha == 1:
                torch.clamp(convolved, min=0, out=part)
            else:
                torch.lerp(mixed[:, :, inner], convolved.relu_(), alpha, out=part)
        out[images, :, own] = part.softmax(-1) @ v[images]
    return out, logits
