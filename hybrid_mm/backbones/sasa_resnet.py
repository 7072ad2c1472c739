"""ResNet with stand-alone self-attention.

Status: complete; checked number by number against an independent implementation of the paper's
formulas (its code was not published).

Source: "Stand-Alone Self-Attention in Vision Models" (arXiv 1906.05909), sections 3.2 to 4.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.blocks import build_norm
from hybrid_mm.backbones.frames.resnet import ConvSlot, ResNet, ResNetArch, ResNetArguments
from hybrid_mm.layers import LocalSelfAttention2d, PooledAttentionStem
from hybrid_mm.ops.arguments import not_negative, odd, one_of, positive
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class SASAResNet(ResNet):
    """ResNet of bottlenecks whose 3x3 convolutions are local self-attention.

    Maps of any image size from 32 x 32 up; no parameter depends on it.

    Args:
        arch: 'r26', 'r38', 'r50', or a dict with the fields of
            :class:`~hybrid_mm.backbones.frames.resnet.ResNetArch`, with bottlenecks.
        stem: 'conv' (7x7 convolution and max pooling) or 'attention'.
        kernel_size: Window of the attention.
        heads: Number of heads, one value or one per stage; stages with 0 keep their convolutions.
        share_rel: One pair of relative tables for all heads of a layer.
        border: 'zero': pixels beyond the border count as zeros; 'mask': they are left out.
        scale: Factor of the logits, one value or one per stage.
        stem_heads: Number of heads of the attention stem.
        stem_mixtures: Number of value transforms of the attention stem.
        impl: Algorithm of attention, see :mod:`hybrid_mm.ops.local_attention`.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.resnet.ResNet`.

    Raises:
        ValueError: An unknown variant or stem, basic blocks, or heads that do not fit the widths.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import SASAResNet
        >>> maps = SASAResNet('r26', stem='attention').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 256, 25, 33), (1, 512, 13, 17), (1, 1024, 7, 9), (1, 2048, 4, 5)]
    """

    arch_zoo: ClassVar = {name: ResNet.arch_zoo[name] for name in ('r26', 'r38', 'r50')}

    def __init__(
        self,
        arch: str | Mapping | ResNetArch = 'r50',
        stem: str = 'conv',
        kernel_size: int = 7,
        heads: int | Sequence[int] = 8,
        share_rel: bool = True,
        border: str = 'zero',
        scale: float | Sequence[float] = 1.0,
        stem_heads: int = 4,
        stem_mixtures: int = 4,
        impl: str = 'auto',
        **kwargs: Unpack[ResNetArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        one_of(self, ('conv', 'attention'), stem=stem)
        positive(self, stem_heads=stem_heads, stem_mixtures=stem_mixtures)
        odd(self, kernel_size=kernel_size)
        not_negative(self, heads=heads, scale=scale)
        if not self.arch.bottleneck:
            raise ValueError('SASAResNet is defined for bottlenecks, got an arch of basic blocks')
        self.stem_type = stem
        self.stem_attention: dict[str, Any] = dict(
            heads=stem_heads, mixtures=stem_mixtures, impl=impl
        )
        self.heads = self.per_stage(heads=heads)
        self.scale = self.per_stage(scale=scale)
        self.local: dict[str, Any] = dict(
            kernel_size=kernel_size, share_rel=share_rel, border=border, impl=impl
        )
        self.build()

    def make_stem(self) -> nn.Module:
        """Convolution or attention."""
        if self.stem_type == 'conv':
            return super().make_stem()
        channels = self.arch.stem
        norm = build_norm(self.norm_cfg, channels)
        return PooledAttentionStem(
            self.in_channels, norm, out_channels=channels, **self.stem_attention
        )

    def make_spatial(self, slot: ConvSlot) -> nn.Module:
        """Local self-attention in the stages that have heads."""
        if not self.heads[slot.stage]:
            return super().make_spatial(slot)
        return LocalSelfAttention2d(
            slot.in_channels,
            slot.channels,
            heads=self.heads[slot.stage],
            stride=slot.stride,
            dilation=slot.dilation,
            scale=self.scale[slot.stage],
            **self.local,
        )
