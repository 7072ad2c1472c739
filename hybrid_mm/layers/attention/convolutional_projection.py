"""Attention whose queries, keys and values come from depthwise convolutions.

Source: "CvT: Introducing Convolutions to Vision Transformers" (arXiv 2103.15808), section 3.2 and
equation 3, and its code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.folded_norm import Conv2dNorm
from hybrid_mm.ops.argument_types import sized_arguments

METHODS = ('dw_bn', 'avg', 'linear')


class ConvolutionalProjectionAttention(nn.Module):
    """Attention of every pixel to a map of keys and values at a lower resolution.

    Queries, keys and values each have a depthwise convolution with batch norm before their linear
    layer; that of keys and values has a stride s. No position encoding. The scale of the logits is
    C^-0.5, by the whole width: the paper writes the width of a head, its code and weights do not.

    Costs 2 C (H W)^2 / s^2 multiplications besides the projections. The attention weights are
    neither kept nor, where torch has a fused kernel, ever stored.

    Args:
        dim: Channels C.
        heads: Number of heads.
        method: 'dw_bn'; 'avg' pools the map of keys and values instead and leaves that of the
            queries; 'linear' leaves all three.
        kernel_size: Of convolution or pooling, odd.
        kv_stride: s, the stride of keys and values.
        qkv_bias: Biases of the projections to queries, keys and values.

    Raises:
        ValueError: Heads that do not divide C, unknown method, even kernel.
    """

    @sized_arguments
    def __init__(
        self,
        dim: int,
        heads: int,
        method: str = 'dw_bn',
        kernel_size: int = 3,
        kv_stride: int = 2,
        qkv_bias: bool = True,
    ) -> None:
        super().__init__()
        if heads < 1 or dim % heads:
            raise ValueError(f'heads must divide the {dim} channels, got {heads}')
        if method not in METHODS:
            raise ValueError(f'method must be one of {", ".join(METHODS)}, got {method!r}')
        if kernel_size < 1 or kernel_size % 2 == 0 or kv_stride < 1:
            raise ValueError(
                'kernel_size must be odd and kv_stride positive, so that maps keep their size; got '
                f'kernel_size {kernel_size}, kv_stride {kv_stride}'
            )
        self.heads, self.method, self.scale = heads, method, dim**-0.5
        self.kernel_size, self.kv_stride = kernel_size, kv_stride
        if method == 'dw_bn':
            self.conv_q = Conv2dNorm(dim, dim, kernel_size, groups=dim)
            self.conv_k = Conv2dNorm(dim, dim, kernel_size, kv_stride, groups=dim)
            self.conv_v = Conv2dNorm(dim, dim, kernel_size, kv_stride, groups=dim)
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.k = nn.Linear(dim, dim, bias=qkv_bias)
        self.v = nn.Linear(dim, dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (N, L, C) to the same shape.

        Args:
            x: H W tokens row by row; a class token may come before them, which attends and is
                attended to, but takes no part in the convolutions.
            size: (H, W).
        """
        extra = x.shape[1] - size[0] * size[1]
        tokens = self._project(x[:, extra:].unflatten(1, size))
        if extra:
            tokens = [torch.cat([x[:, :extra].to(t), t], 1) for t in tokens]
        q, k, v = (
            layer(t).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, t in zip((self.q, self.k, self.v), tokens, strict=True)
        )
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.proj(y.transpose(1, 2).flatten(2))

    def _project(self, x: Tensor) -> list[Tensor]:
        """Tokens of queries, keys and values from a map (N, H, W, C), before their linear layers.

        The strides of channels-last maps are kept: with one image, a map made of transposed tokens
        gives wrong gradients in torch's batch norm on the CPU.
        """
        x = x.permute(0, 3, 1, 2)
        if self.method == 'dw_bn':
            maps = [conv(x) for conv in (self.conv_q, self.conv_k, self.conv_v)]
        elif self.method == 'avg':
            kernel = self.kernel_size
            pooled = F.avg_pool2d(x, kernel, self.kv_stride, kernel // 2, ceil_mode=True)
            maps = [x, pooled, pooled]
        else:
            maps = [x] * 3
        return [m.permute(0, 2, 3, 1).flatten(1, 2) for m in maps]
