"""The definition of :mod:`hybrid_mm.ops.local_attention`: gather the keys of every query."""

import torch
from torch import Tensor

from hybrid_mm.ops.device_tables import on_device
from hybrid_mm.ops.local_attention.axes import Axis
from hybrid_mm.ops.local_attention.pattern import Pattern, Tables
from hybrid_mm.ops.precision import accurate


def forward(
    q: Tensor, k: Tensor, v: Tensor, tables: Tables, scale: float, pattern: Pattern
) -> Tensor:
    """Output (N, h, H', W', d_v): (N, h, H', W', taps) logits, taps times the map of keys."""
    n, heads = q.shape[:2]
    rows, columns = pattern.axes(k.shape[2], k.shape[3])
    # indices of the keys of every query along an axis, which of them it sees, and their offsets
    (row, row_seen, row_offset), (column, column_seen, column_offset) = (
        on_device(Axis.taps, axis, device=q.device) for axis in (rows, columns)
    )
    height, width = rows.queries, columns.queries
    taps = row.shape[1] * column.shape[1]

    def gather(x: Tensor) -> Tensor:
        x = x[:, :, row.clamp(min=0)][:, :, :, :, column.clamp(min=0)]
        inside = (row >= 0)[:, :, None, None] & (column >= 0)
        x = torch.where(inside[..., None], x, 0.0)
        return x.permute(0, 1, 2, 4, 3, 5, 6).reshape(n, heads, height, width, taps, x.shape[-1])

    exact = accurate(q)
    logits = torch.einsum('nhyxd,nhyxtd->nhyxt', exact, gather(k).to(exact.dtype)) * scale
    logits = logits.unflatten(-1, (row.shape[1], column.shape[1]))
    if tables.rel_h is not None:
        table = tables.rel_h.to(exact.dtype)[:, _entry(row_offset, tables.rel_h.shape[1])]
        term = torch.einsum('nhyxd,hyad->nhyxa', exact, table.expand(heads, -1, -1, -1))
        logits = logits + term[..., None]
    if tables.rel_w is not None:
        table = tables.rel_w.to(exact.dtype)[:, _entry(column_offset, tables.rel_w.shape[1])]
        term = torch.einsum('nhyxd,hxbd->nhyxb', exact, table.expand(heads, -1, -1, -1))
        logits = logits + term[..., None, :]
    if tables.bias is not None:
        i = _entry(row_offset, tables.bias.shape[1])[:, None, :, None]
        j = _entry(column_offset, tables.bias.shape[2])[None, :, None, :]
        logits = logits + tables.bias.to(exact.dtype)[:, i, j]
    seen = row_seen[:, None, :, None] & column_seen[None, :, None, :]
    logits = logits.masked_fill(~seen, float('-inf'))
    p = logits.flatten(-2).softmax(-1).to(q.dtype)
    return torch.einsum('nhyxt,nhyxtd->nhyxd', p, gather(v))


def _entry(offset: Tensor, length: int) -> Tensor:
    """Entry of a table of odd length, whose middle is offset 0; what is not seen reads any."""
    return (offset + (length - 1) // 2).clamp(0, length - 1)
