"""ResNet with locally enhanced self-attention (LESA).

Status: complete; checked number by number against the official code.

Source: "Locally Enhanced Self-Attention" (arXiv 2107.05637).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from torch import nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.resnet import ConvSlot, ResNet, ResNetArch, ResNetArguments
from hybrid_mm.convert.core import StateDict
from hybrid_mm.layers.attention.lesa import LESA2d
from hybrid_mm.layers.convolution.deform_conv import DeformConv2d
from hybrid_mm.ops.arguments import positive, sides
from hybrid_mm.registry import MODELS


def _wide(arch: ResNetArch) -> ResNetArch:
    return replace(arch, widths=tuple(2 * width for width in arch.widths))


@MODELS.register_module()
class LESAResNet(ResNet):
    """ResNet whose 3x3 convolutions in the last stages are locally enhanced self-attention.

    Args:
        arch: 'r50', 'r101', 'wrn50', 'wrn101' (bottlenecks twice as wide), or a dict with the
            fields of :class:`~hybrid_mm.backbones.frames.resnet.ResNetArch`.
        groups: Heads of attention.
        lesa: Which stages have LESA.
        first_conv: In which of these the first block keeps its convolution.
        deformable: In which stages 3x3 convolutions, those within LESA included, are deformable.
        positions: 'axial' (the official 'detection_qr'), whose tables follow the size of the
            image, or 'flat' ('classification'), bound to ``canvas_size``.
        canvas_size: Height and width of the image that the position tables are made for.
        impl: Algorithm of attention, see :mod:`hybrid_mm.ops.local_attention`.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.resnet.ResNet`.

    Raises:
        ValueError: An unknown variant, or dilation in stages with LESA or deformable convolutions.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import LESAResNet
        >>> maps = LESAResNet('r50', canvas_size=(96, 128)).eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 256, 25, 33), (1, 512, 13, 17), (1, 1024, 7, 9), (1, 2048, 4, 5)]
    """

    arch_zoo: ClassVar = {
        'r50': ResNet.arch_zoo['r50'],
        'r101': ResNet.arch_zoo['r101'],
        'wrn50': _wide(ResNet.arch_zoo['r50']),
        'wrn101': _wide(ResNet.arch_zoo['r101']),
    }

    def __init__(
        self,
        arch: str | Mapping | ResNetArch = 'r50',
        groups: int = 8,
        lesa: bool | Sequence[bool] = (False, False, True, True),
        first_conv: bool | Sequence[bool] = (True, True, True, False),
        deformable: bool | Sequence[bool] = (False, False, False, False),
        positions: str = 'axial',
        canvas_size: int | Sequence[int] = (224, 224),
        impl: str = 'auto',
        **kwargs: Unpack[ResNetArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        if not self.arch.bottleneck:
            raise ValueError('LESAResNet has bottlenecks only, got an arch with bottleneck=False')
        positive(self, groups=groups)
        self.groups = groups
        self.lesa = self.per_stage(lesa=lesa)
        self.first_conv = self.per_stage(first_conv=first_conv)
        self.deformable = self.per_stage(deformable=deformable)
        self.positions = positions
        self.canvas_size = sides(self, canvas_size=canvas_size)
        self.impl = impl
        for stage, dilation in enumerate(self.dilations):
            if dilation != 1 and (self.lesa[stage] or self.deformable[stage]):
                raise ValueError(
                    f'dilations of LESAResNet must be 1 in stages with LESA or deformable '
                    f'convolutions, got {dilation} in stage {stage}'
                )
        self.build()

    def _has_lesa(self, slot: ConvSlot) -> bool:
        return self.lesa[slot.stage] and (slot.block > 0 or not self.first_conv[slot.stage])

    def table_size(self, slot: ConvSlot) -> tuple[int, int]:
        """Rows and columns of the map that LESA sees for an image of ``canvas_size``."""
        height, width = self.canvas_size
        return -(-height // slot.reduction), -(-width // slot.reduction)

    def make_spatial(self, slot: ConvSlot) -> nn.Module:
        """LESA in the chosen blocks."""
        deformable = self.deformable[slot.stage]
        if self._has_lesa(slot):
            return LESA2d(
                slot.channels,
                self.table_size(slot),
                self.groups,
                slot.stride,
                self.positions,
                deformable,
                self.impl,
            )
        if deformable:
            return DeformConv2d(slot.channels, stride=slot.stride)
        return super().make_spatial(slot)

    def make_spatial_norm(self, slot: ConvSlot) -> nn.Module:
        """None after LESA, which ends with its own."""
        return nn.Identity() if self._has_lesa(slot) else super().make_spatial_norm(slot)

    def initial_values(self, state: StateDict) -> StateDict:
        """Offsets of deformable convolutions, 0 at first, if the file lacks them altogether."""
        if any('.conv_offset.' in key for key in state):
            return {}
        return {
            f'{name}.conv_offset.{key}': torch.zeros_like(parameter)
            for name, module in self.named_modules()
            if isinstance(module, DeformConv2d)
            for key, parameter in module.conv_offset.named_parameters()
        }
