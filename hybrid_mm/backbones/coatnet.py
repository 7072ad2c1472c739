"""CoAtNet: MBConv in the first stages, attention with relative positions in the last.

Status: complete; checked number by number against timm's code.

Source: "CoAtNet: Marrying Convolution and Attention for All Data Sizes" (arXiv 2106.04803),
section 2 and table 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import StageOptions
from hybrid_mm.backbones.frames.blocks import he_normal_
from hybrid_mm.backbones.frames.mbconv_pyramid import (
    MBConvArch,
    MBConvArguments,
    MBConvPyramid,
    TwoConvStemArch,
    check_numbers,
)
from hybrid_mm.backbones.frames.token_pyramid import MLP
from hybrid_mm.layers.attention.global_relative_attention import GlobalRelativeAttention
from hybrid_mm.layers.attention.partition_attention import PartitionAttention
from hybrid_mm.layers.convolution.mbconv import POOLS, MBConv, choice
from hybrid_mm.layers.drop import DropPath
from hybrid_mm.ops.arguments import one_of, positive, sides
from hybrid_mm.registry import MODELS


class RelativeTransformerBlock(nn.Module):
    """Relative attention, then MLP, each after a layer norm in a residual connection.

    With stride 2 the input of the attention and that of the shortcut are pooled.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: 1 or 2.
        size: Rows and columns of the output that relative positions are made for.
        head_width: Channels of a head.
        windowed: Attention within windows of that size instead of the whole map.
        expand_first: Queries, keys and values have the channels of the output, else of the input.
        shortcut_bias: Bias of the shortcut's projection.
        relative: 'table' or 'log', see
            :class:`~hybrid_mm.layers.attention.partition_attention.PartitionAttention`.
        relative_channels: See there.
        pool: How stride 2 is got, one of :data:`~hybrid_mm.layers.convolution.mbconv.POOLS`.
        approximate: GELU of the MLP, 'tanh' or 'none'.
        layer_scale: Initial value of the layer scales, or None for none.
        ln_eps: Epsilon of the layer norms.
        drop_path: Drop-path rate of both branches.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        size: tuple[int, int],
        head_width: int = 32,
        windowed: bool = False,
        expand_first: bool = True,
        shortcut_bias: bool = True,
        relative: str = 'table',
        relative_channels: int = 512,
        pool: str = 'avg2',
        approximate: str = 'none',
        layer_scale: float | None = None,
        ln_eps: float = 1e-6,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.pool = POOLS[choice('pool', pool, POOLS)] if stride == 2 else None
        same = in_channels == channels
        self.shortcut = (
            nn.Identity() if same else nn.Linear(in_channels, channels, bias=shortcut_bias)
        )
        self.norm1 = nn.LayerNorm(in_channels, eps=ln_eps)
        attention = PartitionAttention if windowed else GlobalRelativeAttention
        self.attn = attention(
            in_channels,
            size,
            head_width,
            channels=channels,
            hidden_channels=max(channels, in_channels) if expand_first else in_channels,
            relative=relative,
            relative_channels=relative_channels,
        )
        self.norm2 = nn.LayerNorm(channels, eps=ln_eps)
        self.mlp = MLP(channels, 4 * channels, approximate)
        self.gamma1 = self.gamma2 = None
        if layer_scale is not None:
            self.gamma1 = nn.Parameter(torch.full((channels,), float(layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(layer_scale)))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / stride), ceil(W / stride))."""
        x = x.permute(0, 2, 3, 1)
        y = self.norm1(x)
        if self.pool:
            x, y = (self.pool(z.permute(0, 3, 1, 2)).permute(0, 2, 3, 1) for z in (x, y))
        y = self.attn(y)
        x = self.shortcut(x) + self.drop_path(y if self.gamma1 is None else self.gamma1 * y)
        y = self.mlp(self.norm2(x))
        x = x + self.drop_path(y if self.gamma2 is None else self.gamma2 * y)
        return x.permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class CoAtNetArch(MBConvArch):
    """Variant of a CoAtNet."""

    kinds: StageOptions  # 'C' (convolution) or 'T' (transformer) for each stage
    attention: Mapping[str, Any]  # arguments of :class:`RelativeTransformerBlock`

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check the kinds as well."""
        super().check(owner, name)
        check_numbers(owner, f'{name}.attention', self.attention, RelativeTransformerBlock)
        for value in self.kinds:
            one_of(owner, ('C', 'T'), **{f'{name}.kinds': value})


def _paper(stem: int, depths: Sequence[int], channels: Sequence[int]) -> CoAtNetArch:
    """Variant of table 3."""
    return CoAtNetArch(
        depths=depths,
        channels=channels,
        kinds=('C', 'C', 'T', 'T'),
        stem=TwoConvStemArch(channels=(stem, stem), bias=False),
        conv=dict(act='gelu', padding='symmetric'),
        attention=dict(),
        norm=dict(eps=1e-5, momentum=0.1),
        ln_eps=1e-6,
    )


