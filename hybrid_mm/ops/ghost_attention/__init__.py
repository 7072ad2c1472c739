"""Attention of ELSA: weights of a window from one map, and separate filters for every channel.

Source: "ELSA: Enhanced Local Self-Attention for Vision Transformer" (arXiv 2112.12786), section
3.3.
"""

from torch import Tensor

from hybrid_mm.ops.dispatch import resolve
from hybrid_mm.ops.export import exporting
from hybrid_mm.ops.ghost_attention import exported, reference, tiled, triton
from hybrid_mm.ops.kernels import available, check_available

__all__ = ['ghost_attention']


def ghost_attention(
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    mul: Tensor | None = None,
    add: Tensor | None = None,
    *,
    heads: int,
    kernel_size: int,
    dilation: int = 1,
    dropout: float = 0.0,
    impl: str = 'auto',
) -> Tensor:
    """Softmax weights of k x k pixels with the ghost head, and the sum of the values there.

    ``A = softmax_t(W gelu(hidden_p) + b)``, ``y[c, p] = sum_t (mul[c, t] A[head(c), t, p] + add[c,
    t]) v[c, p + t]``, v being zero outside of the map; head(c) is c / (C / heads), rounded down.

    'tiled' computes the weights for some rows at a time and again in the backward pass, for which
    it keeps ``hidden`` and ``v`` only; softmax and sums have at least single precision.
    Multiplications per pixel: D k^2 heads / groups + k^2 C, and k^2 C for each of ``mul`` and
    ``add``.

    Args:
        hidden: (N, D, H, W), any strides.
        v: Values (N, C, H, W), any strides.
        weight: W, (heads * k^2, D / groups): a 1x1 convolution of so many groups.
        bias: b, (heads * k^2,).
        mul: Factor of each channel and tap, (C, k, k); None for 1.
        add: Summand of each channel and tap, (C, k, k); None for 0.
        heads: Number of heads.
        kernel_size: k, odd.
        dilation: Distance of the taps.
        dropout: Dropout rate of A; above 0 the weights of all pixels are formed.
        impl: 'tiled', 'triton' (a GPU's; see its docstring) or 'reference', the published
            formulation, which keeps k^2 copies.

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: An unknown impl.
        RuntimeError: 'triton' is asked for, and cannot work here.
    """
    inputs = hidden, v, weight, bias, mul, add
    if exporting() and not dropout:
        return exported.attend(*inputs, heads, kernel_size, dilation)
    impl = resolve(
        impl,
        'ghost_attention',
        lambda: 'triton' if available('ghost_attention', *inputs) else 'tiled',
    )
    if impl == 'reference' or dropout:
        return reference.attend(*inputs, heads, kernel_size, dilation, dropout)
    if impl == 'triton':
        check_available('ghost_attention', *inputs)
        return triton.attend(*inputs, heads, kernel_size, dilation)
    return tiled.attend(*inputs, heads, kernel_size, dilation)
