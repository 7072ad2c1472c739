"""ACmix: one set of projections feeds self-attention and a convolution, and both are added.

Source: "On the Integration of Self-Attention and Convolution" (arXiv 2111.14556), section 4 and
its code, which the checkpoints follow where it differs from the text.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hybrid_mm.layers.attention.window_attention import WindowAttention
from hybrid_mm.layers.convolution.mixed_shift_conv import MixedShift
from hybrid_mm.layers.heads import merge_heads
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.mirrored_attention import mirrored_attention
from hybrid_mm.ops.positions import encode_coordinates


class ACmix2d(nn.Module):
    """ACmix in place of a convolution (form of ResNet).

    ``rate1 * attention + rate2 * convolution`` with rates that are learnt from 0.5 each. Attention
    goes to the window around a pixel, mirrored at the border; its logit for the key at p + t is
    ``d^-0.5 q_p.(k_{p+t} + e_p - e_{p+t})``, e being a 1x1 convolution of the pixel's coordinates
    in -1..1. Multiplications per pixel: 3 C_in C + 2 k^2 C for attention, see :class:`MixedShift`
    for the rest. Kept for the backward pass: six maps of C channels.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels C of the output.
        kernel_att: Window of the attention, odd.
        heads: Number of heads; d = C / heads.
        kernel_conv: Kernel of the convolution, odd.
        stride: Stride; attention of every ``stride``-th query.
        dilation: Distance of the pixels of a window.
        impl: 'auto', 'tiled', or 'reference', the published formulation, see
            :func:`~hybrid_mm.ops.mirrored_attention.mirrored_attention`.

    Raises:
        ValueError: Heads that do not divide C, an even window or kernel, an unknown impl.
    """

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_att: int = 7,
        heads: int = 4,
        kernel_conv: int = 3,
        stride: int = 1,
        dilation: int = 1,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'local_attention', 'mixed_shift')
        if heads < 1 or out_channels % heads:
            raise ValueError(f'heads must divide the {out_channels} output channels, got {heads}')
        if kernel_att % 2 == 0:
            raise ValueError(f'kernel_att must be odd, got {kernel_att}')
        self.heads, self.dim = heads, out_channels // heads
        self.kernel_att, self.stride, self.dilation, self.impl = kernel_att, stride, dilation, impl
        # output channel (j, which of q, k, v, head): what the convolution path reads side by side
        self.qkv = nn.Conv2d(in_channels, 3 * out_channels, 1)
        self.position = nn.Conv2d(2, self.dim, 1)
        self.mix = MixedShift(3 * heads, self.dim, heads, kernel_conv, stride, impl=impl)
        self.rate1 = nn.Parameter(torch.full((1,), 0.5))
        self.rate2 = nn.Parameter(torch.full((1,), 0.5))

    def he_init(self, shift: bool = True) -> None:
        """He's initial values of a ResNet, by fan-out; queries, keys and values on their own.

        Args:
            shift: Leave the kernels of the convolution path shifts.
        """
        nn.init.normal_(self.qkv.weight, std=(2 / (self.heads * self.dim)) ** 0.5)
        layers = [self.position, self.mix.fc, *(() if shift else [self.mix.dep_conv])]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        n, _, height, width = x.shape
        maps = self.qkv(x).view(n, self.dim, 3, self.heads, height, width)
        q, k, v = maps.permute(2, 0, 3, 4, 5, 1)
        position = encode_coordinates(self.position, height, width).permute(1, 2, 0)
        q = q[:, :, :: self.stride, :: self.stride]
        attention = mirrored_attention(
            q,
            k,
            v,
            position,
            self.kernel_att,
            stride=self.stride,
            dilation=self.dilation,
            impl=self.impl,
        )
        conv = self.mix(maps.flatten(2, 3).transpose(1, 2), self.rate2)
        return torch.addcmul(conv, merge_heads(attention), self.rate1.to(conv.dtype))

    def extra_repr(self) -> str:
        """Window and heads, for printing."""
        return f'kernel_att={self.kernel_att}, heads={self.heads}, stride={self.stride}'


class ACmixWindowAttention(WindowAttention):
    """ACmix in place of Swin's window attention (form of Swin).

    ``rate1 * projection(attention) + rate2 * convolution``. The convolution path reads queries,
    keys and values of the whole map, rolled in a shifted block: it convolves over the seam and sees
    zeros at the border of the rolled map, as the published weights do.

    Args:
        dim: Channels C.
        window: Pixels of a window on each side.
        heads: Heads of the attention.
        *arguments: The other arguments of ``WindowAttention``, in its order.
        **kwargs: The same by name.
    """

    @sized_arguments
    def __init__(self, dim: int, window: int, heads: int, *arguments: Any, **kwargs: Any) -> None:
        super().__init__(dim, window, heads, *arguments, **kwargs)
        self.mix = MixedShift(3 * heads, self.width, heads, bias=True, impl=self.impl)
        self.rate1 = nn.Parameter(torch.full((1,), 0.5))
        self.rate2 = nn.Parameter(torch.full((1,), 0.5))

    def combine(self, attention: Tensor, maps: Tensor) -> Tensor:
        """Weighted sum of attention and the convolution path."""
        conv = self.mix(maps.flatten(3, 4).permute(0, 3, 4, 1, 2), self.rate2)
        return torch.addcmul(conv.permute(0, 2, 3, 1), attention, self.rate1.to(conv.dtype))
