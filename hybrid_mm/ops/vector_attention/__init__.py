"""Vector attention: weights of a window that differ between groups of channels.

Source: "Exploring Self-attention for Image Recognition" (arXiv 2004.13621), section 3 and its code.
Here are the windows, the weighted sum over their taps, and the steps of the network gamma that
makes weights of queries and keys; what exists for every tap is (N, C, k^2, L), L pixels.
"""

import torch
from torch import Tensor

from hybrid_mm.ops.dispatch import resolve
from hybrid_mm.ops.kernels import available, check_available
from hybrid_mm.ops.precision import cast_as_autocast
from hybrid_mm.ops.vector_attention import product, tiled, triton
from hybrid_mm.ops.vector_attention.window import Window

__all__ = [
    'Window',
    'activated_product',
    'aggregate',
    'algorithm',
    'pointwise',
    'scaled_relu',
    'weighted_taps',
]


def algorithm(impl: str, *tensors: Tensor) -> str:
    """Name of the algorithm that ``impl`` means for queries, keys and values.

    Args:
        impl: 'auto', 'reference', 'tiled' or 'triton'.
        *tensors: Queries, keys and values.

    Raises:
        ValueError: An unknown impl.
        RuntimeError: 'triton' is asked for, and cannot work here.
    """
    impl = resolve(
        impl,
        'vector_attention',
        lambda: 'triton' if available('vector_attention', *tensors) else 'tiled',
    )
    if impl == 'triton':
        check_available('vector_attention', *tensors)
    return impl


def aggregate(
    window: Window, weights: Tensor, values: Tensor, size: torch.Size, impl: str
) -> Tensor:
    """Weighted sum of taps.

    Args:
        window: The windows.
        weights: (N, G, k^2, H' * W').
        values: Padded map (N, C, H, W).
        size: H' and W'.
        impl: 'tiled' or 'triton'.

    Returns:
        (N, C, H', W') of the type of the values.
    """
    aggregate_taps = triton.aggregate_taps if impl == 'triton' else tiled.aggregate_taps
    return aggregate_taps(weights.to(values.dtype).unflatten(3, size), values, *window)


def scaled_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``relu(scale x + shift)`` with a scale and shift for each channel of (N, C, T, L).

    Args:
        x: (N, C, T, L).
        scale: Factor of each channel, (C,).
        shift: What is added to each channel, (C,).
    """
    return torch.addcmul(shift[:, None, None], x.to(scale.dtype), scale[:, None, None]).relu_()


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1x1 convolution of (N, C, T, L) by weights (C', C, 1, 1), as a matrix product.

    Args:
        x: (N, C, T, L).
        weight: (C', C, 1, 1).
        bias: (C',), or None.
    """
    x, weight = cast_as_autocast(x, weight)
    product = torch.matmul(weight.flatten(1), x.flatten(2).to(weight.dtype))
    out = product.unflatten(2, x.shape[2:])
    return out if bias is None else out + bias[:, None, None].to(out.dtype)


def activated_product(
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    impl: str = 'tiled',
) -> Tensor:
    """:func:`pointwise` of :func:`scaled_relu`, with 'triton' in one launch.

    Args:
        x: (N, C, T, L).
        scale: Factor of each channel, (C,).
        shift: What is added to each channel, (C,).
        weight: (C', C, 1, 1).
        bias: (C',), or None.
        impl: 'triton' or another name, which means torch's operators.
    """
    if impl == 'triton':
        return product.activated_product(x, scale, shift, weight, bias)
    return pointwise(scaled_relu(x, scale, shift), weight, bias)


def weighted_taps(weights: Tensor, taps: Tensor) -> Tensor:
    """Sum of weights (N, G, k^2, L) times taps (N, C, k^2, L), step by step, (N, C, L).

    Args:
        weights: (N, G, k^2, L), shared by the C / G channels of a group.
        taps: (N, C, k^2, L).
    """
    weights = weights.to(taps.dtype).unsqueeze(1)
    return (weights * taps.unflatten(1, (-1, weights.shape[2]))).sum(3).flatten(1, 2)
