"""What learned queries read, by convolutions, one query after the other."""

import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.grid_convolution import grid_convolution
from hybrid_mm.ops.learned_queries.reference import in_turns
from hybrid_mm.ops.recompute import recomputed


def attend(scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor, stride: int) -> Tensor:
    """What all queries read; see the public function."""
    return in_turns(read, scores, values, bias, scale, stride)


def read(scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor, stride: int) -> Tensor:
    """Map scores (N, heads, H, W) and values (N, C, H, W) of a query; see the public function."""
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
