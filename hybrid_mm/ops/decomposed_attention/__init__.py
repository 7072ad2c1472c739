"""Attention with decomposed relative positions: MViTv2's and ViTDet's.

Source: "MViTv2: Improved Multiscale Vision Transformers for Classification and Detection" (arXiv
2112.01526), equation 4. The logit of query (y, x) and key (v, u) is ``scale * q.k + q.r_h[y, v] +
q.r_w[x, u]``; keys may lie on a coarser grid than the queries.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.decomposed_attention.tiled import _tiled
from hybrid_mm.ops.dispatch import chosen_impl
from hybrid_mm.ops.export import exporting
from hybrid_mm.ops.positions import decomposed_logits, decomposed_tables


def decomposed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_h: Tensor,
    rel_w: Tensor,
    *,
    scale: float | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Attention of every pixel to all keys, which may lie on a coarser grid.

    'tiled' computes the logits a few rows of queries at a time, in float32 at least, and again in
    the backward pass, for which it keeps q, k, v and the tables only. 'fused' puts the relative
    terms into further channels of q, and rows and columns of the keys, one-hot, into those of k:
    a fused kernel for plain attention of width d + H_k + W_k does the rest and stores no logits
    either. 'reference' is the published formulation.

    Cost: H W H_k W_k (d + d_v) + H W (H_k + W_k) d multiplications per head and image.

    Args:
        q: Queries, (N, heads, H, W, d).
        k: Keys, (N, heads, H_k, W_k, d).
        v: Values, (N, heads, H_k, W_k, d_v).
        rel_h: Row table, (length, d), as :func:`~hybrid_mm.layers.relative_position.
            decomposed_tables` takes it: of 2 * max(H, H_k) - 1 entries, or interpolated.
        rel_w: Column table, likewise.
        scale: Factor of q.k, by default d^-0.5. Queries of the relative terms are not scaled.
        impl: 'tiled', 'fused' or 'reference'. 'auto' is 'fused' in half precision on a GPU, whose
            kernels for it need one width below 257 of q, k and v; 'tiled' otherwise.

    Returns:
        (N, heads, H, W, d_v).

    Raises:
        ValueError: Unknown impl, or shapes that do not fit.
    """
    impl = chosen_impl(impl, 'decomposed_attention')
    d = q.shape[-1]
    fits = q.ndim == k.ndim == v.ndim == 5 and q.shape[:2] == k.shape[:2]
    if not fits or k.shape[-1] != d or v.shape[:4] != k.shape[:4]:
        raise ValueError(
            'q, k and v must be (N, heads, H, W, d), (N, heads, H_k, W_k, d) and (N, heads, H_k, '
            f'W_k, d_v), got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}'
        )
    if any(table.ndim != 2 or table.shape[1] != d for table in (rel_h, rel_w)):
        raise ValueError(
            f'rel_h and rel_w must be (length, {d}), got {tuple(rel_h.shape)} and '
            f'{tuple(rel_w.shape)}'
        )
    scale = d**-0.5 if scale is None else float(scale)
    # shapes alone, as complexity is counted, have no autocast
    if q.device.type != 'meta' and torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = (x.to(dtype) if x.is_floating_point() else x for x in (q, k, v))
    rel_h, rel_w = (
        decomposed_tables(table, *sides)
        for table, *sides in zip((rel_h, rel_w), q.shape[2:4], k.shape[2:4], strict=True)
    )
    if impl == 'auto':
        flash = q.is_cuda and q.element_size() == 2
        wide = max(d + sum(k.shape[2:4]), v.shape[-1]) > 256
        impl = 'fused' if flash and not wide else 'tiled'
    if impl == 'reference' or exporting():
        return _reference(q, k, v, rel_h, rel_w, scale)
    return (_fused if impl == 'fused' else _tiled)(q, k, v, rel_h, rel_w, scale)


def _reference(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float):
    rows, columns = decomposed_logits(q, rel_h.to(q.dtype), rel_w.to(q.dtype))
    logits = (q.flatten(2, 3) * scale) @ k.flatten(2, 3).transpose(-1, -2)
    bias = rows.unsqueeze(-1) + columns.unsqueeze(-2)
    logits = logits + bias.flatten(4, 5).flatten(2, 3)
    out = logits.softmax(-1).to(v.dtype) @ v.flatten(2, 3)
    return out.unflatten(2, q.shape[2:4])


def _fused(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
    rows, columns = decomposed_logits(q, rel_h.to(q.dtype), rel_w.to(q.dtype))
    height, width = k.shape[2:4]
    row = torch.eye(height, dtype=k.dtype, device=k.device)[:, None].expand(-1, width, -1)
    column = torch.eye(width, dtype=k.dtype, device=k.device)[None].expand(height, -1, -1)
    place = torch.cat([row, column], -1).expand(*k.shape[:2], -1, -1, -1)
    q_wide = torch.cat([q * scale, rows, columns], -1).flatten(2, 3)
    k_wide = torch.cat([k, place], -1).flatten(2, 3)
    # kernels want one width of all three
    extra = q_wide.shape[-1] - v.shape[-1]
    v_wide = F.pad(v, (0, extra)) if extra > 0 else v
    out = F.scaled_dot_product_attention(q_wide, k_wide, v_wide.flatten(2, 3), scale=1.0)
    return out[..., : v.shape[-1]].unflatten(2, q.shape[2:4])
