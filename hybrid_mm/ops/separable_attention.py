"""Attention whose weights are products of a row factor and a column factor (arXiv 1911.03584)."""

from typing import Any

import torch
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.dispatch import resolve
from hybrid_mm.ops.export import exporting
from hybrid_mm.ops.precision import cast_as_autocast
from hybrid_mm.ops.recompute import recomputed

__all__ = ['separable_attention']


class _HeadByHead(torch.autograd.Function):
    """Sum over heads of W_h (R_h x C_h^T), computed again in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, columns: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, rows, columns, weight)
        n, h, w, c = x.shape
        x = x.contiguous()
        out = x.new_zeros(n * rows.shape[1] * columns.shape[1], weight.shape[1])
        for r, s, mix in zip(rows, columns, weight, strict=True):
            t = torch.matmul(r, x.view(n, h, w * c))
            u = torch.matmul(s, t.view(n * len(r), w, c))
            torch.addmm(out, u.view(-1, c), mix.t(), out=out)
        return out.view(n, rows.shape[1], columns.shape[1], weight.shape[1])

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, rows, columns, weight = ctx.saved_tensors
        n, h, w, c = x.shape
        x, dy = x.contiguous().view(n, h, w * c), dy.reshape(-1, weight.shape[1])
        dx, drows, dcolumns, dweight = (torch.zeros_like(y) for y in (x, rows, columns, weight))
        for i, (r, s, mix) in enumerate(zip(rows, columns, weight, strict=True)):
            t = torch.matmul(r, x).view(n * len(r), w, c)
            du = torch.mm(dy, mix)
            dweight[i] = torch.mm(dy.t(), torch.matmul(s, t).view(-1, c))
            du = du.view(len(t), len(s), c)
            dcolumns[i] = torch.einsum('bvc,bwc->vw', du, t)
            dt = torch.matmul(s.t(), du).view(n, len(r), w * c)
            drows[i] = torch.matmul(dt, x.transpose(1, 2)).sum(0)
            dx += torch.matmul(r.t(), dt)
        return dx.view(n, h, w, c), drows, dcolumns, dweight


def _in_groups(x: Tensor, rows: Tensor, columns: Tensor, weight: Tensor) -> Tensor:
    """Sum over groups of heads, as many at a time as fit; computed again in the backward pass."""
    n, _, w, c = x.shape
    each = n * rows.shape[1] * max(w, columns.shape[1]) * c
    size = budget.fitting(len(rows), each, x.device)
    groups = zip(rows.split(size), columns.split(size), weight.split(size), strict=True)
    first, *others = (recomputed(_group, x, *group) for group in groups)
    return sum(others, first)


def _group(x: Tensor, rows: Tensor, columns: Tensor, weight: Tensor) -> Tensor:
    """All heads at once, by a matrix product each for rows, columns and mixing."""
    n, _, w, c = x.shape
    heads, height, _ = rows.shape
    y = torch.bmm(rows.flatten(0, 1).expand(n, -1, -1), x.flatten(2))
    y = y.view(n, heads, height, w, c).permute(1, 3, 0, 2, 4).flatten(2)  # heads, w, (n, h', c)
    y = torch.bmm(columns, y).view(heads, columns.shape[1], n, height, c)
    y = y.permute(2, 3, 1, 0, 4).flatten(3)  # n, h', w', (heads, c)
    return y @ weight.transpose(1, 2).flatten(0, 1)


def _all_heads(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """What every head gathers, (heads, N, H', W', C)."""
    x = torch.einsum('auh,bhwc->abuwc', rows, x)
    return torch.einsum('avw,abuwc->abuvc', columns, x)


def _without_transposes(x: Tensor, rows: Tensor, columns: Tensor, weight: Tensor) -> Tensor:
    """What an exported graph has: columns, mixing, rows, three products with no copy between."""
    y = columns[:, None] @ x[:, None]  # (N, heads, H, W', C)
    size = y.shape[2:4]
    y = (y.flatten(2, 3) @ weight.transpose(1, 2)).unflatten(2, size)  # (N, heads, H, W', C_out)
    y = rows.transpose(0, 1).flatten(1) @ y.flatten(1, 2).flatten(2)  # (N, H', W' C_out)
    return y.unflatten(2, (size[1], weight.shape[1]))


def separable_heads(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """:func:`separable_attention` before the mixing, (N, H', W', heads * C)."""
    (x,) = cast_as_autocast(x)
    return _all_heads(x, rows.to(x.dtype), columns.to(x.dtype)).permute(1, 2, 3, 0, 4).flatten(3)


def separable_attention(
    x: Tensor, rows: Tensor, columns: Tensor, weight: Tensor, impl: str = 'auto'
) -> Tensor:
    """Attention whose probabilities are products of row and column probabilities.

    ``out[u, v] = sum_h W_h (sum_ij R_h[u, i] C_h[v, j] x[i, j])``; heads * C * H' * W * (H + W')
    multiplications besides the mixing.

    Args:
        x: (N, H, W, C).
        rows: Probabilities R (heads, H', H) of the rows of the map for every row of queries.
        columns: Probabilities C (heads, W', W).
        weight: Mixing weights W (heads, C_out, C).
        impl: 'tiled', one head at a time (on GPUs as many as fit the working memory), which keeps
            the inputs only for the backward pass, or 'reference', of all heads at once.

    Returns:
        (N, H', W', C_out), in the type of x; under autocast in its type.

    Raises:
        ValueError: An unknown impl.
    """
    (x,) = cast_as_autocast(x)
    rows, columns, weight = (y.to(x.dtype) for y in (rows, columns, weight))
    impl = resolve(impl, 'separable_attention')
    if exporting():
        return _without_transposes(x, rows, columns, weight)
    if impl == 'reference' or torch.jit.is_tracing():  # a tracer records no function of autograd
        x = _all_heads(x, rows, columns)
        return torch.einsum('abuvc,aoc->buvo', x, weight)
    if x.is_cuda:
        return _in_groups(x, rows, columns, weight)
    return _HeadByHead.apply(x, rows, columns, weight)
