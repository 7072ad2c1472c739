"""ELSA's ghost head as published: the filters of every channel and pixel, times unfolded values."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    mul: Tensor | None,
    add: Tensor | None,
    heads: int,
    kernel_size: int,
    dilation: int,
    dropout: float = 0.0,
) -> Tensor:
    """Attention of maps (N, D, H, W) to values (N, C, H, W); see the public function."""
    logits = _logits(hidden, weight, bias)
    return weighted_values(logits, v, mul, add, heads, kernel_size, dilation, dropout)


def attend_padded(
    hidden: Tensor,
    padded: Tensor,
    weight: Tensor,
    bias: Tensor,
    mul: Tensor | None,
    add: Tensor | None,
    heads: int,
    kernel_size: int,
    dilation: int,
    dropout: float = 0.0,
) -> Tensor:
    """The same for values that are padded by the reach of the window."""
    logits = _logits(hidden, weight, bias)
    return _weighted_padded(logits, padded, mul, add, heads, kernel_size, dilation, dropout)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    groups = hidden.shape[1] // weight.shape[1]
    return F.conv2d(F.gelu(hidden), weight[..., None, None], bias, groups=groups)


def weighted_values(
    logits: Tensor,
    v: Tensor,
    mul: Tensor | None,
    add: Tensor | None,
    heads: int,
    kernel_size: int,
    dilation: int,
    dropout: float = 0.0,
) -> Tensor:
    """Sums (N, C, H, W) of values with given logits (N, heads * k^2, H, W)."""
    padded = F.pad(v, (kernel_size // 2 * dilation,) * 4)
    return _weighted_padded(logits, padded, mul, add, heads, kernel_size, dilation, dropout)


def _weighted_padded(
    logits: Tensor,
    padded: Tensor,
    mul: Tensor | None,
    add: Tensor | None,
    heads: int,
    kernel_size: int,
    dilation: int,
    dropout: float,
) -> Tensor:
    n, channels = padded.shape[:2]
    taps, size = kernel_size**2, logits.shape[2:]
    logits = logits.flatten(2)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    weights = logits.unflatten(1, (heads, -1)).softmax(2, dtype=dtype)
    filters = F.dropout(weights, dropout).unsqueeze(2)  # (N, heads, 1, k^2, H W)
    if mul is not None:
        filters = filters * mul.reshape(1, heads, -1, taps, 1)
    if add is not None:
        filters = filters + add.reshape(1, heads, -1, taps, 1)
    values = F.unfold(padded, kernel_size, dilation).to(dtype)
    values = values.view(n, heads, channels // heads, taps, values.shape[2])
    out = (filters * values).sum(3).view(n, channels, *size)
    return out.to(padded.dtype)
