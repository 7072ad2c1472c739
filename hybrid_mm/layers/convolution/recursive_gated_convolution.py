"""Recursive gated convolution and the global filter of HorNet."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hybrid_mm.layers.convolution.depthwise import DepthwiseConv2d
from hybrid_mm.layers.norm import LayerNorm2d
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.fitted_weights import SizedTables
from hybrid_mm.ops.fusing import is_plain
from hybrid_mm.ops.global_filter import global_filter, resize_spectrum
from hybrid_mm.ops.precision import no_autocast

_EPS = 1e-6


def pointwise(x: Tensor, conv: nn.Conv2d, channels_last: bool = False) -> Tensor:
    """1 x 1 convolution as a matrix product, into a contiguous or channels-last map.

    The input may have any strides: the map that a layer norm returns needs no copy.

    Args:
        x: (N, C, H, W).
        conv: The convolution, with a bias.
        channels_last: Layout of the result (N, C', H, W).
    """
    if not is_plain(conv):
        y = conv(x)
        return y.contiguous(memory_format=torch.channels_last) if channels_last else y.contiguous()
    weight, bias = conv.weight.flatten(1), conv.bias
    if bias is None:
        raise ValueError(f'a convolution with a bias is needed, got {conv}')
    weight, bias, pixels = weight.expand(x.shape[0], -1, -1), bias.to(x.dtype), x.flatten(2)
    if channels_last:
        y = torch.baddbmm(bias, pixels.transpose(1, 2), weight.transpose(1, 2))
        return y.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
    return torch.baddbmm(bias[:, None], weight, pixels).unflatten(2, x.shape[2:])


class GlobalLocalFilter(SizedTables):
    """Half of the channels through a 3 x 3 kernel, half through a filter of the whole map.

    Source: HorNet (arXiv 2207.14284), section 3.2, after "Global Filter Networks" (arXiv
    2107.00645): the spectrum of a map times learned weights, which are interpolated to the size of
    the spectrum. The transform runs in float32 (float64 for such maps), also under autocast.

    Args:
        channels: Even number of channels C.
        size: Rows and columns of the learned spectrum; it has H rows and W // 2 + 1 columns where
            nothing is interpolated.

    Raises:
        ValueError: An odd number of channels.
    """

    tables = ('spectrum',)

    @sized_arguments
    def __init__(self, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        if channels % 2:
            raise ValueError(f'the global filter halves the channels: {channels} is odd')
        half = channels // 2
        self.norm1 = LayerNorm2d(channels, eps=_EPS)
        self.conv = DepthwiseConv2d(half, 3, bias=False)
        self.spectrum = nn.Parameter(torch.empty(half, *size, 2))
        self.norm2 = LayerNorm2d(channels, eps=_EPS)
        nn.init.trunc_normal_(self.spectrum, std=0.02)

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Interpolate bilinearly."""
        return resize_spectrum(table, (shape[1], shape[2]))

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        """Map (N, C, H, W) to the same shape; the result is multiplied by ``factor``."""
        local, spectral = self.norm1(x).chunk(2, 1)
        with no_autocast(x):
            spectral = global_filter(spectral, self.spectrum)
        y = torch.stack((self.conv(local), spectral.to(local.dtype)), 2).flatten(1, 2)
        y = self.norm2(y, factor)
        # autocast leaves it in float32, and on GPUs the products of maps that follow would be, too
        return y.to(x.dtype) if x.is_cuda else y


class RecursiveGatedConv(nn.Module):
    """Recursive gated convolution g^nConv: interactions of order n between positions.

    Source: HorNet (arXiv 2207.14284), equations 3.2 to 3.5. ``x_0 = p_0 * q_0`` and
    ``x_{k+1} = g_k(x_k) * q_{k+1}``, with p_0 and the depthwise convolved q_k from one projection,
    of C / 2^(n-1-k) channels. A 1 x 1 convolution g_k doubles the channels. For a map of M pixels
    this multiplies ``M (2 C C + sum_k C_k C_{k+1} + C C')`` times besides the depthwise kernel of 2
    C channels.

    Args:
        in_channels: Channels of the input.
        channels: Channels C in between; 2^(order - 1) divides them.
        out_channels: Channels C' of the result, or None for no projection.
        order: Order n, the number of gated products; each has twice the channels of the one before.
        kernel_size: Odd size of the depthwise kernel.
        scale: What the result of the kernel is multiplied by.
        filter_size: Size of the :class:`GlobalLocalFilter` that replaces the kernel, or None.

    Raises:
        ValueError: Channels that the order does not divide, or an even kernel.
    """

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        channels: int,
        out_channels: int | None,
        order: int = 5,
        kernel_size: int = 7,
        scale: float = 1.0,
        filter_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        if channels % 2 ** (order - 1):
            raise ValueError(
                f'order {order} needs channels that {2 ** (order - 1)} divides, '
                f'got {channels} channels'
            )
        self.scale = scale
        self.widths = [channels // 2**k for k in reversed(range(order))]
        self.proj_in = nn.Conv2d(in_channels, self.widths[0] + sum(self.widths), 1)
        if filter_size is None:
            self.dwconv: nn.Module = DepthwiseConv2d(sum(self.widths), kernel_size)
        else:
            self.dwconv = GlobalLocalFilter(sum(self.widths), filter_size)
        self.gates = nn.ModuleList(
            nn.Conv2d(a, b, 1) for a, b in zip(self.widths, self.widths[1:], strict=False)
        )
        self.proj_out = None if out_channels is None else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C', H, W), or C channels without a projection."""
        first, context = pointwise(x, self.proj_in).split([self.widths[0], sum(self.widths)], dim=1)
        first_context, *contexts = self.dwconv(context, self.scale).split(self.widths, dim=1)
        x = first * first_context
        for gate, context in zip(self.gates, contexts, strict=True):
            x = pointwise(x, cast(nn.Conv2d, gate)) * context
        if self.proj_out is None:
            return x
        # what follows is a residual connection between layer norms
        return pointwise(x, self.proj_out, channels_last=True)
