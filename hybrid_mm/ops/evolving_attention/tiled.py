"""Evolving attention, a few rows of queries at a time; the backward pass recomputes the rest.

Tokens are (N, heads, T, d) here, T = H W, and logits (N, heads, T, T). Only the logits of a layer,
which the next one needs, are kept whole.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

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
    size = list(q.shape[2:4])
    q, k, v = (x.flatten(2, 3).contiguous() for x in (q, k, v))
    return evolve(q, k, v, row, column, previous, weight, bias, size, alpha, beta)


def _relative_terms(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """Terms by key row and by key column, (N, heads, T, H) and (N, heads, T, W)."""
    height, width = q.shape[2:4]
    # decomposed tables are by query - key
    terms = decomposed_logits(
        q,
        decomposed_tables(rel_h.flip(0), height, height, resize=False),
        decomposed_tables(rel_w.flip(0), width, width, resize=False),
    )
    # clone: torch.compile errs about the strides of the products of one image where d is 1, and
    # would leave out contiguous()
    row, column = (term.clone(memory_format=torch.contiguous_format) for term in terms)
    return row.flatten(2, 3), column.flatten(2, 3)


class _Chunk(NamedTuple):
    """What is worked on at a time."""

    images: slice
    own: slice  # queries
    wide: slice  # with the row above and below that a 3x3 convolution reads
    inner: slice  # where the queries lie within these


def _chunks(logits: Tensor) -> Iterator[_Chunk]:
    """Cut logits (N, heads, T, T) into chunks."""
    n, heads, queries, keys = logits.shape
    row = 4 * heads * keys  # logits, mixed logits, weights and a gradient
    images = budget.fitting(n, queries * row, logits.device)
    rows = min(queries, max(_ROWS, budget.fitting(queries, row, logits.device)))
    for batch in budget.chunks(n, images):
        for own in budget.chunks(queries, rows):
            wide = _widened(own, queries)
            inner = slice(own.start - wide.start, own.stop - wide.start)
            yield _Chunk(batch, own, wide, inner)


def _widened(rows: slice, count: int) -> slice:
    """Rows with the one above and below, as far as there are any."""
    return slice(max(rows.start - 1, 0), min(rows.stop + 1, count))


class _Logits(NamedTuple):
    """Logits of a layer before they evolve, and those of the layer before, if there is one."""

    q: Tensor
    k: Tensor
    row: Tensor | None
    column: Tensor | None
    previous: Tensor | None
    beta: float

    def mixed(self, images: slice, rows: slice) -> Tensor:
        """Logits of some queries (images, heads, rows, T), mixed with those of the layer before."""
        logits = torch.matmul(self.q[images, :, rows], self.k[images].transpose(2, 3))
        if self.row is not None and self.column is not None:
            grid = logits.unflatten(3, (self.row.shape[3], self.column.shape[3]))
            grid += self.row[images, :, rows, :, None]
            grid += self.column[images, :, rows, None]
        if self.previous is None:
            return logits
        return logits.lerp_(self.previous[images, :, rows], self.beta)


class _ConvolutionGradient:
    """Way back through the convolution of mixed logits, and the gradients that it leaves."""

    def __init__(
        self, logits: _Logits, previous: Tensor, weight: Tensor, bias: Tensor, alpha: float
    ) -> None:
        self.logits, self.weight, self.bias, self.alpha = logits, weight, bias, alpha
        self.flipped = weight.transpose(0, 1).flip(2, 3).contiguous()
        self.grad_previous, self.grad_weight, self.grad_bias = (
            _zeros(x) for x in (previous, weight, bias)
        )

    def pass_back(self, up: Tensor, part: Tensor, chunk: _Chunk) -> Tensor:
        """Gradient of the logits before they evolve (images, heads, own, T).

        Args:
            up: Gradient of the evolved logits of the wide rows.
            part: These logits.
            chunk: What is worked on.
        """
        images, own, wide, inner = chunk
        if self.alpha == 1:
            passed = torch.ops.aten.threshold_backward(up, part, 0)
        else:
            convolved = self._convolved(images, wide)
            passed = torch.ops.aten.threshold_backward(up * self.alpha, convolved, 0)
            del convolved
        down = F.conv2d(passed, self.flipped, padding=1)[:, :, inner]
        if self.alpha != 1:
            down.add_(up[:, :, inner], alpha=1 - self.alpha)
        passed[:, :, : inner.start] = 0
        passed[:, :, inner.stop :] = 0
        self.grad_bias += passed.sum((0, 2, 3))
        mixed = self.logits.mixed(images, wide)
        self.grad_weight += conv2d_weight(mixed, self.weight.shape, passed, padding=1)
        torch.mul(down, self.logits.beta, out=self.grad_previous[images, :, own])
        return down.mul_(1 - self.logits.beta)

    def _convolved(self, images: slice, rows: slice) -> Tensor:
        """Input of the ReLU, (images, heads, rows, T)."""
        wider = _widened(rows, self.logits.q.shape[2])
        convolved = F.conv2d(self.logits.mixed(images, wider), self.weight, self.bias, padding=1)
        return convolved.narrow(2, rows.start - wider.start, rows.stop - rows.start)


def _zeros(x: Tensor) -> Tensor:
    return torch.zeros_like(x, memory_format=torch.contiguous_format)


def differentiate(
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
    """Gradients of the tensors of :func:`evolve` that are there, from those of its results."""
    grad = None if grad is None else grad.contiguous()
    source = _Logits(q, k, row, column, previous, beta)
    convolution = None
    if previous is not None and weight is not None and bias is not None:
        convolution = _ConvolutionGradient(source, previous, weight, bias, alpha)
    grad_q, grad_k, grad_v = (_zeros(x) for x in (q, k, v))
    grad_terms = [_zeros(x) for x in (row, column) if x is not None]
    for chunk in _chunks(logits):
        images, own, wide, inner = chunk
        if convolution is None:
            wide, inner = own, slice(None)
        part = logits[images, :, wide]
        upper = []  # gradients of these logits
        if grad is not None:
            weights = part.softmax(-1)
            dy = grad[images, :, wide]
            grad_v[images] += weights[:, :, inner].transpose(2, 3) @ dy[:, :, inner]
            products = dy @ v[images].transpose(2, 3)
            upper.append(torch._softmax_backward_data(products, weights, -1, products.dtype))
            del weights, products
        if grad_logits is not None:
            upper.append(grad_logits[images, :, wide])
        up = upper[0] if len(upper) == 1 else upper[0].add_(upper[1])
        if convolution is not None:
            up = convolution.pass_back(up, part, chunk)
        if grad_terms:
            grid = up.unflatten(3, size)
            for target, axis in zip(grad_terms, (4, 3), strict=True):
                target[images, :, own] = grid.sum(axis)
        grad_q[images, :, own] = up @ k[images]
        grad_k[images] += up.transpose(2, 3) @ q[images, :, own]
    found = [grad_q, grad_k, grad_v, *grad_terms]
    if convolution is not None:
        found += [convolution.grad_previous, convolution.grad_weight, convolution.grad_bias]
    return found


@custom_op(
    'hybrid_mm::evolving_attention',
    fake=lambda q, k, v, *_: (
        torch.empty_like(v),
        q.new_empty(*q.shape[:2], q.shape[2], q.shape[2]),
    ),
    backward=differentiate,
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
    source = _Logits(q, k, row, column, previous, beta)
    for images, own, wide, inner in _chunks(logits):
        part = logits[images, :, own]
        if weight is None:
            part.copy_(source.mixed(images, own))
        else:
            mixed = source.mixed(images, wide)
            convolved = F.conv2d(mixed, weight, bias, padding=1)[:, :, inner]
            if alpha == 1:
                torch.clamp(convolved, min=0, out=part)
            else:
                torch.lerp(mixed[:, :, inner], convolved.relu_(), alpha, out=part)
        out[images, :, own] = part.softmax(-1) @ v[images]
    return out, logits
