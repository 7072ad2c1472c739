"""Attention-augmented convolution.

Source: "Attention Augmented Convolutional Networks" (arXiv 1904.09925), sections 3.1 to 3.3 and the
code of its appendix.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.heads import merge_heads, split_heads
from hybrid_mm.layers.relative_position import RelativePosition2d
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.export import has_symbols
from hybrid_mm.ops.local_attention import global_attention


class AAConv2d(nn.Module):
    """Convolution and global self-attention side by side, their channels concatenated.

    The first ``out_channels - value_channels`` channels are a convolution of the input, the others
    multi-head attention of every pixel to all, with the logit of equation 2,
    ``(q.k + q.r_h[dy] + q.r_w[dx]) / sqrt(d)`` with d = key_channels / heads, and a 1x1 convolution
    after it. Attention costs (H W)^2 (key_channels + value_channels) multiplications; the (H W)^2
    logits are never kept.

    Where the paper is silent: the stride of the layer is also that of the 1x1 convolution that
    makes queries, keys and values. With ``attn_downsample`` (the paper's memory saver) this branch
    sees the input after 3x3 average pooling of stride 2, in which padding does not count, and its
    result is resized bilinearly without aligned corners.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Kernel size of the convolution, odd.
        key_channels: Channels of the queries and of the keys, all heads together (d_k).
        value_channels: Channels of the attention branch, all heads together (d_v).
        heads: Number of heads; it divides both.
        size: Rows and columns of the map under attention that the relative tables are made for;
            None leaves the relative term out. Maps of other sizes are possible, see
            :class:`~hybrid_mm.layers.relative_position.RelativePosition2d`.
        stride: Stride.
        dilation: Dilation of the convolution.
        bias: Give the three convolutions a bias.
        attn_downsample: Run attention at half the resolution.
        impl: Algorithm, see :mod:`hybrid_mm.ops.local_attention`.

    Raises:
        ValueError: An even kernel size, heads that do not divide the channels, or an attention
            branch that leaves no channel to the convolution.
    """

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        *,
        key_channels: int,
        value_channels: int,
        heads: int,
        size: tuple[int, int] | None = None,
        stride: int = 1,
        dilation: int = 1,
        bias: bool = True,
        attn_downsample: bool = False,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'local_attention')
        if kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd, got {kernel_size}')
        if heads < 1 or key_channels % heads or value_channels % heads:
            raise ValueError(
                f'heads must divide key_channels and value_channels, got {heads} heads for '
                f'{key_channels} and {value_channels} channels'
            )
        if not 0 < value_channels < out_channels or key_channels < 1:
            raise ValueError(
                f'attention must give some of the {out_channels} output channels and leave some to '
                f'the convolution, got value_channels {value_channels}, key_channels {key_channels}'
            )
        self.heads = heads
        self.widths = (key_channels, key_channels, value_channels)
        self.attn_downsample = attn_downsample
        self.impl = impl
        self.conv_out = nn.Conv2d(
            in_channels,
            out_channels - value_channels,
            kernel_size,
            stride,
            dilation * (kernel_size // 2),
            dilation,
            bias=bias,
        )
        self.qkv_conv = nn.Conv2d(in_channels, sum(self.widths), 1, stride, bias=bias)
        self.attn_out = nn.Conv2d(value_channels, value_channels, 1, bias=bias)
        dim = key_channels // heads
        self.relative = None if size is None else RelativePosition2d(size, dim)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Scaled queries, keys and values (N, heads, H', W', d), and tables rel_h and rel_w."""
        qkv = self.qkv_conv(x)
        q, k, v = (split_heads(part, self.heads) for part in qkv.split(self.widths, dim=1))
        rel_h = rel_w = None
        if self.relative is not None:
            rel_h, rel_w = self.relative(*q.shape[2:4])
        # the relative term is scaled as well
        return q * q.shape[-1] ** -0.5, k, v, rel_h, rel_w

    def attention(self, x: Tensor) -> Tensor:
        """Attention branch (N, in_channels, H, W) -> (N, value_channels, H', W')."""
        q, k, v, rel_h, rel_w = self.project(x)
        out = global_attention(q, k, v, scale=1.0, rel_h=rel_h, rel_w=rel_w, impl=self.impl)
        return self.attn_out(merge_heads(out))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        conv = self.conv_out(x)
        if self.attn_downsample:
            x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        attn = self.attention(x)
        sizes = attn.shape[-2:], conv.shape[-2:]
        differ = self.attn_downsample if has_symbols(sizes[1]) else sizes[0] != sizes[1]
        if differ:
            attn = F.interpolate(attn, conv.shape[-2:], mode='bilinear', align_corners=False)
        return torch.cat([conv, attn], dim=1)
