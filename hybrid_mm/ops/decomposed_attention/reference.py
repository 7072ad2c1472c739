"""Decomposed attention as published: all logits at once, the relative terms added to them."""

from torch import Tensor

from hybrid_mm.ops.positions import decomposed_logits


def attend(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
    """Attention of maps (N, heads, H, W, d); ``rel_h`` is (H, H_k, d), ``rel_w`` (W, W_k, d)."""
    rows, columns = decomposed_logits(q, rel_h.to(q.dtype), rel_w.to(q.dtype))
    logits = (q.flatten(2, 3) * scale) @ k.flatten(2, 3).transpose(-1, -2)
    bias = rows.unsqueeze(-1) + columns.unsqueeze(-2)
    logits = logits + bias.flatten(4, 5).flatten(2, 3)
    out = logits.softmax(-1).to(v.dtype) @ v.flatten(2, 3)
    return out.unflatten(2, q.shape[2:4])