def _rw(
    depths: Sequence[int], channels: int, conv: dict, attention: dict | None = None, stem: int = 0
) -> CoAtNetArch:
    """Variant trained by timm."""
    shared = dict(act='silu', padding='symmetric', expand_from='input', bias=False, pre_act=True)
    stem = stem or channels
    return CoAtNetArch(
        depths=depths,
        channels=tuple(channels * 2**stage for stage in range(4)),
        kinds=('C', 'C', 'T', 'T'),
        stem=TwoConvStemArch(channels=(stem // 2, stem), bias=False),
        conv={**shared, **conv},
        attention=dict(expand_first=False, **(attention or {})),
        norm=dict(eps=1e-5, momentum=0.1),
        ln_eps=1e-6,
    )


_WIDTHS = [tuple(dim * 2**stage for stage in range(4)) for dim in (96, 128, 192)]
_DEPTHS = (2, 6, 14, 2)


@MODELS.register_module()
class CoAtNet(MBConvPyramid):
    """CoAtNet.

    Maps of any image size from 32 x 32 up: a map has ceil(H / stride) rows. The cost of attention
    grows with the square of the pixels; ``windowed`` bounds it.

    Args:
        arch: '0' to '5', the variants of the paper (that of '5' has heads of 64 channels there,
            see ``head_width``); those of timm '0-rw', '1-rw', '2-rw', '3-rw', 'nano-rw' and
            'pico-rw', with tables of relative positions, and 'rmlp-0-rw', 'rmlp-1-rw',
            'rmlp-1-rw2', 'rmlp-2-rw', 'rmlp-3-rw' and 'rmlp-nano-rw', with networks for them; or a
            dict with the fields of :class:`CoAtNetArch` or of timm's ``MaxxVitCfg``.
        img_size: Side of the image, or (rows, columns), that tables of relative positions are made
            for; on maps of another size they are interpolated bilinearly.
        windowed: Attention within windows of the size of those tables, 14 x 14 and 7 x 7 for 224.
        head_width: Channels of a head, by default those of the variant, 32 in all that are named.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.mbconv_pyramid.MBConvPyramid`.

    Raises:
        ValueError: An unknown variant or kind, channels that heads do not fill.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import CoAtNet
        >>> maps = CoAtNet('nano-rw').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 64, 25, 33), (1, 128, 13, 17), (1, 256, 7, 9), (1, 512, 4, 5)]
    """

    arch_class = CoAtNetArch
    arch_zoo: ClassVar = {
        '0': _paper(64, (2, 3, 5, 2), _WIDTHS[0]),
        '1': _paper(64, _DEPTHS, _WIDTHS[0]),
        '2': _paper(128, _DEPTHS, _WIDTHS[1]),
        '3': _paper(192, _DEPTHS, _WIDTHS[2]),
        '4': _paper(192, (2, 12, 28, 2), _WIDTHS[2]),
        '5': _paper(192, (2, 12, 28, 2), (256, 512, 1280, 2048)),
        '0-rw': _rw(
            (2, 3, 7, 2),
            96,
            dict(stride_in='pool', gate_early=True, gate_act='relu'),
            dict(shortcut_bias=False),
            stem=64,
        ),
        '1-rw': _rw(
            _DEPTHS,
            96,
            dict(gate_early=True, gate_act='relu'),
            dict(shortcut_bias=False),
            stem=64,
        ),
        '2-rw': _rw(_DEPTHS, 128, {}),
        '3-rw': _rw(_DEPTHS, 192, {}, dict(layer_scale=1e-6)),
        'nano-rw': _rw((3, 4, 6, 3), 64, dict(stride_in='pool', bias=True, pre_act=False)),
        'pico-rw': _rw((2, 3, 5, 2), 64, dict(bias=True, pre_act=False)),
        'rmlp-nano-rw': _rw(
            (3, 4, 6, 3),
            64,
            dict(bias=True, pre_act=False),
            dict(relative='log', relative_channels=384),
        ),
        'rmlp-0-rw': _rw((2, 3, 7, 2), 96, dict(gate_act='relu'), dict(relative='log'), stem=64),
        'rmlp-1-rw': _rw(
            _DEPTHS,
            96,
            dict(stride_in='pool', pool='max3', gate_early=True, gate_act='relu'),
            dict(relative='log', relative_channels=384, pool='max3', shortcut_bias=False),
            stem=64,
        ),
        'rmlp-1-rw2': _rw(_DEPTHS, 96, dict(gate_act='relu'), dict(relative='log'), stem=64),
        'rmlp-2-rw': _rw(_DEPTHS, 128, {}, dict(relative='log', layer_scale=1e-6)),
        'rmlp-3-rw': _rw(_DEPTHS, 192, {}, dict(relative='log', layer_scale=1e-6)),
    }

    arch: CoAtNetArch

    def __init__(
        self,
        arch: str | Mapping | CoAtNetArch = '0',
        img_size: int | Sequence[int] = 224,
        windowed: bool = False,
        head_width: int | None = None,
        **kwargs: Unpack[MBConvArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        self.head_width = self.arch.head_width if head_width is None else head_width
        positive(self, head_width=self.head_width)
        self.img_size = sides(self, img_size=img_size)
        self.windowed = windowed
        self.build()

    def make_block(
        self, stage: int, in_channels: int, channels: int, stride: int, drop_path: float
    ) -> nn.Module:
        """Block of a stage."""
        if self.arch.kinds[stage] == 'C':
            return MBConv(in_channels, channels, stride, drop_path=drop_path, **self.conv_settings)
        height, width = (-(-side // 2 ** (stage + 2)) for side in self.img_size)
        return RelativeTransformerBlock(
            in_channels,
            channels,
            stride,
            (height, width),
            self.head_width,
            self.windowed,
            ln_eps=self.arch.ln_eps,
            drop_path=drop_path,
            **self.arch.attention,
        )

    def reset_parameters(self) -> None:
        """Draw convolutions from He's normal over the fan-out and the rest as timm does."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                he_normal_(module)
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            else:
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)
