"""HaloNet, and convolutional networks with its attention.

Status: complete; checked number by number against timm's HaloAttn and ByobNet (the authors
published no code).

Source: "Scaling Local Self-Attention for Parameter Efficient Visual Backbones" (arXiv 2103.12731).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Count, Ratio, Size, StageSizes
from hybrid_mm.backbones.frames.bottleneck_net import (
    BottleneckArch,
    BottleneckNet,
    BottleneckNetArguments,
    GateArch,
    StemArch,
)
from hybrid_mm.backbones.frames.byob_fields import ByobAttention
from hybrid_mm.backbones.frames.resnet import ConvSlot
from hybrid_mm.layers.attention.halo_attention import HaloAttention
from hybrid_mm.registry import MODELS


@dataclass(frozen=True, kw_only=True)
class HaloNetArch(BottleneckArch):
    """Variant of a HaloNet."""

    heads: StageSizes = (8, 8, 8, 8)  # heads of the attention
    block_size: Size = 8  # pixels of a block of queries on each side
    halo_size: Count = 3  # pixels around a block that are keys as well
    dim_head: Size | None = None  # channels of a head's queries; None: from ``qk_ratio``
    qk_ratio: Ratio = 1.0  # channels of the queries to those of the values


_TIERED = StemArch(kind='tiered', channels=64, pool=True)
_RESNET = (256, 512, 1024, 2048)


def _h(
    block_size: int,
    halo_size: int,
    value_ratio: float,
    ratio: float,
    depth: int,
    final: int | None = None,
    conv_stages: int = 0,
) -> HaloNetArch:
    """Variant of the paper's family by the columns of its table 2 (b, h, r_v, r_b, l_3, d_f)."""
    return HaloNetArch(
        depths=(3, 3, depth, 3),
        channels=tuple(round(width * ratio) for width in (64, 128, 256, 512)),
        ratios=(1 / ratio,) * 4,
        attention=tuple(stage >= conv_stages for stage in range(4)),
        heads=(4, 8, 8, 8),
        value_ratio=value_ratio,
        block_size=block_size,
        halo_size=halo_size,
        final=final,
    )


def _resnet(depth: int, attention: bool, block_size: int = 8) -> HaloNetArch:
    """ResNet with SE and SiLU, attention in the last stage or none."""
    return HaloNetArch(
        depths=(3, 4, depth, 3),
        channels=_RESNET,
        attention=(False, False, False, attention),
        act='silu',
        gate=GateArch(kind='se', place='out', ratio=16),
        block_size=block_size,
    )


