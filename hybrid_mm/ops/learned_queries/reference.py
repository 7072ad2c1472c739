"""What a learned query reads, by softmax over windows that are gathered."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

_LOWEST = -60.0  # exp of less is nothing beside exp(0)


def attend(scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor, stride: int) -> Tensor:
    """What all queries read; see the public function."""
    return in_turns(read, scores, values, bias, scale, stride)


def in_turns(
    read: Callable[..., Tensor],
    scores: Tensor,
    values: Tensor,
    bias: Tensor,
    scale: Tensor,
    stride: int,
) -> Tensor:
    """Sum of what queries read, one after the other, from shifted scores."""
    scores = scores - scores.detach().amax((-2, -1), keepdim=True)
    scores = scores.clamp(min=_LOWEST)
    total = read(scores[:, 0], values, bias[0], scale[0], stride)
    for r in range(1, len(bias)):
        total = total + read(scores[:, r], values, bias[r], scale[r], stride)
    return total


def read(scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor, stride: int) -> Tensor:
    """Map scores (N, heads, H, W) and values (N, C, H, W) of a query; see the public function."""
    (n, channels, height, width), heads, size = values.shape, scores.shape[1], bias.shape[-1]
    half = (size // 2,) * 4
    logits = _windows(F.pad(scores, half, value=-math.inf), size, stride)
    weights = (logits + bias.flatten(1)[None, :, :, None]).softmax(2)
    weights = weights * scale.flatten(1)[None, :, :, None]
    taken = _windows(F.pad(values, half), size, stride).unflatten(1, (heads, -1))
    out = torch.einsum('ngdwp,ngwp->ngdp', taken, weights)
    return out.reshape(n, channels, (height - 1) // stride + 1, (width - 1) // stride + 1)


def _windows(x: Tensor, size: int, stride: int) -> Tensor:
    """Windows of a padded map, (N, C, H, W) to (N, C, size^2, pixels)."""
    x = x.unfold(2, size, stride).unfold(3, size, stride)
    return x.flatten(4).flatten(2, 3).transpose(2, 3)
