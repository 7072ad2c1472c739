"""Evolving attention: the formulas of the paper one after the other."""

import torch
import torch.nn.functional as F
from torch import Tensor

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
    logits = torch.einsum('nhyxd,nhvud->nhyxvu', q, k)
    if rel_h is not None and rel_w is not None:
        columns = relative_to_absolute(torch.einsum('nhyxd,ud->nhyxu', q, rel_w.to(q.dtype)))
        rows = torch.einsum('nhyxd,vd->nhxyv', q, rel_h.to(q.dtype))
        rows = relative_to_absolute(rows).transpose(2, 3)
        logits = logits + rows[..., None] + columns[..., None, :]
    logits = logits.flatten(4, 5).flatten(2, 3)
    if previous is not None and weight is not None:
        mixed = (1 - beta) * logits + beta * previous
        convolved = F.relu(F.conv2d(mixed, weight, bias, padding=1))
        logits = alpha * convolved + (1 - alpha) * mixed
    return logits.softmax(-1) @ v.flatten(2, 3), logits
