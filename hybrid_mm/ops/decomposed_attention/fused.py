"""Decomposed attention by a fused kernel for plain attention.

The relative terms become further channels of q, and the row and column of a key, one-hot, those of
k: their product adds the terms to the logits.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.compat.torch_api import eye
from hybrid_mm.ops.positions import decomposed_logits

_WIDEST = 256  # channels that torch's kernels for half precision take


def is_fused(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether torch has a kernel that forms no logits: on a GPU, in half precision."""
    width = max(q.shape[-1] + sum(k.shape[2:4]), v.shape[-1])
    return q.is_cuda and q.element_size() == 2 and width <= _WIDEST


def attend(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
    """Attention of maps (N, heads, H, W, d); ``rel_h`` is (H, H_k, d), ``rel_w`` (W, W_k, d)."""
    rows, columns = decomposed_logits(q, rel_h.to(q.dtype), rel_w.to(q.dtype))
    height, width = k.shape[2:4]
    row = eye(height, dtype=k.dtype, device=k.device)[:, None].expand(-1, width, -1)
    column = eye(width, dtype=k.dtype, device=k.device)[None].expand(height, -1, -1)
    place = torch.cat([row, column], -1).expand(*k.shape[:2], -1, -1, -1)
    q_wide = torch.cat([q * scale, rows, columns], -1).flatten(2, 3)
    k_wide = torch.cat([k, place], -1).flatten(2, 3)
    # fused kernels require equal widths of q, k and v
    extra = q_wide.shape[-1] - v.shape[-1]
    v_wide = F.pad(v, (0, extra)) if extra > 0 else v
    out = F.scaled_dot_product_attention(q_wide, k_wide, v_wide.flatten(2, 3), scale=1.0)
    return out[..., : v.shape[-1]].unflatten(2, q.shape[2:4])
