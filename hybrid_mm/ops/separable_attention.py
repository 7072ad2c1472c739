"""Attention whose weights are products of a row factor and a column factor."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hybrid_mm.ops.export import exporting


class _Separable(torch.autograd.Function):
    """Sum over heads of W_h (R_h x C_h^T): keeps x and the matrices, head by head otherwise."""

    @staticmethod
    def forward(ctx, x: Tensor, rows: Tensor, columns: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, rows, columns, weight)
        n, h, w, c = x.shape
        x = x.contiguous()
        out = x.new_zeros(n * rows.shape[1] * columns.shape[1], weight.shape[1])
        for r, s, mix in zip(rows, columns, weight, strict=True):
            t = torch.matmul(r, x.view(n, h, w * c))
            u = torch.matmul(s, t.view(-1, w, c))
            torch.addmm(out, u.view(-1, c), mix.t(), out=out)
        return out.view(n, rows.shape[1], columns.shape[1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x, rows, columns, weight = ctx.saved_tensors
        n, h, w, c = x.shape
        x, dy = x.contiguous().view(n, h, w * c), dy.reshape(-1, weight.shape[1])
        dx, drows, dcolumns, dweight = (torch.zeros_like(y) for y in (x, rows, columns, weight))
        for i, (r, s, mix) in enumerate(zip(rows, columns, weight, strict=True)):
            t = torch.matmul(r, x).view(-1, w, c)
            du = torch.mm(dy, mix)
            dweight[i] = torch.mm(dy.t(), torch.matmul(s, t).view(-1, c))
            du = du.view(len(t), -1, c)
            dcolumns[i] = torch.einsum('bvc,bwc->vw', du, t)
            dt = torch.matmul(s.t(), du).view(n, -1, w * c)
            drows[i] = torch.matmul(dt, x.transpose(1, 2)).sum(0)
            dx += torch.matmul(r.t(), dt)
        return dx.view(n, h, w, c), drows, dcolumns, dweight


def separable_attention(x: Tensor, rows: Tensor, columns: Tensor, weight: Tensor) -> Tensor:
    """Attention whose probabilities are products of row and column probabilities.

    Args:
        x: (N, H, W, C).
        rows: Probabilities (heads, H', H) of the rows of the map for every row of queries.
        columns: Probabilities (heads, W', W).
        weight: Mixing weights (heads, C_out, C).

    Returns:
        (N, H', W', C_out).
    """
    kind = x.device.type
    # shapes alone, as complexity is counted, have no autocast
    if kind != 'meta' and torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        x = x.to(torch.get_autocast_dtype(kind))
    if exporting():
        x = torch.einsum('auh,bhwc->abuwc', rows.to(x.dtype), x)
        x = torch.einsum('avw,abuwc->abuvc', columns.to(x.dtype), x)
        return torch.einsum('abuvc,aoc->buvo', x, weight.to(x.dtype))
    return _Separable.apply(x, *(y.to(x.dtype) for y in (rows, columns, weight)))
