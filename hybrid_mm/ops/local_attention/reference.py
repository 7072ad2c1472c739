"""The plain algorithm behind :mod:`hybrid_mm.ops.local_attention`: gather every query's keys."""

import torch
from torch import Tensor

from hybrid_mm.ops.local_attention.axes import Axis


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    scale: float,
    rows: Axis,
    columns: Axis,
) -> Tensor:
    """Output (N, h, H', W', d_v): (N, h, H', W', taps) logits, taps times the map of keys."""
    dtype = torch.float32 if q.dtype in (torch.half, torch.bfloat16) else q.dtype
    n, heads = q.shape[:2]
    (row, row_ok, row_rel), (column, column_ok, column_rel) = (
        [torch.from_numpy(x).to(q.device) for x in axis.taps()] for axis in (rows, columns)
    )
    height, width = rows.queries, columns.queries
    taps = row.shape[1] * column.shape[1]

    def gather(x: Tensor) -> Tensor:
        x = x[:, :, row.clamp(min=0)][:, :, :, :, column.clamp(min=0)]
        inside = (row >= 0)[:, :, None, None] & (column >= 0)
        x = torch.where(inside[..., None], x, 0.0)
        return x.permute(0, 1, 2, 4, 3, 5, 6).reshape(n, heads, height, width, taps, -1)

    exact = q.to(dtype)
    logits = torch.einsum('nhyxd,nhyxtd->nhyxt', exact, gather(k).to(dtype)) * scale
    logits = logits.unflatten(-1, (row.shape[1], column.shape[1]))
    if rel_h is not None:
        index = (row_rel + (rel_h.shape[1] - 1) // 2).clamp(0, rel_h.shape[1] - 1)
        table = rel_h.to(dtype)[:, index].expand(heads, -1, -1, -1)
        logits = logits + torch.einsum('nhyxd,hyad->nhyxa', exact, table)[..., None]
    if rel_w is not None:
        index = (column_rel + (rel_w.shape[1] - 1) // 2).clamp(0, rel_w.shape[1] - 1)
        table = rel_w.to(dtype)[:, index].expand(heads, -1, -1, -1)
        logits = logits + torch.einsum('nhyxd,hxbd->nhyxb', exact, table)[..., None, :]
    if bias is not None:
        i = (row_rel + (bias.shape[1] - 1) // 2).clamp(0, bias.shape[1] - 1)
        j = (column_rel + (bias.shape[2] - 1) // 2).clamp(0, bias.shape[2] - 1)
        logits = logits + bias.to(dtype)[:, i[:, None, :, None], j[None, :, None, :]]
    seen = row_ok[:, None, :, None] & column_ok[None, :, None, :]
    logits = logits.masked_fill(~seen, float('-inf'))
    p = logits.flatten(-2).softmax(-1).to(q.dtype)
    return torch.einsum('nhyxt,nhyxtd->nhyxd', p, gather(v))
