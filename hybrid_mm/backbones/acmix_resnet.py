"""ResNet with ACmix.

Status: complete; checked number by number against the authors' code.

Source: "On the Integration of Self-Attention and Convolution" (arXiv 2111.14556), section 4, and
its code.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from hybrid_mm.backbones.frames.resnet import ConvSlot, ResNet, ResNetArch
from hybrid_mm.layers.attention.acmix import ACmix2d
from hybrid_mm.ops.arguments import odd, positive
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class ACmixResNet(ResNet):
    """ResNet whose 3x3 convolutions are ACmix: attention and convolution on shared projections.

    Maps of any image size from 32 x 32 up; no parameter depends on it. At stride 2, ACmix gives
    maps of ceil(H / 2) rows, as convolution does.

    Args:
        arch: 'r26', 'r38', 'r50', or a dict with the fields of
            :class:`~hybrid_mm.backbones.frames.resnet.ResNetArch`.
        acmix: Which stages have ACmix, one value or one per stage.
        kernel_att: Window of the attention, odd, one value or one per stage.
        heads: Number of heads, one value or one per stage.
        kernel_conv: Kernel of the convolution path, odd.
        shift_init: Let the convolution path start as the shifts of a plain convolution, as the
            paper has it; the published code draws its kernels at random like all others.
        zero_init_residual: Let every block start as its shortcut (last norm's weight 0).
        impl: Algorithm, see :mod:`hybrid_mm.ops.dispatch`.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.resnet.ResNet`.

    Raises:
        ValueError: An unknown variant, heads that do not divide the channels, an even window.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import ACmixResNet
        >>> maps = ACmixResNet('r26').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 256, 25, 33), (1, 512, 13, 17), (1, 1024, 7, 9), (1, 2048, 4, 5)]
    """

    arch_zoo: ClassVar = {name: ResNet.arch_zoo[name] for name in ('r26', 'r38', 'r50')}

    def __init__(
        self,
        arch: str | Mapping | ResNetArch = 'r50',
        acmix: bool | Sequence[bool] = True,
        kernel_att: int | Sequence[int] = 7,
        heads: int | Sequence[int] = 4,
        kernel_conv: int = 3,
        shift_init: bool = True,
        zero_init_residual: bool = False,
        impl: str = 'auto',
        **kwargs: Any,
    ) -> None:
        super().__init__(arch, zero_init_residual=zero_init_residual, **kwargs)
        odd(self, kernel_att=kernel_att, kernel_conv=kernel_conv)
        positive(self, heads=heads)
        self.acmix = self.per_stage(acmix=acmix)
        self.kernel_att = self.per_stage(kernel_att=kernel_att)
        self.heads = self.per_stage(heads=heads)
        self.shift_init = shift_init
        self.kernel_conv, self.impl = kernel_conv, impl
        self.build()

    def make_spatial(self, slot: ConvSlot) -> nn.Module:
        """ACmix in the chosen stages."""
        if not self.acmix[slot.stage]:
            return super().make_spatial(slot)
        layer = ACmix2d(
            slot.in_channels,
            slot.channels,
            self.kernel_att[slot.stage],
            self.heads[slot.stage],
            self.kernel_conv,
            slot.stride,
            slot.dilation,
            self.impl,
        )
        layer.he_init(self.shift_init)
        return layer
