"""Core of the ResNets whose 3x3 convolutions the papers replace by other operators.

Source: "Deep Residual Learning for Image Recognition" (arXiv 1512.03385) in torchvision's form
(v1.5: the 3x3 convolution has the stride). A subclass overrides :meth:`ResNet.make_spatial`,
and, where its paper changes them, :meth:`ResNet.make_spatial_norm` and :meth:`ResNet.make_stem`.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Arch, Size, StageSizes
from hybrid_mm.backbones.frames.base import BaseBackbone, SharedArguments
from hybrid_mm.backbones.frames.blocks import BATCH_NORM, NormCfg, Stage, build_norm, conv2d_he
from hybrid_mm.layers import DropPath
from hybrid_mm.ops.arguments import per_stage, positive

__all__ = [
    'BasicBlock',
    'Bottleneck',
    'ConvSlot',
    'PooledConvStem',
    'ResNet',
    'ResNetArch',
    'ResNetArguments',
    'ResidualBlock',
]


@dataclass(frozen=True)
class ConvSlot:
    """Place of a 3x3 convolution that may be replaced, and what it has to do there.

    Attributes:
        stage: Stage, from 0.
        block: Block within the stage, from 0.
        in_channels: Channels of its input.
        channels: Channels of its output.
        stride: Its stride: a map of H rows becomes one of ceil(H / stride).
        dilation: Its dilation.
        reduction: Stride of its input with respect to the image.
    """

    stage: int
    block: int
    in_channels: int
    channels: int
    stride: int
    dilation: int
    reduction: int


class PooledConvStem(nn.Module):
    """7x7 convolution of stride 2, norm, ReLU, 3x3 max pooling of stride 2.

    Args:
        in_channels: Channels of the image.
        channels: Channels of the output.
        norm_cfg: Batch normalisation.
    """

    def __init__(self, in_channels: int, channels: int, norm_cfg: NormCfg) -> None:
        super().__init__()
        self.conv = conv2d_he(in_channels, channels, 7, stride=2)
        self.norm = build_norm(norm_cfg, channels)
        self.act = nn.ReLU(inplace=True)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / 4), ceil(W / 4))."""
        return self.pool(self.act(self.norm(self.conv(x))))


