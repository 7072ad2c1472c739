"""Gate over positions from maximum and mean over channels, for CBAM and triplet attention."""

import torch
from torch import Tensor, nn

from hybrid_mm.plugins.base import apply_norm


class SpatialGate(nn.Module):
    """sigmoid(norm(conv([max over C, mean over C]))) of (N, C, H, W), as (N, 1, H, W).

    Args:
        kernel_size: Kernel size of the convolution, odd.
        norm: Norm of one channel.
        gain: Factor of the gate.
    """

    def __init__(self, kernel_size: int, norm: nn.Module, gain: float = 1.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel_size, padding=kernel_size // 2, bias=False)
        self.norm = norm
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, 1, H, W)."""
        pooled = torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), dim=1)
        return self.gain * torch.sigmoid(apply_norm(self.norm, self.conv(pooled)))
