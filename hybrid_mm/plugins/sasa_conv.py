"""Stand-alone self-attention as a layer type for the ``conv_cfg`` of necks and heads."""

from typing import Any

import torch
from torch import Tensor, nn

from hybrid_mm.layers import LocalSelfAttention2d
from hybrid_mm.registry import MODELS


def _single(value: int | tuple[int, ...], name: str) -> int:
    values = {value} if isinstance(value, int) else set(value)
    if len(values) != 1:
        raise ValueError(f'SASAConv2d takes the same {name} in both directions, got {value}')
    return values.pop()


@MODELS.register_module()
class SASAConv2d(LocalSelfAttention2d):
    """Local self-attention instead of the convolutions of a neck or head of OpenMMLab.

    ``neck=dict(type='FPN', conv_cfg=dict(type='hybrid_mm.SASAConv2d'), ...)`` replaces its 3x3
    convolutions by attention, and likewise in a head (arXiv 1906.05909, section 4.2). 1x1
    convolutions (the laterals of FPN) stay: for these the class returns an ``nn.Conv2d``.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Kernel size of the replaced convolution.
        stride: Its stride.
        padding: Its padding; it must keep the size, dilation * (kernel_size // 2).
        dilation: Its dilation, used for the window.
        groups: Must be 1.
        bias: Add a learned bias to the output.
        window: Window of the attention.
        heads: Number of heads.
        **attention: Further arguments of :class:`~hybrid_mm.layers.LocalSelfAttention2d`.

    Raises:
        ValueError: There are groups, the padding changes the size, or sizes differ in rows and
            columns.
    """

    transposed = False
    output_padding = (0, 0)

    def __new__(
        cls, in_channels: int, out_channels: int, kernel_size: int, *args: Any, **kwargs: Any
    ) -> nn.Module:
        """Return a plain convolution for a 1x1 kernel."""
        if _single(kernel_size, 'kernel_size') > 1:
            return super().__new__(cls)
        names = ('stride', 'padding', 'dilation', 'groups', 'bias')
        kwargs = {name: kwargs[name] for name in names if name in kwargs}
        return nn.Conv2d(in_channels, out_channels, kernel_size, *args, **kwargs)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        window: int = 7,
        heads: int = 8,
        **attention: Any,
    ) -> None:
        kernel_size, dilation = _single(kernel_size, 'kernel_size'), _single(dilation, 'dilation')
        same = dilation * (kernel_size // 2)
        if groups != 1 or _single(padding, 'padding') != same:
            raise ValueError(
                f'SASAConv2d replaces convolutions with groups 1 and padding {same} (kernel '
                f'{kernel_size}, dilation {dilation}), got groups {groups}, padding {padding}'
            )
        stride = _single(stride, 'stride')
        super().__init__(in_channels, out_channels, window, heads, stride, dilation, **attention)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.padding = dilation * (window // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        out = super().forward(x)
        return out if self.bias is None else out + self.bias[:, None, None]
