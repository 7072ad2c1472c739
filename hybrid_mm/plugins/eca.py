"""Efficient channel attention (ECA).

Source: "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks"
(arXiv 1910.03151), equations 9 and 12.
"""

import math

import torch
from torch import Tensor, nn

from hybrid_mm.ops.arguments import odd, positive
from hybrid_mm.plugins.base import Plugin
from hybrid_mm.registry import MODELS


def adaptive_kernel_size(channels: int, gamma: float = 2, beta: float = 1) -> int:
    """Kernel size of equation 12: |log2(C) + beta| / gamma to the next odd number, at least 3."""
    size = int(abs(math.log2(channels) + beta) / gamma)
    return max(size if size % 2 else size + 1, 3)


@MODELS.register_module()
class ECA(Plugin):
    """Channel gate from a convolution along the channels: x * sigmoid(conv1d(mean(x))).

    Args:
        in_channels: Number of channels C.
        kernel_size: Width of the convolution, odd; by default from C, which gives 5 for 256, 512
            and 1024 channels and 7 for 2048. The released ResNet-50 has 3, 5, 5, 7 in its stages.
        gamma: See :func:`adaptive_kernel_size`.
        beta: See :func:`adaptive_kernel_size`.
        init_identity: See :class:`~hybrid_mm.plugins.base.Plugin`.

    Raises:
        ValueError: The kernel size is even.
    """

    _abbr_ = 'eca'

    def __init__(
        self,
        in_channels: int,
        kernel_size: int | None = None,
        gamma: float = 2,
        beta: float = 1,
        init_identity: bool = False,
    ) -> None:
        super().__init__(init_identity=init_identity)
        positive(self, gamma=gamma)
        if kernel_size is None:
            kernel_size = adaptive_kernel_size(in_channels, gamma, beta)
        odd(self, kernel_size=kernel_size)
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Torch's initial values; zeros with ``init_identity``."""
        super().reset_parameters()
        if self.init_identity:
            nn.init.zeros_(self.conv.weight)

    def attend(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y = self.conv(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1)
        return x * (self.gain * torch.sigmoid(y))
