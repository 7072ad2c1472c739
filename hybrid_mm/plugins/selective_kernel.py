"""Selective kernel convolution (SK).

Source: "Selective Kernel Networks" (arXiv 1903.06586), equations 1 to 6, and timm's implementation.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.heads import make_divisible
from hybrid_mm.ops.arguments import odd, positive
from hybrid_mm.plugins.base import (
    SpatialOperator,
    apply_norm,
)
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class SelectiveKernel(SpatialOperator):
    """Sum of convolutions of several kernel sizes, weighted per channel by a gate from their mean.

    It replaces convolution, norm and ReLU: every branch has its own, and the sum is non-negative,
    so that a ReLU after it changes nothing.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; by default the same.
        kernel_size: 3, of the replaced convolution.
        stride: Stride of all branches.
        padding: Padding of the replaced convolution.
        dilation: Dilation of all branches.
        groups: Groups of the convolutions (32 in SKNet-50).
        bias: Must be False.
        kernel_sizes: One branch for each, odd and at least 3.
        dilated: Use 3x3 kernels with dilation for larger ones, e.g. dilation 2 for 5x5.
        ratio: The hidden width is out_channels / ratio, rounded to a multiple of ``divisor``.
        divisor: See ``ratio``.
        min_channels: Smallest hidden width: 32 in the paper, ``divisor`` in timm.
        hidden_channels: The hidden width itself, instead of these three.
        split_input: Give each branch a part of the input channels (an option of timm).
        norm_cfg: Norm of the branches and of the hidden layer.

    Raises:
        ValueError: A kernel size is below 3 or even, or channels cannot be split.
    """

    replaces_norm = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        kernel_sizes: Sequence[int] = (3, 5),
        dilated: bool = True,
        ratio: float = 16,
        divisor: int = 8,
        min_channels: int = 32,
        hidden_channels: int | None = None,
        split_input: bool = False,
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__(kernel_size, padding, dilation, bias, norm_cfg)
        positive(self, ratio=ratio)
        odd(self, kernel_sizes=kernel_sizes)
        positive(self, **{'kernel size - 2': [size - 2 for size in kernel_sizes]})
        out_channels = out_channels or in_channels
        branches = len(kernel_sizes)
        if split_input and in_channels % branches:
            raise ValueError(
                f'SelectiveKernel: {in_channels} channels cannot be split into {branches} branches'
            )
        self.split_input = split_input
        inputs = in_channels // branches if split_input else in_channels
        self.paths = nn.ModuleList()
        for size in kernel_sizes:
            d = dilation * (size // 2) if dilated else dilation
            k = 3 if dilated else size
            conv = nn.Conv2d(
                inputs, out_channels, k, stride, d * (k // 2), d, groups=groups, bias=False
            )
            norm = self.build_norm(out_channels)
            self.paths.append(nn.ModuleDict(OrderedDict(conv=conv, norm=norm)))
        hidden = hidden_channels or max(make_divisible(out_channels / ratio, divisor), min_channels)
        self.reduce = nn.Conv2d(out_channels, hidden, 1, bias=False)
        self.norm = self.build_norm(hidden)
        self.select = nn.Conv2d(hidden, branches * out_channels, 1, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation for the convolutions of the branches, torch's values for the rest."""
        super().reset_parameters()
        for path in self.paths:
            nn.init.kaiming_normal_(path['conv'].weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        n = len(self.paths)
        inputs = x.chunk(n, dim=1) if self.split_input else [x] * n
        maps = [
            F.relu(path['norm'](path['conv'](part)))
            for path, part in zip(self.paths, inputs, strict=True)
        ]
        z = sum(u.mean((2, 3), keepdim=True) for u in maps)
        z = self.select(F.relu(apply_norm(self.norm, self.reduce(z))))
        weights = torch.softmax(z.unflatten(1, (n, -1)), dim=1)
        return sum(u * a for u, a in zip(maps, weights.unbind(1), strict=True))