@MODELS.register_module()
class HaloNet(BottleneckNet):
    """HaloNet-H0 to H7, ResNets with its attention in the last stage, and timm's hybrids.

    Maps of any image size from 32 x 32 up; nothing depends on the size of the image.

    Args:
        arch: The paper's 'h0' to 'h7'; 'h7-conv1' to 'h7-conv3', of which the first one to three
            stages are convolutions; 'r50-se' and 'r101-se', the ResNets with SE and SiLU, with
            attention in the last stage as 'r50-se-b8', 'r50-se-b32' and 'r101-se-b8' (halo 3);
            timm's 'halonet26t', 'halonet50ts', 'sehalonet33ts', 'eca_halonext26ts',
            'haloregnetz_b' and 'halonet_h1'. Or a dict with fields of
            :class:`HaloNetArch`, or with those of timm's ``ByoModelCfg``, see
            :class:`~hybrid_mm.backbones.frames.bottleneck_net.BottleneckNet`.
        scale_pos_embed: Scale the position terms like the content term.
        mask_padding: Leave everything beyond the border of a map out of the softmax.
        avg_down: Pool after attention of stride 2 instead of leaving queries out.
        qkv_bias: Biases of queries, keys and values.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.bottleneck_net.BottleneckNet`.

    The paper does not say, hence our choice: SE comes after the last norm of every block with
    1/16 of its channels in the middle, attention of the ResNets has 8 heads, the convolutions of
    'h7-conv*' have as many channels as the queries, the H family has ReLU as in timm.

    Raises:
        ValueError: An unknown variant, or settings that do not fit each other.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import HaloNet
        >>> maps = HaloNet('halonet26t').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 256, 25, 33), (1, 512, 13, 17), (1, 1024, 7, 9), (1, 2048, 4, 5)]
    """

    arch_class = HaloNetArch
    byob_attention = ByobAttention(
        'halo',
        dict(
            num_heads=('heads', 8),
            block_size=('block_size', 8),
            halo_size=('halo_size', 3),
            dim_head=('dim_head', None),
            qk_ratio=('qk_ratio', 1.0),
        ),
        ('scale_pos_embed', 'avg_down', 'qkv_bias'),
    )
    arch_zoo: ClassVar = {
        'h0': _h(8, 3, 1.0, 0.5, 7),
        'h1': _h(8, 3, 1.0, 1.0, 10),
        'h2': _h(8, 3, 1.0, 1.25, 11),
        'h3': _h(10, 3, 1.0, 1.5, 12, 1024),
        'h4': _h(12, 2, 1.0, 3.0, 12, 1280),
        'h5': _h(14, 2, 2.5, 2.0, 23, 1536),
        'h6': _h(8, 4, 3.0, 2.75, 24, 1536),
        'h7': _h(10, 3, 4.0, 3.5, 26, 2048),
        'h7-conv1': _h(10, 3, 4.0, 3.5, 26, 2048, conv_stages=1),
        'h7-conv2': _h(10, 3, 4.0, 3.5, 26, 2048, conv_stages=2),
        'h7-conv3': _h(10, 3, 4.0, 3.5, 26, 2048, conv_stages=3),
        'r50-se': _resnet(6, attention=False),
        'r50-se-b8': _resnet(6, attention=True),
        'r50-se-b32': _resnet(6, attention=True, block_size=32),
        'r101-se': _resnet(23, attention=False),
        'r101-se-b8': _resnet(23, attention=True),
        'halonet26t': HaloNetArch(
            depths=(2, 2, 2, 2),
            channels=_RESNET,
            attention=(False, False, (1,), True),
            stem=_TIERED,
            halo_size=2,
        ),
        'halonet50ts': HaloNetArch(
            depths=(3, 4, 6, 3),
            channels=_RESNET,
            attention=(False, (3,), (1, 3, 5), (1,)),
            heads=(8, 4, 8, 8),
            stem=_TIERED,
            act='silu',
        ),
        'sehalonet33ts': HaloNetArch(
            depths=(2, 3, 3, 2),
            channels=(256, 512, 1024, 1536),
            ratios=(0.25, 0.25, 0.25, 0.333),
            attention=(False, (2,), (2,), True),
            stem=StemArch(kind='tiered', channels=64, pool=False),
            act='silu',
            gate=GateArch(kind='se', place='mid', ratio=16),
            final=1280,
        ),
        'eca_halonext26ts': HaloNetArch(
            depths=(2, 2, 2, 2),
            channels=_RESNET,
            attention=(False, False, (1,), True),
            stem=_TIERED,
            act='silu',
            group_size=16,
            gate=GateArch(kind='eca', place='mid'),
            halo_size=2,
            dim_head=16,
        ),
        'haloregnetz_b': HaloNetArch(
            depths=(2, 6, 12, 2),
            channels=(48, 96, 192, 288),
            ratios=(3, 3, 3, 3),
            strides=(2, 2, 2, 2),
            attention=(False, False, (3, 7, 11), True),
            stem=StemArch(kind='3x3', channels=32, pool=False),
            act='silu',
            group_size=16,
            gate=GateArch(kind='se', place='mid', ratio=4),
            bottle_in=True,
            linear_out=True,
            shortcut=False,
            block_size=7,
            halo_size=2,
            qk_ratio=0.33,
            final=1536,
        ),
        'halonet_h1': replace(_h(8, 3, 1.0, 1.0, 10), heads=(8, 8, 8, 8)),
    }

    arch: HaloNetArch

    def __init__(
        self,
        arch: str | Mapping | HaloNetArch = 'r50-se-b8',
        scale_pos_embed: bool = False,
        mask_padding: bool = False,
        avg_down: bool = False,
        qkv_bias: bool = False,
        **kwargs: Unpack[BottleneckNetArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        self.attention_kwargs: dict[str, Any] = dict(
            scale_pos_embed=scale_pos_embed,
            mask_padding=mask_padding,
            avg_down=avg_down,
            qkv_bias=qkv_bias,
            impl=self.impl,
        )
        self.build()

    def make_attention(self, slot: ConvSlot) -> nn.Module:
        """Halo attention; queries and keys as wide as its input if the values are wider."""
        arch, heads = self.arch, self.arch.heads[slot.stage]
        dim_head = arch.dim_head
        if dim_head is None and slot.channels != slot.in_channels:
            dim_head = slot.in_channels // heads
        return HaloAttention(
            slot.in_channels,
            slot.channels,
            slot.stride,
            heads,
            dim_head,
            arch.block_size,
            arch.halo_size,
            arch.qk_ratio,
            **self.attention_kwargs,
        )
