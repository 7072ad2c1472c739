"""Local attention whose queries are learned, the same for every window (QnA).

Source: "Learned Queries for Efficient Local Attention" (arXiv 2112.11435), section 4.
"""

from torch import Tensor

from hybrid_mm.ops.dispatch import chosen_impl
from hybrid_mm.ops.export import exporting
from hybrid_mm.ops.kernels import available, check_available
from hybrid_mm.ops.learned_queries import reference, tiled, triton
from hybrid_mm.ops.precision import accurate

__all__ = ['learned_query_attention']


def learned_query_attention(
    scores: Tensor,
    values: Tensor,
    bias: Tensor,
    scale: Tensor,
    *,
    stride: int = 1,
    impl: str = 'auto',
) -> Tensor:
    """Let a few queries read every window, and add up what they read (eq. 6 to 8).

    ``out[p] = sum_r (sum_j exp(s_rj + b_rj) c_rj v_j) / (sum_j exp(s_rj + b_rj))`` over queries r
    and pixels j of the k x k window around p that lie inside of the map. Scores are shifted by
    their largest value per image, query and head ('triton': per window), which cancels out.

    'tiled': as queries do not depend on the pixel, both sums are depthwise convolutions of
    ``exp(s) v`` and ``exp(s)`` with kernels ``exp(b) c`` and ``exp(b)``; queries take turns, and
    what they compute is computed again in the backward pass, for which scores and values are kept,
    whatever the window. k^2 (C + heads) multiplications per pixel and query. 'reference' gathers
    the windows. 'triton' reads scores and values once for all queries.

    Args:
        scores: s, products of queries and keys, (N, R, heads, H, W).
        values: v, (N, C, H, W).
        bias: b by position in the window, (R, heads, k, k), k odd.
        scale: c by position in the window, may be negative, (R, heads, k, k).
        stride: Distance of the windows.
        impl: 'tiled', 'triton' (on a GPU) or 'reference'.

    Returns:
        (N, C, ceil(H / stride), ceil(W / stride)) of the type of the values; sums have that of the
        scores, or single precision at least.

    Raises:
        ValueError: An unknown impl.
        RuntimeError: 'triton' is asked for, and cannot work here.
    """
    # exported graphs have the convolutions, too, which are torch's there
    impl = chosen_impl(impl, 'learned_query_attention')
    inputs = scores, values, bias, scale
    if impl == 'auto':
        kernels = not exporting() and available('learned_query_attention', *inputs)
        impl = 'triton' if kernels else 'tiled'
    if impl == 'triton':
        check_available('learned_query_attention', *inputs)
        return triton.attend(*inputs, stride)
    algorithm = reference if impl == 'reference' else tiled
    scores = accurate(scores)
    others = (x.to(scores.dtype) for x in (values, bias, scale))
    return algorithm.attend(scores, *others, stride).to(values.dtype)
