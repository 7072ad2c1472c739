"""Local attention whose queries are learned, the same for every window (QnA).

Source: "Learned Queries for Efficient Local Attention" (arXiv 2112.11435), section 4.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.dispatch import chosen_impl
from hybrid_mm.ops.grid_convolution import grid_convolution
from hybrid_mm.ops.recompute import recomputed

_LOWEST = -60.0  # exp of less is nothing beside exp(0)


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
    their largest value per image, query and head, which cancels out.

    'tiled': as queries do not depend on the pixel, both sums are depthwise convolutions of
    ``exp(s) v`` and ``exp(s)`` with kernels ``exp(b) c`` and ``exp(b)``; queries take turns, and
    what they compute is computed again in the backward pass, for which scores and values are kept,
    whatever the window. k^2 (C + heads) multiplications per pixel and query. 'reference' gathers
    the windows.

    Args:
        scores: s, products of queries and keys, (N, R, heads, H, W).
        values: v, (N, C, H, W) of the same type.
        bias: b by position in the window, (R, heads, k, k), k odd.
        scale: c by position in the window, may be negative, (R, heads, k, k).
        stride: Distance of the windows.
        impl: 'tiled' or 'reference'.

    Returns:
        (N, C, ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: An unknown impl.
    """
    # exported graphs have the convolutions, too, which are torch's there
    plain = chosen_impl(impl, 'learned_query_attention') == 'reference'
    read = _gathered if plain else _convolved
    scores = scores - scores.detach().amax((-2, -1), keepdim=True)
    scores = scores.clamp(min=_LOWEST)
    total = read(scores[:, 0], values, bias[0], scale[0], stride)
    for r in range(1, len(bias)):
        total = total + read(scores[:, r], values, bias[r], scale[r], stride)
    return total


def _convolved(scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor, stride: int) -> Tensor:
    """What a query reads, by convolutions: scores (N, heads, H, W), values (N, C, H, W)."""
    return recomputed(_read, scores, values, bias, scale, stride)


def _read(scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor, stride: int) -> Tensor:
    heads = scores.shape[1]
    width = values.shape[1] // heads
    weights, kernel = scores.exp(), bias.exp()
    above = (values.unflatten(1, (heads, -1)) * weights.unsqueeze(2)).flatten(1, 2)
    above = _convolve(above, (kernel * scale).repeat_interleave(width, 0), stride)
    below = _convolve(weights, kernel, stride)
    return (above.unflatten(1, (heads, -1)) / below.unsqueeze(2)).flatten(1, 2)


def _convolve(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    """Depthwise convolution of (N, C, H, W) with kernels (C, k, k)."""
    size = kernel.shape[-1]
    if stride == 1:
        return grid_convolution(x, kernel, (1,) * size)
    return F.conv2d(x, kernel.unsqueeze(1), None, stride, size // 2, groups=len(kernel))


def _gathered(scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor, stride: int) -> Tensor:
    """What a query reads, by softmax over gathered windows, then weights by position."""
    (n, channels, height, _), heads, size = values.shape, scores.shape[1], bias.shape[-1]
    half = (size // 2,) * 4
    logits = _windows(F.pad(scores, half, value=-math.inf), size, stride)
    weights = (logits + bias.flatten(1)[None, :, :, None]).softmax(2)
    weights = weights * scale.flatten(1)[None, :, :, None]
    taken = _windows(F.pad(values, half), size, stride).unflatten(1, (heads, -1))
    out = torch.einsum('ngdwp,ngwp->ngdp', taken, weights)
    return out.reshape(n, channels, (height - 1) // stride + 1, -1)


def _windows(x: Tensor, size: int, stride: int) -> Tensor:
    """Windows of a padded map, (N, C, H, W) to (N, C, size^2, pixels)."""
    x = x.unfold(2, size, stride).unfold(3, size, stride)
    return x.flatten(4).flatten(2, 3).transpose(2, 3)
