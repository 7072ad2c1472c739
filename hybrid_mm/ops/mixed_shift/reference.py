"""The convolution path of ACmix as published: a 1x1 convolution of the maps, then a grouped one."""

import torch.nn.functional as F
from torch import Tensor


def mix(x: Tensor, fc: Tensor, bias: Tensor | None, weight: Tensor, stride: int) -> Tensor:
    """Mix maps (N, M, d, H, W) to (N, d * n, H', W'); see the public function."""
    n, maps, dim, height, width = x.shape
    x = F.conv2d(x.transpose(1, 2).reshape(n * dim, maps, height, width), fc[..., None, None], bias)
    return shift(x.reshape(n, dim * len(fc), height, width), weight, dim, stride)


def shift(x: Tensor, weight: Tensor, dim: int, stride: int) -> Tensor:
    """Grouped convolution of maps (N, d * inputs, H, W) with weights (d * n, inputs, k, k)."""
    return F.conv2d(x, weight, None, stride, weight.shape[2] // 2, groups=dim)
