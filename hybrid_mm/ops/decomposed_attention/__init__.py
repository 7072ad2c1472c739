"""Attention with decomposed relative positions: MViTv2's and ViTDet's.

Source: "MViTv2: Improved Multiscale Vision Transformers for Classification and Detection" (arXiv
2112.01526), equation 4. The logit of query (y, x) and key (v, u) is ``scale * q.k + q.r_h[y, v] +
q.r_w[x, u]``; keys may lie on a coarser grid than the queries.
"""

from torch import Tensor

from hybrid_mm.ops.decomposed_attention import fused, reference, same_grid, tiled
from hybrid_mm.ops.dispatch import resolve
from hybrid_mm.ops.positions import decomposed_tables
from hybrid_mm.ops.precision import cast_as_autocast

__all__ = ['decomposed_attention']

_ALGORITHMS = {'tiled': tiled.attend, 'fused': fused.attend, 'reference': reference.attend}


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
    either. 'triton' is :func:`~hybrid_mm.ops.local_attention.global_attention`, for keys on the
    grid of the queries. 'reference' is the published formulation.

    Cost: H W H_k W_k (d + d_v) + H W (H_k + W_k) d multiplications per head and image.

    Args:
        q: Queries, (N, heads, H, W, d).
        k: Keys, (N, heads, H_k, W_k, d).
        v: Values, (N, heads, H_k, W_k, d_v).
        rel_h: Row table, (length, d), as :func:`~hybrid_mm.ops.positions.decomposed_tables` takes
            it: of 2 * max(H, H_k) - 1 entries, or interpolated.
        rel_w: Column table, likewise.
        scale: Factor of q.k, by default d^-0.5. Queries of the relative terms are not scaled.
        impl: 'tiled', 'fused', 'triton' or 'reference'. On a GPU 'auto' is 'triton' where keys
            lie on the grid of the queries, else, in half precision, 'fused', whose kernels need one
            width below 257 of q, k and v; 'tiled' otherwise. On a CPU with a C compiler 'auto'
            takes the tiles in C of local attention for keys on the grid of up to 16 x 16 queries.

    Returns:
        (N, heads, H, W, d_v).

    Raises:
        ValueError: Unknown impl, or shapes that do not fit.
        RuntimeError: 'triton' on a CPU, or with keys on a coarser grid.
    """
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
    q, k, v = cast_as_autocast(q, k, v)
    asked = impl
    impl = resolve(impl, 'decomposed_attention', lambda: _fastest(q, k, v, rel_h, rel_w))
    if impl in ('triton', 'compiled'):
        if same_grid.fits(q, k):
            return same_grid.attend(q, k, v, rel_h, rel_w, scale, impl)
        if asked == 'triton':
            raise RuntimeError(
                f"impl='triton' needs keys on the grid of the queries, got {tuple(q.shape[2:4])} "
                f"queries and {tuple(k.shape[2:4])} keys; use impl='auto'"
            )
        impl = _fastest(q, k, v, rel_h, rel_w)
    rel_h = decomposed_tables(rel_h, q.shape[2], k.shape[2])
    rel_w = decomposed_tables(rel_w, q.shape[3], k.shape[3])
    return _ALGORITHMS[impl](q, k, v, rel_h, rel_w, scale)


def _fastest(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> str:
    """What 'auto' takes; 'compiled' has no name for users."""
    if same_grid.available(q, k, v, rel_h, rel_w):
        return 'triton'
    if same_grid.is_compiled(q, k):
        return 'compiled'
    return 'fused' if fused.is_fused(q, k, v) else 'tiled'
