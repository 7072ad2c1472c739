"""Evolving attention: the formulas of the paper one after the other."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.export import exporting
from hybrid_mm.ops.local_attention.exported import whole_logits
from hybrid_mm.ops.local_attention.pattern import Tables
from hybrid_mm.ops.positions import relative_to_absolute


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
    logits = logits_of(q, k, rel_h, rel_w)
    if previous is not None and weight is not None:
        logits = evolved(
            logits, previous, lambda x: F.conv2d(x, weight, bias, padding=1), alpha, beta
        )
    return logits.softmax(-1) @ v.flatten(2, 3), logits


def logits_of(q: Tensor, k: Tensor, rel_h: Tensor | None, rel_w: Tensor | None) -> Tensor:
    """Logits (N, heads, T, T) of a layer by itself."""
    if exporting():
        tables = (None, None) if rel_h is None or rel_w is None else (rel_h[None], rel_w[None])
        return whole_logits(q, k, Tables(None, *tables))
    logits = torch.einsum('nhyxd,nhvud->nhyxvu', q, k)
    if rel_h is not None and rel_w is not None:
        columns = relative_to_absolute(torch.einsum('nhyxd,ud->nhyxu', q, rel_w.to(q.dtype)))
        rows = torch.einsum('nhyxd,vd->nhxyv', q, rel_h.to(q.dtype))
        rows = relative_to_absolute(rows).transpose(2, 3)
        logits = logits + rows[..., None] + columns[..., None, :]
    return logits.flatten(4, 5).flatten(2, 3)


def evolved(
    logits: Tensor,
    previous: Tensor,
    convolve: Callable[[Tensor], Tensor],
    alpha: float,
    beta: float,
) -> Tensor:
    """Logits mixed with those of the layer before, and convolved."""
    mixed = (1 - beta) * logits + beta * previous
    return alpha * F.relu(convolve(mixed)) + (1 - alpha) * mixed
