"""Deformable convolution."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.export import exporting
from hybrid_mm.ops.precision import accurate, no_autocast


class DeformConv2d(nn.Module):
    """Deformable 3x3 convolution without modulation whose offsets come from its own input.

    Args:
        channels: Channels of input and output.
        groups: Groups of the convolution; all share the offsets.
        stride: Stride.
    """

    @sized_arguments
    def __init__(self, channels: int, groups: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.groups, self.stride, self.padding, self.dilation = groups, stride, 1, 1
        self.conv_offset = nn.Conv2d(channels, 18, 3, stride, padding=1)
        for parameter in self.conv_offset.parameters():
            nn.init.zeros_(parameter)
        self.weight = nn.Parameter(torch.empty(channels, channels // groups, 3, 3))
        nn.init.kaiming_normal_(self.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        offset = self.conv_offset(x)
        with no_autocast(x):
            # half precision is too coarse for coordinates
            weight = accurate(self.weight)
            x, offset = x.to(weight.dtype), offset.to(weight.dtype)
            if exporting():
                out = self._sampled(x, offset, weight)
            else:
                from torchvision.ops import deform_conv2d  # its import cannot be traced

                # at NaN, which a diverged network gives, torchvision's CPU kernel reads beyond the
                # map and ends the process; infinitely far away is outside, as zeros
                lost = offset.isnan().any(1, keepdim=True)
                offset = offset.nan_to_num(math.inf, math.inf, -math.inf)
                out = deform_conv2d(x, offset, weight, None, self.stride, self.padding)
                out = out.masked_fill(lost, math.nan)
            return out.to(self.weight.dtype)

    def _sampled(self, x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
        """The same by bilinear sampling of every tap, for exporters, which lack the operator."""
        height, width = x.shape[2:]
        rows, columns = offset.shape[2:]
        y = torch.arange(rows, device=x.device, dtype=x.dtype)[:, None] * self.stride
        left = torch.arange(columns, device=x.device, dtype=x.dtype) * self.stride
        taps = []
        for tap in range(9):
            tap_y = y + (tap // 3 - self.padding) + offset[:, 2 * tap]
            tap_x = left + (tap % 3 - self.padding) + offset[:, 2 * tap + 1]
            # align_corners=False: the centre of pixel i is at (2 i + 1) / length - 1
            grid = torch.stack([(2 * tap_x + 1) / width - 1, (2 * tap_y + 1) / height - 1], -1)
            taps.append(F.grid_sample(x, grid, align_corners=False))
        weight = weight.flatten(1)[:, :, None, None]
        return F.conv2d(torch.stack(taps, 2).flatten(1, 2), weight, groups=self.groups)
