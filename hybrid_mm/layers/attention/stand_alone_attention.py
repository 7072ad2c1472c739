"""Local self-attention in place of convolutions, in the body and in the stem of a network.

Source: "Stand-Alone Self-Attention in Vision Models" (arXiv 1906.05909), sections 2.2
and 3, and appendix A.1.
"""

from collections import OrderedDict
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.heads import laid_out, merge_heads, split_heads
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.export import ceil_div
from hybrid_mm.ops.fusing import without_hooks
from hybrid_mm.ops.local_attention import block_attention, local_attention
from hybrid_mm.ops.positions import joined_tables


class Projection(nn.Module):
    """1x1 convolution without bias that keeps its initial values (He, fan-out).

    It is not an ``nn.Conv2d``, because detection heads reset every one of these inside them to
    N(0, 0.01) for their 3x3 kernels: four layers of attention would then shrink the signal to
    nothing.
    """

    @sized_arguments
    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 1, 1))
        nn.init.kaiming_normal_(self.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H, W)."""
        return F.conv2d(x, self.weight)


def _head_width(out_channels: int, heads: int) -> int:
    if heads < 1 or out_channels % heads:
        raise ValueError(f'heads must divide the {out_channels} output channels, got {heads}')
    return out_channels // heads


class LocalSelfAttention2d(nn.Module):
    """Attention of every pixel to the window around it (equations 2 and 3).

    ``y_i = sum_j softmax_j(q_i.k_j + q_i.[r_h[dy], r_w[dx]]) v_j``: the row vector is multiplied
    with the first half of a head's channels, the column vector with the second half. With a stride,
    attention runs at full resolution and its result is average-pooled in ``stride x stride`` cells,
    of which those at the border may be smaller. Attention costs 2 k^2 C H W multiplications.

    Where the paper is silent: logits are not scaled, the tables are shared by the heads and start
    as N(0, 1 / sqrt(d)), and pixels beyond the border are zeros that contribute to the softmax.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels C of the output.
        kernel_size: Window k, odd.
        heads: Number of heads; d = C / heads is even.
        stride: Stride.
        dilation: Distance of the pixels of a window.
        share_rel: One pair of tables for all heads.
        border: 'zero' as above, or 'mask' to leave pixels beyond the border out.
        scale: Factor of the logits, content and position alike.
        impl: Algorithm, see :mod:`hybrid_mm.ops.local_attention`.

    Raises:
        ValueError: An even window, heads that do not divide C into even widths, an unknown border.
    """

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 7,
        heads: int = 8,
        stride: int = 1,
        dilation: int = 1,
        share_rel: bool = True,
        border: Literal['zero', 'mask'] = 'zero',
        scale: float = 1.0,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'local_attention')
        dim = _head_width(out_channels, heads)
        if dim % 2:
            raise ValueError(
                f'the width of a head must be even, half for rows and half for columns; got {dim} '
                f'({out_channels} channels, {heads} heads)'
            )
        if kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd, got {kernel_size}')
        if border not in ('zero', 'mask'):
            raise ValueError(f"border must be 'zero' or 'mask', got {border!r}")
        self.kernel_size, self.heads = kernel_size, heads
        self.stride, self.dilation = stride, dilation
        self.border, self.scale, self.impl = border, scale, impl
        self.query_conv = Projection(in_channels, out_channels)
        self.key_conv = Projection(in_channels, out_channels)
        self.value_conv = Projection(in_channels, out_channels)
        shape = (1 if share_rel else heads, kernel_size, dim // 2)
        self.rel_h = nn.Parameter(torch.empty(shape))
        self.rel_w = nn.Parameter(torch.empty(shape))
        nn.init.normal_(self.rel_h, std=dim**-0.5)
        nn.init.normal_(self.rel_w, std=dim**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        x = laid_out(x)
        q, k, v = (
            split_heads(conv(x), self.heads)
            for conv in (self.query_conv, self.key_conv, self.value_conv)
        )
        rel_h, rel_w = joined_tables(self.rel_h, self.rel_w)
        if self.scale != 1:
            q = q * self.scale
        out = local_attention(
            q,
            k,
            v,
            self.kernel_size,
            dilation=self.dilation,
            border=self.border,
            scale=1.0,
            rel_h=rel_h,
            rel_w=rel_w,
            impl=self.impl,
        )
        out = merge_heads(out)
        if self.stride > 1:
            out = F.avg_pool2d(
                out, self.stride, self.stride, ceil_mode=True, count_include_pad=False
            )
        return out


class AttentionStem(nn.Module):
    """Attention within the blocks of an image, with values that depend on the position (eq. 4).

    Queries and keys are 1x1 convolutions. The value of a pixel at (a, c) of its block is a mixture
    ``sum_m p(a, c, m) W_m x`` of several 1x1 convolutions, with weights
    ``p(a, c, .) = softmax_m((emb_row[a] + emb_col[c]).emb_mix[m])`` that all heads share. Blocks
    that reach over the border see their pixels within the image.

    Where the paper is silent: logits are not scaled and have no relative term, there are four value
    transforms, and the embeddings start as N(0, 1 / sqrt(d)). Its stem has 4 heads (appendix A.1).

    Args:
        in_channels: Channels of the image.
        out_channels: Channels C of the output.
        block: Pixels of a block on each side.
        heads: Number of heads; d = C / heads.
        mixtures: Number of value transforms.
        impl: Algorithm, see :mod:`hybrid_mm.ops.local_attention`.

    Raises:
        ValueError: Heads that do not divide C.
    """

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        block: int = 4,
        heads: int = 4,
        mixtures: int = 4,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'local_attention')
        dim = _head_width(out_channels, heads)
        self.block, self.heads, self.impl = block, heads, impl
        self.query_conv = Projection(in_channels, out_channels)
        self.key_conv = Projection(in_channels, out_channels)
        self.value_conv = nn.ModuleList(
            Projection(in_channels, out_channels) for _ in range(mixtures)
        )
        self.emb_row = nn.Parameter(torch.empty(block, dim))
        self.emb_col = nn.Parameter(torch.empty(block, dim))
        self.emb_mix = nn.Parameter(torch.empty(mixtures, dim))
        for embedding in (self.emb_row, self.emb_col, self.emb_mix):
            nn.init.normal_(embedding, std=dim**-0.5)

    def values(self, x: Tensor) -> Tensor:
        """Position-dependent values (N, C, H, W) of an image.

        The image is weighted before the transforms rather than their outputs after them: it has far
        fewer channels, and all transforms become one convolution.
        """
        position = self.emb_row[:, None] + self.emb_col
        p = (position @ self.emb_mix.T).softmax(-1).permute(2, 0, 1).to(x.dtype)
        height, width = x.shape[-2:]
        repeats = (ceil_div(side, self.block) for side in (height, width))
        p = p.repeat(1, *repeats)[:, :height, :width]
        if not all(type(conv) is Projection and without_hooks(conv) for conv in self.value_conv):
            return torch.stack([p[m] * conv(x) for m, conv in enumerate(self.value_conv)]).sum(0)
        # not `get_parameter`, which refuses the plain tensors of `functional_call`
        weights = [cast(nn.Conv2d, conv).weight for conv in self.value_conv]
        return F.conv2d((p[:, None] * x[:, None]).flatten(1, 2), torch.cat(weights, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, H, W)."""
        q, k, v = (
            split_heads(y, self.heads)
            for y in (self.query_conv(x), self.key_conv(x), self.values(x))
        )
        return merge_heads(
            block_attention(q, k, v, self.block, 0, border='mask', scale=1.0, impl=self.impl)
        )


class PooledAttentionStem(nn.Sequential):
    """Attention within the blocks of an image, norm, ReLU, and max pooling of each block.

    The stem of section 3.2, in place of a 7x7 convolution and max pooling: it maps
    (N, in_channels, H, W) to (N, C, ceil(H / block), ceil(W / block)). That a ReLU follows the norm
    is ours: the paper names attention, norm and pooling.

    Args:
        in_channels: Channels of the image.
        norm: Norm of the output's channels C.
        **attention: Arguments of :class:`AttentionStem`, ``out_channels`` among them.

    Raises:
        ValueError: Heads that do not divide C.
    """

    def __init__(self, in_channels: int, norm: nn.Module, **attention: Any) -> None:
        attn = AttentionStem(in_channels, **attention)
        pool = nn.MaxPool2d(attn.block, ceil_mode=True)
        super().__init__(OrderedDict(attn=attn, norm=norm, act=nn.ReLU(inplace=True), pool=pool))