class ResidualBlock(nn.Module):
    """What both kinds of blocks share: the shortcut, the sum, and drop path.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the block.
        norm_cfg: Batch normalisation.
        drop_path: Drop-path rate of the branch.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, norm_cfg: NormCfg, drop_path: float
    ) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.drop_path = DropPath(drop_path)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            conv = conv2d_he(in_channels, out_channels, 1, stride)
            norm = build_norm(norm_cfg, out_channels)
            self.shortcut = nn.Sequential(OrderedDict(conv=conv, norm=norm))

    @property
    def last_norm(self) -> _BatchNorm:
        """Norm at the end of the branch."""
        raise NotImplementedError(f'{type(self).__name__} needs the method last_norm')

    def branch(self, x: Tensor) -> Tensor:
        """What is added to the shortcut."""
        raise NotImplementedError(f'{type(self).__name__} needs the method branch')

    def forward(self, x: Any) -> Any:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        return self.act(self.shortcut(x) + self.drop_path(self.branch(x)))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions; the first one, ``conv1``, is the replaceable one.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        slot: Place of the replaceable convolution.
        spatial: The module in that place.
        spatial_norm: Norm after it.
        norm_cfg: Batch norm of the others: ``dict(type='BN')`` or ``dict(type='SyncBN')``.
        drop_path: Drop-path rate of the branch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        slot: ConvSlot,
        spatial: nn.Module,
        spatial_norm: nn.Module,
        norm_cfg: NormCfg,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(in_channels, out_channels, slot.stride, norm_cfg, drop_path)
        self.conv1, self.norm1 = spatial, spatial_norm
        self.conv2 = conv2d_he(slot.channels, out_channels, 3, dilation=slot.dilation)
        self.norm2 = build_norm(norm_cfg, out_channels)

    @property
    def last_norm(self) -> _BatchNorm:
        """Norm at the end of the branch."""
        return self.norm2

    def branch(self, x: Tensor) -> Tensor:
        """3x3, 3x3."""
        return self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolution; the second one, ``conv2``, is the replaceable one.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        slot: Place of the replaceable convolution.
        spatial: The module in that place.
        spatial_norm: Norm after it.
        norm_cfg: Batch norm of the others: ``dict(type='BN')`` or ``dict(type='SyncBN')``.
        drop_path: Drop-path rate of the branch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        slot: ConvSlot,
        spatial: nn.Module,
        spatial_norm: nn.Module,
        norm_cfg: NormCfg,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(in_channels, out_channels, slot.stride, norm_cfg, drop_path)
        self.conv1 = conv2d_he(in_channels, slot.in_channels, 1)
        self.norm1 = build_norm(norm_cfg, slot.in_channels)
        self.conv2, self.norm2 = spatial, spatial_norm
        self.conv3 = conv2d_he(slot.channels, out_channels, 1)
        self.norm3 = build_norm(norm_cfg, out_channels)

    @property
    def last_norm(self) -> _BatchNorm:
        """Norm at the end of the branch."""
        return self.norm3

    def branch(self, x: Tensor) -> Tensor:
        """1x1, 3x3, 1x1."""
        x = self.act(self.norm1(self.conv1(x)))
        x = self.act(self.norm2(self.conv2(x)))
        return self.norm3(self.conv3(x))


@dataclass(frozen=True, kw_only=True)
class ResNetArch(Arch):
    """Variant of a ResNet."""

    stem: Size  # channels of the stem's output
    bottleneck: bool  # bottlenecks, else basic blocks
    depths: StageSizes  # number of blocks
    widths: StageSizes  # channels of the 3x3 convolutions
    out_channels: StageSizes  # channels of the maps


def _basic(*depths: int) -> ResNetArch:
    widths = (64, 128, 256, 512)
    return ResNetArch(stem=64, bottleneck=False, depths=depths, widths=widths, out_channels=widths)


def _bottleneck(*depths: int) -> ResNetArch:
    return ResNetArch(
        stem=64,
        bottleneck=True,
        depths=depths,
        widths=(64, 128, 256, 512),
        out_channels=(256, 512, 1024, 2048),
    )


class ResNetArguments(SharedArguments, total=False):
    """Arguments that all ResNets take, by keyword; see :class:`ResNet`."""

    strides: Sequence[int]
    dilations: Sequence[int]
    norm_cfg: NormCfg | None
    zero_init_residual: bool


class ResNet(BaseBackbone):
    """ResNet with replaceable 3x3 convolutions; abstract: a subclass is registered.

    A map has the stride of the stem, 4, times the strides of the stages up to its own.

    Args:
        arch: Name in ``arch_zoo``, or a dict with the fields of :class:`ResNetArch`.
        strides: Stride of the first block of each stage.
        dilations: Dilation of the 3x3 convolutions of each stage.
        norm_cfg: Batch normalisation: ``dict(type='BN')``, the default, or ``dict(type='SyncBN')``.
        zero_init_residual: Let every block start as its shortcut (last norm's weight 0).
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant, or settings that do not fit the number of stages.
    """

    arch_class = ResNetArch
    arch_zoo: ClassVar = {
        'r18': _basic(2, 2, 2, 2),
        'r34': _basic(3, 4, 6, 3),
        'r26': _bottleneck(1, 2, 4, 1),
        'r38': _bottleneck(2, 3, 5, 2),
        'r50': _bottleneck(3, 4, 6, 3),
        'r101': _bottleneck(3, 4, 23, 3),
        'r152': _bottleneck(3, 8, 36, 3),
    }
    arch: ResNetArch

    def __init__(
        self,
        arch: str | Mapping | ResNetArch = 'r50',
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        norm_cfg: NormCfg | None = None,
        zero_init_residual: bool = True,
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        self.depths = list(self.arch.depths)
        self.stage_channels = list(self.arch.out_channels)
        positive(self, strides=strides, dilations=dilations)
        self.strides = self.per_stage(strides=strides)
        self.dilations = self.per_stage(dilations=dilations)
        self.norm_cfg = dict(norm_cfg or BATCH_NORM)
        self.zero_init_residual = zero_init_residual

    def per_stage(self, **argument: Any) -> tuple:
        """Values of an argument for each stage; a single value is taken for all.

        Raises:
            ValueError: Another number of values than stages.
        """
        return per_stage(self, len(self.depths), **argument)

    @property
    def map_strides(self) -> tuple[int, ...]:
        """Strides of the maps of all stages."""
        stages = range(1, len(self.strides) + 1)
        return tuple(4 * math.prod(self.strides[:stage]) for stage in stages)

    # -- what a subclass may replace -------------------------------------------------------------

    def make_stem(self) -> nn.Module:
        """Stem from the image to a map at stride 4 with ``arch.stem`` channels."""
        return PooledConvStem(self.in_channels, self.arch.stem, self.norm_cfg)

    def make_spatial(self, slot: ConvSlot) -> nn.Module:
        """Operator in place of the 3x3 convolution; it initialises itself.

        Args:
            slot: Stage, block, channels, stride and dilation of that convolution.

        Returns:
            Module that maps (N, slot.in_channels, H, W) to
            (N, slot.channels, ceil(H / slot.stride), ceil(W / slot.stride)).
        """
        return self.make_conv(slot)

    @staticmethod
    def make_conv(slot: ConvSlot) -> nn.Conv2d:
        """The 3x3 convolution itself."""
        return conv2d_he(slot.in_channels, slot.channels, 3, slot.stride, slot.dilation)

    def make_spatial_norm(self, slot: ConvSlot) -> nn.Module:
        """Norm after that operator; ``nn.Identity()`` where the operator has its own."""
        return build_norm(self.norm_cfg, slot.channels)

    def block_class(self, slot: ConvSlot) -> Callable[..., ResidualBlock]:
        """Class of the block around that operator."""
        return Bottleneck if self.arch.bottleneck else BasicBlock

    # --------------------------------------------------------------------------------------------

    def make_stage(self, stage: int) -> nn.Module:
        """Residual blocks, the first of which has the stride of the stage."""
        width, out_channels = self.arch.widths[stage], self.stage_channels[stage]
        channels = self.stage_channels[stage - 1] if stage else self.arch.stem
        reduction = self.map_strides[stage - 1] if stage else 4
        blocks = []
        for index, rate in enumerate(self.drop_path_rates[stage]):
            slot = ConvSlot(
                stage=stage,
                block=index,
                in_channels=width if self.arch.bottleneck else channels,
                channels=width,
                stride=self.strides[stage] if index == 0 else 1,
                dilation=self.dilations[stage],
                reduction=reduction,
            )
            blocks.append(self._block(channels, out_channels, slot, rate))
            channels, reduction = out_channels, reduction * slot.stride
        return Stage(blocks, self.with_cp)

    def _block(self, in_channels: int, out_channels: int, slot: ConvSlot, rate: float) -> nn.Module:
        spatial, norm = self.make_spatial(slot), self.make_spatial_norm(slot)
        block = self.block_class(slot)(
            in_channels, out_channels, slot, spatial, norm, self.norm_cfg, rate
        )
        if self.zero_init_residual:
            nn.init.zeros_(block.last_norm.weight)
        return block
