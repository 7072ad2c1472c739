"""NAT, DiNAT and DiNAT_s: pyramids of (dilated) neighborhood attention.

Status: complete; checked number by number against the authors' detection code with their CPU
kernels.

Sources: "Neighborhood Attention Transformer" (arXiv 2204.07143) and "Dilated Neighborhood Attention
Transformer" (arXiv 2209.15001).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Arch, Ratio, Size, StageSizes
from hybrid_mm.backbones.frames.base import SharedArguments
from hybrid_mm.backbones.frames.blocks import Stage
from hybrid_mm.backbones.frames.swin import Swin, SwinArch
from hybrid_mm.backbones.frames.token_pyramid import MLP, TokenPyramid
from hybrid_mm.layers.attention.neighborhood_attention import NeighborhoodAttention2d
from hybrid_mm.layers.drop import DropPath
from hybrid_mm.ops.arguments import divides, left_out, odd
from hybrid_mm.registry import MODELS


class ConvTokenizer(nn.Module):
    """Two 3x3 convolutions of stride 2, then layer norm.

    Args:
        in_channels: Channels of the image.
        channels: Channels C of the output.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels // 2, 3, 2, 1)
        self.conv2 = nn.Conv2d(channels // 2, channels, 3, 2, 1)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, ceil(H / 4), ceil(W / 4), C)."""
        return self.norm(self.conv2(self.conv1(x)).permute(0, 2, 3, 1))


class ConvDownsampler(nn.Module):
    """3x3 convolution of stride 2 to twice the channels, then layer norm.

    Args:
        channels: Channels C of the input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, 2, 1, bias=False)
        self.norm = nn.LayerNorm(2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, ceil(H / 2), ceil(W / 2), 2 C)."""
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class NATBlock(nn.Module):
    """Neighborhood attention and feed-forward network, each after a layer norm.

    Args:
        channels: Number of channels C.
        attn: Maps (N, H, W, C) to the same shape.
        mlp_ratio: Hidden width of the feed-forward network as a multiple of C.
        drop_path: Drop-path rate of both branches.
        layer_scale: Initial value of the layer scales, or None for none.
    """

    def __init__(
        self,
        channels: int,
        attn: nn.Module,
        mlp_ratio: float,
        drop_path: float,
        layer_scale: float | None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = attn
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.gamma1 = self.gamma2 = None
        if layer_scale is not None:
            self.gamma1 = nn.Parameter(torch.full((channels,), float(layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(layer_scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same shape."""
        y = self.attn(self.norm1(x))
        x = x + self.drop_path(y if self.gamma1 is None else self.gamma1 * y)
        y = self.mlp(self.norm2(x))
        return x + self.drop_path(y if self.gamma2 is None else self.gamma2 * y)


@dataclass(frozen=True, kw_only=True)
class NATArch(Arch):
    """Variant of a NAT."""

    embed_dim: Size  # channels of the first stage, doubled from stage to stage
    depths: StageSizes  # number of blocks
    heads: StageSizes  # heads of the attention
    mlp_ratio: Ratio  # hidden width of the feed-forward networks to the channels
    layer_scale: Ratio | None  # initial value of the layer scales, None for none


def _arch(
    embed_dim: int,
    depths: Sequence[int],
    heads: int,
    mlp_ratio: float,
    layer_scale: float | None = None,
) -> NATArch:
    return NATArch(
        embed_dim=embed_dim,
        depths=depths,
        heads=tuple(heads * 2**stage for stage in range(len(depths))),
        mlp_ratio=mlp_ratio,
        layer_scale=layer_scale,
    )


def repeated(pattern: Sequence[Sequence[int]], depths: Sequence[int], owner: str) -> list[list]:
    """Dilations of all blocks from a pattern per stage, which is repeated to its depth.

    Raises:
        ValueError: Another number of stages, an empty pattern, a dilation below 1.
    """
    if len(pattern) != len(depths) or not all(pattern) or min(map(min, pattern)) < 1:
        raise ValueError(
            f'dilations of {owner}: a list of dilations from 1 for each of the {len(depths)} '
            f'stages expected, got {pattern}'
        )
    return [
        [row[i % len(row)] for i in range(depth)]
        for row, depth in zip(pattern, depths, strict=True)
    ]


@MODELS.register_module()
class NAT(TokenPyramid):
    """Neighborhood Attention Transformer.

    Maps of any image size from 32 x 32 up. A map that is smaller than window x dilation is
    padded with zeros within attention, as the published code does.

    Args:
        arch: 'mini', 'tiny', 'small', 'base', or a dict with the fields of :class:`NATArch`.
        kernel_size: Window of the attention, odd.
        dilations: Dilations of the blocks, one list per stage, which is repeated to its depth.
        relative_bias: Have a bias per offset of key and query.
        qkv_bias: Bias of the projections to queries, keys and values.
        impl: Algorithm of attention, see :mod:`hybrid_mm.ops.local_attention`.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`; each returned map has
            a layer norm of its own. ``norm_eval`` has no effect, there is no batch norm.

    Raises:
        ValueError: An unknown variant, dilations that do not fit the stages, an even window.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import NAT
        >>> maps = NAT('mini').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 64, 25, 33), (1, 128, 13, 17), (1, 256, 7, 9), (1, 512, 4, 5)]
    """

    arch_class = NATArch
    arch_zoo: ClassVar = {
        'mini': _arch(64, (3, 4, 6, 5), 2, 3.0),
        'tiny': _arch(64, (3, 4, 18, 5), 2, 3.0),
        'small': _arch(96, (3, 4, 18, 5), 3, 2.0, 1e-5),
        'base': _arch(128, (3, 4, 18, 5), 4, 2.0, 1e-5),
    }

    arch: NATArch

    def __init__(
        self,
        arch: str | Mapping | NATArch = 'mini',
        kernel_size: int = 7,
        dilations: Sequence[Sequence[int]] | None = None,
        relative_bias: bool = True,
        qkv_bias: bool = True,
        impl: str = 'auto',
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        odd(self, kernel_size=kernel_size)
        self.depths, width = list(self.arch.depths), self.arch.embed_dim
        self.stage_channels = [width * 2**stage for stage in range(len(self.depths))]
        for channels, heads in zip(self.stage_channels, self.arch.heads, strict=True):
            divides(self, channels, **{'arch.heads': heads})
        pattern = [[1]] * len(self.depths) if dilations is None else dilations
        self.dilations = repeated(pattern, self.depths, type(self).__name__)
        self.kernel_size, self.impl = kernel_size, impl
        self.relative_bias, self.qkv_bias = relative_bias, qkv_bias
        self.build()

    def make_stage(self, stage: int) -> nn.Module:
        """Convolutions that reduce the map, then blocks."""
        arch, channels = self.arch, self.stage_channels[stage]
        blocks = [
            NATBlock(
                channels,
                NeighborhoodAttention2d(
                    channels,
                    arch.heads[stage],
                    self.kernel_size,
                    dilation,
                    self.relative_bias,
                    self.qkv_bias,
                    impl=self.impl,
                ),
                arch.mlp_ratio,
                rate,
                arch.layer_scale,
            )
            for dilation, rate in zip(
                self.dilations[stage], self.drop_path_rates[stage], strict=True
            )
        ]
        before: dict[str, nn.Module] = (
            {'downsample': ConvDownsampler(channels // 2)}
            if stage
            else {'embed': ConvTokenizer(self.in_channels, channels)}
        )
        return Stage(blocks, self.with_cp, before, norm=self.make_norm(stage, channels))


_IMAGENET = [[1, 8, 1], [1, 4, 1, 4], [1, 2], [1]]
_COCO = [[1, 28, 1], [1, 7, 1, 14], [1, 3, 1, 5, 1, 7], [1, 3]]
_ADE = [[1, 16, 1], [1, 4, 1, 8], [1, 2, 1, 3, 1, 4], [1, 2]]
_ADE640 = [
    [1, 20, 1], [1, 5, 1, 10], [1, 2, 1, 3, 1, 4, 1, 5, 1, 2, 1, 3, 1, 4, 1, 5, 1, 5], [1, 2]
]  # fmt: skip
_MASK2FORMER = [[1, 14, 1], [1, 4, 1, 7], [1, 2, 1, 3] * 4 + [1, 3], [1]]


class _Dilated:
    """Mixin: dilations by the name of a recipe of the paper."""

    recipes: ClassVar[dict[str, list[list[int]]]] = {}

    @classmethod
    def resolve_dilations(cls, dilations: str | Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """Look a recipe up.

        Raises:
            ValueError: Unknown name.
        """
        if isinstance(dilations, str) and dilations not in cls.recipes:
            raise ValueError(
                f'dilations of {cls.__name__} must be one of {", ".join(cls.recipes)}, or a list '
                f'for each stage, got {dilations!r}'
            )
        return cls.recipes[dilations] if isinstance(dilations, str) else dilations


@MODELS.register_module()
class DiNAT(_Dilated, NAT):
    """Dilated Neighborhood Attention Transformer: NAT with dilations.

    No parameter depends on the dilations: the paper trains them for ImageNet, COCO and ADE20K with
    different ones.

    Args:
        arch: 'mini', 'tiny', 'small', 'base', 'large', or a dict, see :class:`NAT`.
        dilations: The paper's for 'in1k' (224 x 224), 'in1k-384', 'coco', 'ade20k', 'ade20k-640'
            (DiNAT-L) or 'mask2former' (DiNAT-L with windows of 11); or one list per stage, which is
            repeated to its depth.
        **kwargs: See :class:`NAT`.

    Raises:
        ValueError: An unknown variant or recipe, dilations that do not fit the stages.
    """

    arch_zoo: ClassVar = {
        **NAT.arch_zoo,
        'small': _arch(96, (3, 4, 18, 5), 3, 2.0),
        'large': _arch(192, (3, 4, 18, 5), 6, 2.0),
    }
    recipes: ClassVar = {
        'in1k': _IMAGENET,
        'in1k-384': [[1, 13, 1], [1, 6, 1, 6], [1, 3], [1]],
        'coco': _COCO,
        'ade20k': _ADE,
        'ade20k-640': _ADE640,
        'mask2former': _MASK2FORMER,
    }

    def __init__(
        self,
        arch: str | Mapping | NATArch = 'mini',
        dilations: str | Sequence[Sequence[int]] = 'in1k',
        **kwargs: Any,
    ) -> None:
        super().__init__(arch, dilations=self.resolve_dilations(dilations), **kwargs)


class _Unshifted(NeighborhoodAttention2d):
    """Neighborhood attention that a Swin block calls with the shift of its windows."""

    def forward(self, x: Tensor, shift: int = 0) -> Tensor:
        """Map (N, H, W, C) to the same shape."""
        return super().forward(x)


@MODELS.register_module()
class DiNATs(_Dilated, Swin):
    """DiNAT_s: the Swin Transformer with dilated neighborhood attention instead of its windows.

    Args:
        arch: 'tiny', 'small', 'base', 'large', or a dict with the fields of
            :class:`~hybrid_mm.backbones.frames.swin.SwinArch`.
        dilations: The paper's for 'in1k' (224 x 224), 'in1k-384', 'coco', 'ade20k' or 'ade20k-640';
            or one list per stage, which is repeated to its depth.
        kernel_size: Window of the attention, odd.
        relative_bias: Have a bias per offset of key and query.
        qkv_bias: Bias of the projections to queries, keys and values.
        impl: Algorithm of attention, see :mod:`hybrid_mm.ops.local_attention`.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.swin.Swin`; ``window_size`` is not
            accepted.

    Raises:
        ValueError: An unknown variant or recipe, dilations that do not fit the stages.
    """

    arch_zoo: ClassVar = Swin.arch_zoo
    recipes: ClassVar = {
        'in1k': [[1, 8], [1, 4], [1, 2], [1]],
        'in1k-384': [[1, 13], [1, 6], [1, 3], [1]],
        'coco': [[1, 28], [1, 14], [1, 3, 1, 5, 1, 7], [1, 3]],
        'ade20k': [[1, 16], [1, 8], [1, 2, 1, 3, 1, 4], [1, 2]],
        'ade20k-640': [[1, 20], [1, 10], _ADE640[2], [1, 2]],
    }

    def __init__(
        self,
        arch: str | Mapping | SwinArch = 'tiny',
        dilations: str | Sequence[Sequence[int]] = 'in1k',
        kernel_size: int = 7,
        relative_bias: bool = True,
        qkv_bias: bool = True,
        impl: str = 'auto',
        **kwargs: Any,
    ) -> None:
        left_out(self, kwargs, 'window_size')
        super().__init__(arch, window_size=1, **kwargs)
        odd(self, kernel_size=kernel_size)
        pattern = self.resolve_dilations(dilations)
        self.dilations = repeated(pattern, self.depths, type(self).__name__)
        self.operator: dict[str, Any] = dict(
            kernel_size=kernel_size, relative_bias=relative_bias, qkv_bias=qkv_bias, impl=impl
        )
        self.build()

    def make_attention(self, stage: int, block: int) -> nn.Module:
        """Neighborhood attention."""
        channels, heads = self.stage_channels[stage], self.heads[stage]
        dilation = self.dilations[stage][block]
        return _Unshifted(channels, heads, dilation=dilation, **self.operator)
