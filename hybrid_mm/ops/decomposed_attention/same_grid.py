"""Decomposed attention with keys on the grid of the queries, by the kernels of local attention.

There it is attention of every pixel to all with relative tables, in the order of key minus query.
"""

from torch import Tensor

from hybrid_mm.ops.local_attention import fused, global_attention, launches
from hybrid_mm.ops.positions import resize_decomposed_table

_SMALL = 16**2  # pixels of a map up to which tiles in C are faster


def fits(q: Tensor, k: Tensor) -> bool:
    """Whether the kernels have this case."""
    return q.shape[2:4] == k.shape[2:4]


def available(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor) -> bool:
    """Whether 'auto' may take the kernels for GPUs."""
    return fits(q, k) and launches.available(q, k, v, rel_h, rel_w)


def is_compiled(q: Tensor, k: Tensor) -> bool:
    """Whether 'auto' takes the tiles in C: 1.4 to 1.6 times as fast as 'tiled' at 14 x 14."""
    return fused.is_available(q) and fits(q, k) and q.shape[2] * q.shape[3] <= _SMALL


def attend(
    q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float, impl: str
) -> Tensor:
    """Attention of maps (N, heads, H, W, d) with tables (length, d), 'triton' or 'compiled'."""
    if impl == 'triton':
        launches.check_available('decomposed_attention', q, k, v, rel_h, rel_w)
    rel_h, rel_w = (
        resize_decomposed_table(table, 2 * side - 1).flip(0)[None]
        for table, side in ((rel_h, q.shape[2]), (rel_w, q.shape[3]))
    )
    impl = 'triton' if impl == 'triton' else 'tiled'
    return global_attention(q, k, v, scale=scale, rel_h=rel_h, rel_w=rel_w, impl=impl)
