"""ResNet with attention-augmented convolutions.

Status: complete; checked number by number against an independent implementation of the paper's
formulas (its code was not published).

Source: "Attention Augmented Convolutional Networks" (arXiv 1904.09925), section 4.2.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.resnet import ConvSlot, ResNet, ResNetArch, ResNetArguments
from hybrid_mm.layers import AAConv2d
from hybrid_mm.ops.arguments import fraction, not_negative, positive, sides
from hybrid_mm.registry import MODELS


class AugmentedArguments(ResNetArguments, total=False):
    """Arguments of both networks, by keyword; see :class:`AugmentedResNet`."""

    kappa: float | Sequence[float] | None
    upsilon: float | Sequence[float] | None
    heads: int | Sequence[int]
    min_key_dim: int
    augmented: bool | Sequence[bool]
    attn_downsample: bool | Sequence[bool]
    canvas_size: int | Sequence[int] | None
    impl: str


class AugmentedResNet(ResNet):
    """ResNet with attention parallel to its 3x3 convolutions; abstract: a subclass is registered.

    Args:
        arch: Name of a variant, or a dict with the fields of
            :class:`~hybrid_mm.backbones.frames.resnet.ResNetArch`.
        kappa: Key channels as a part of the output channels; one value or one per stage. By default
            0.2 in bottlenecks and 0.25 in basic blocks.
        upsilon: Value channels likewise, by default 0.1 and 0.25. Both numbers of channels are
            rounded to the nearest multiple of ``heads``.
        heads: Number of heads, one value or one per stage; stages with 0 have convolutions.
        min_key_dim: Least number of key channels of a head.
        augmented: Which stages have attention, if they have heads.
        attn_downsample: In which stages attention runs at half the resolution.
        canvas_size: Height and width of the image that the relative tables are made for; None
            leaves the relative term out.
        impl: Algorithm of attention, see :mod:`hybrid_mm.ops.local_attention`.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.resnet.ResNet`.

    Raises:
        ValueError: An unknown variant, or ratios that leave no channel to the convolution.
    """

    def __init__(
        self,
        arch: str | Mapping | ResNetArch = 'r50',
        kappa: float | Sequence[float] | None = None,
        upsilon: float | Sequence[float] | None = None,
        heads: int | Sequence[int] = 8,
        min_key_dim: int = 20,
        augmented: bool | Sequence[bool] = (False, True, True, True),
        attn_downsample: bool | Sequence[bool] = (False, True, False, False),
        canvas_size: int | Sequence[int] | None = (224, 224),
        impl: str = 'auto',
        **kwargs: Unpack[ResNetArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        positive(self, min_key_dim=min_key_dim)
        not_negative(self, heads=heads, kappa=kappa)
        fraction(self, upsilon=upsilon)
        if kappa is None:
            kappa = 0.2 if self.arch.bottleneck else 0.25
        if upsilon is None:
            upsilon = 0.1 if self.arch.bottleneck else 0.25
        self.kappa = self.per_stage(kappa=kappa)
        self.upsilon = self.per_stage(upsilon=upsilon)
        self.heads = self.per_stage(heads=heads)
        self.min_key_dim = min_key_dim
        chosen = self.per_stage(augmented=augmented)
        self.augmented = tuple(a and n > 0 for a, n in zip(chosen, self.heads, strict=True))
        self.attn_downsample = self.per_stage(attn_downsample=attn_downsample)
        self.canvas_size = None if canvas_size is None else sides(self, canvas_size=canvas_size)
        self.impl = impl

    def table_size(self, slot: ConvSlot) -> tuple[int, int] | None:
        """Rows and columns of the map under attention for an image of ``canvas_size``."""
        if self.canvas_size is None:
            return None
        reduction = slot.reduction * slot.stride * (1 + self.attn_downsample[slot.stage])
        height, width = self.canvas_size
        return -(-height // reduction), -(-width // reduction)

    def layer_settings(self, slot: ConvSlot) -> dict[str, Any]:
        """Arguments of the augmented convolution at a place."""
        heads = self.heads[slot.stage]
        keys, values = (
            round(ratio[slot.stage] * slot.channels / heads) * heads
            for ratio in (self.kappa, self.upsilon)
        )
        return dict(
            in_channels=slot.in_channels,
            out_channels=slot.channels,
            key_channels=max(keys, self.min_key_dim * heads),
            value_channels=max(values, heads),
            heads=heads,
            size=self.table_size(slot),
            stride=slot.stride,
            dilation=slot.dilation,
            attn_downsample=self.attn_downsample[slot.stage],
            impl=self.impl,
        )

    def make_spatial(self, slot: ConvSlot) -> nn.Module:
        """Attention-augmented convolution in the chosen stages."""
        if not self.augmented[slot.stage]:
            return super().make_spatial(slot)
        conv = AAConv2d(**self.layer_settings(slot), bias=False)
        for part in (conv.conv_out, conv.qkv_conv, conv.attn_out):
            nn.init.kaiming_normal_(part.weight, mode='fan_out', nonlinearity='relu')
        return conv


@MODELS.register_module()
class AAResNet(AugmentedResNet):
    """ResNet whose 3x3 convolutions (the first one of a basic block) are attention-augmented.

    Maps of any image size from 32 x 32 up. The relative tables follow the size of the image: their
    entries about the middle for a smaller one, linear interpolation for a larger one.

    Args:
        arch: 'r34', 'r50', 'r101', 'r152', or a dict with the fields of
            :class:`~hybrid_mm.backbones.frames.resnet.ResNetArch`.
        **kwargs: See :class:`AugmentedResNet`.

    Raises:
        ValueError: An unknown variant, or ratios that leave no channel to the convolution.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import AAResNet
        >>> maps = AAResNet('r50', canvas_size=(96, 128)).eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 256, 25, 33), (1, 512, 13, 17), (1, 1024, 7, 9), (1, 2048, 4, 5)]
    """

    arch_zoo: ClassVar = {name: ResNet.arch_zoo[name] for name in ('r34', 'r50', 'r101', 'r152')}

    def __init__(
        self, arch: str | Mapping | ResNetArch = 'r50', **kwargs: Unpack[AugmentedArguments]
    ) -> None:
        super().__init__(arch, **kwargs)
        self.build()
