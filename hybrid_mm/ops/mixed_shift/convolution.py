"""The convolution path of ACmix as torch's convolutions, one where that is cheaper."""

import torch
from torch import Tensor

from hybrid_mm.ops.mixed_shift import reference


def mix(x: Tensor, fc: Tensor, bias: Tensor | None, weight: Tensor, stride: int) -> Tensor:
    """Mix maps (N, M, d, H, W) to (N, d * n, H', W'); see the public function."""
    maps = x.transpose(1, 2).flatten(1, 2)
    if bias is None and torch.is_grad_enabled() and _fuses(fc, weight, len(weight) // x.shape[2]):
        product = torch.einsum('opyx,pm->omyx', weight, fc)
        return reference.shift(maps, product, x.shape[2], stride)
    return reference.mix(x, fc, bias, weight, stride)


def _fuses(fc: Tensor, weight: Tensor, outputs: int) -> bool:
    """Whether one convolution with the product of both weights is cheaper in training."""
    (taps, maps), size = fc.shape, weight.shape[2] ** 2
    return size * maps <= taps * size + taps * maps / outputs
