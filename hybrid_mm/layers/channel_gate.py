"""Channel gates inside a block: squeeze-and-excitation (arXiv 1709.01507), ECA (1910.03151)."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.heads import make_divisible
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.arguments import positive


class SqueezeExcite(nn.Module):
    """x * sigmoid(W2 act(W1 mean(x))).

    Args:
        channels: Number of channels C.
        ratio: The hidden width is C / ratio, rounded to a multiple of 8.
        hidden_channels: The hidden width itself, in place of a ratio.
        act: Activation of the hidden layer.
    """

    @sized_arguments
    def __init__(
        self,
        channels: int,
        ratio: float = 16,
        hidden_channels: int | None = None,
        act: Callable[[Tensor], Tensor] = F.relu,
    ) -> None:
        super().__init__()
        positive(self, ratio=ratio)
        hidden = hidden_channels or make_divisible(channels / ratio, round_limit=0.0)
        self.act = act
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        hidden = self.act(self.fc1(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.fc2(hidden))


class EfficientChannelGate(nn.Module):
    """x * sigmoid(conv1d(mean(x))), the convolution running along the channels.

    Its width is ``|log2(C) + 1| / 2`` to the next odd number, at least 3 (equation 12 of ECA).

    Args:
        channels: Number of channels C.
    """

    @sized_arguments
    def __init__(self, channels: int) -> None:
        super().__init__()
        size = int(abs(math.log2(channels) + 1) / 2)
        size = max(size if size % 2 else size + 1, 3)
        self.conv = nn.Conv1d(1, 1, size, padding=size // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        gate = self.conv(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1)
        return x * torch.sigmoid(gate)
