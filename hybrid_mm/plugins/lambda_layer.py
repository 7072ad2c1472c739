"""Lambda layer instead of a 3x3 convolution; see :mod:`hybrid_mm.ops.lambda_attention`."""

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.heads import make_divisible
from hybrid_mm.ops.arguments import odd, positive
from hybrid_mm.ops.fusing import is_plain
from hybrid_mm.ops.lambda_attention import apply_lambdas, lambda_attention
from hybrid_mm.plugins.base import SpatialOperator
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class LambdaLayer(SpatialOperator):
    """Lambda convolution with global content and local position lambdas (arXiv 2102.08602).

    Memory is H W key_channels out_channels / num_heads numbers per image: use it at strides 16 and
    32. Queries and values are normalised, so the norm after the convolution is removed.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, a multiple of ``num_heads``; by default the same.
        kernel_size: 3, of the replaced convolution.
        stride: 1, or 2 with a mean over 2x2 positions at the end.
        padding: Padding of the replaced convolution.
        dilation: Dilation of the position lambdas.
        groups: Must be 1.
        bias: Must be False.
        num_heads: Heads of the queries; all share keys and values.
        key_channels: Channels K of a query and a key; if None, ``qk_ratio * out_channels`` rounded
            to a multiple of 8, divided by ``num_heads``.
        qk_ratio: See ``key_channels``.
        window: Size of the local context, odd, one number or (rows, columns).
        position_bias: Bias of the position lambdas.
        qkv_bias: Bias of the projection.
        norm_cfg: Norm of queries and values.

    Raises:
        ValueError: The window is even, channels are not a multiple of the heads, or there are
            groups.
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
        num_heads: int = 4,
        key_channels: int | None = 16,
        qk_ratio: float = 1.0,
        window: int | tuple[int, int] = 9,
        position_bias: bool = True,
        qkv_bias: bool = False,
        norm_cfg: dict | None = None,
    ) -> None:
        super().__init__(kernel_size, padding, dilation, bias, norm_cfg)
        out_channels = out_channels or in_channels
        if stride not in (1, 2):
            raise ValueError(f'LambdaLayer: stride must be 1 or 2, got {stride}')
        self.must_be('groups', groups, 1)
        positive(self, num_heads=num_heads)
        if out_channels % num_heads:
            raise ValueError(
                f'LambdaLayer: {out_channels} channels are not a multiple of {num_heads} heads'
            )
        size = (window,) * 2 if isinstance(window, int) else tuple(window)
        odd(self, window=size)
        if key_channels is None:
            key_channels = make_divisible(out_channels * qk_ratio) // num_heads
        self.stride, self.dilation = stride, dilation
        self.widths = (num_heads * key_channels, key_channels, out_channels // num_heads)
        self.qkv = nn.Conv2d(in_channels, sum(self.widths), 1, bias=qkv_bias)
        self.norm_q = self.build_norm(self.widths[0])
        self.norm_v = self.build_norm(self.widths[2])
        self.position = nn.Conv2d(
            1,
            key_channels,
            size,
            padding=[dilation * (side // 2) for side in size],
            dilation=dilation,
            bias=position_bias,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal initial values, of variance 1 / fan-in for the projection and 1 / K."""
        super().reset_parameters()
        nn.init.trunc_normal_(self.qkv.weight, std=self.qkv.in_channels**-0.5)
        nn.init.trunc_normal_(self.position.weight, std=self.widths[1] ** -0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        q, k, v = self.qkv(x).split(self.widths, dim=1)
        q, v = self.norm_q(q), self.norm_v(v)
        if is_plain(self.position):
            position = self.position.weight, self.position.bias, self.dilation
            out = lambda_attention(q, k, v, *position)
        else:
            lambdas = self.position(v.reshape(-1, 1, *v.shape[2:]))
            out = apply_lambdas(q, k, v, lambdas.unflatten(0, (len(v), -1)))
        if self.stride == 2:
            # pooling windows at the border of odd sizes are cut: sizes are those of a convolution
            out = F.avg_pool2d(out, 2, ceil_mode=True, count_include_pad=False)
        return out
