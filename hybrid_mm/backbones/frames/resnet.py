"""Core of the ResNets whose 3x3 convolutions the papers replace by other operators.

Source: "Deep Residual Learning for Image Recognition" (arXiv 1512.03385) in torchvision's form
(v1.5: the stride stands in the 3x3 convolution). A subclass overrides :meth:`ResNet.make_spatial`,
and, where its paper changes them, :meth:`ResNet.make_spatial_norm` and :meth:`ResNet.make_stem`.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from hybrid_mm.backbones.frames.base import BaseBackbone, build_norm, run_blocks
from hybrid_mm.layers import DropPath, drop_path_schedule


@dataclass(frozen=True)
class ConvSlot:
    """Where a 3x3 convolution stands that may be replaced, and what it has to do there.

    Attributes:
        stage: Stage, from 0.
        block: Block within the stage, from 0.
        in_channels: Channels that it gets.
        channels: Channels that it gives.
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


def conv2d(
    in_channels: int, channels: int, kernel_size: int, stride: int = 1, dilation: int = 1
) -> nn.Conv2d:
    """Convolution without bias, padded to ceil(H / stride) rows, with torchvision's He init."""
    padding = dilation * (kernel_size // 2)
    conv = nn.Conv2d(
        in_channels, channels, kernel_size, stride, padding, dilation=dilation, bias=False
    )
    nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
    return conv


class ConvStem(nn.Module):
    """7x7 convolution of stride 2, norm, ReLU, 3x3 max pooling of stride 2.

    Args:
        in_channels: Channels of the image.
        channels: Channels of the output.
        norm_cfg: Batch normalisation.
    """

    def __init__(self, in_channels: int, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        self.conv = conv2d(in_channels, channels, 7, stride=2)
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
        self, in_channels: int, out_channels: int, stride: int, norm_cfg: dict, drop_path: float
    ) -> None:
        super().__init__()
        self.act = nn.ReLU(inplace=True)
        self.drop_path = DropPath(drop_path)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            conv = conv2d(in_channels, out_channels, 1, stride)
            norm = build_norm(norm_cfg, out_channels)
            self.shortcut = nn.Sequential(OrderedDict(conv=conv, norm=norm))

    def branch(self, x: Tensor) -> Tensor:
        """What is added to the shortcut."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        return self.act(self.shortcut(x) + self.drop_path(self.branch(x)))


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions; the first one, ``conv1``, is the replaceable one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        slot: ConvSlot,
        spatial: nn.Module,
        spatial_norm: nn.Module,
        norm_cfg: dict,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(in_channels, out_channels, slot.stride, norm_cfg, drop_path)
        self.conv1, self.norm1 = spatial, spatial_norm
        self.conv2 = conv2d(slot.channels, out_channels, 3, dilation=slot.dilation)
        self.norm2 = build_norm(norm_cfg, out_channels)

    @property
    def last_norm(self) -> nn.Module:
        """Norm at the end of the branch."""
        return self.norm2

    def branch(self, x: Tensor) -> Tensor:
        """3x3, 3x3."""
        return self.norm2(self.conv2(self.act(self.norm1(self.conv1(x)))))


class Bottleneck(ResidualBlock):
    """1x1, 3x3 and 1x1 convolution; the second one, ``conv2``, is the replaceable one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        slot: ConvSlot,
        spatial: nn.Module,
        spatial_norm: nn.Module,
        norm_cfg: dict,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__(in_channels, out_channels, slot.stride, norm_cfg, drop_path)
        self.conv1 = conv2d(in_channels, slot.in_channels, 1)
        self.norm1 = build_norm(norm_cfg, slot.in_channels)
        self.conv2, self.norm2 = spatial, spatial_norm
        self.conv3 = conv2d(slot.channels, out_channels, 1)
        self.norm3 = build_norm(norm_cfg, out_channels)

    @property
    def last_norm(self) -> nn.Module:
        """Norm at the end of the branch."""
        return self.norm3

    def branch(self, x: Tensor) -> Tensor:
        """1x1, 3x3, 1x1."""
        x = self.act(self.norm1(self.conv1(x)))
        x = self.act(self.norm2(self.conv2(x)))
        return self.norm3(self.conv3(x))


class ResNetStage(nn.Module):
    """Residual blocks in turn."""

    def __init__(self, blocks: list[nn.Module], with_cp: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to this stage's."""
        return run_blocks(self.blocks, x, self.with_cp)


def _basic(*depths: int) -> dict:
    widths = [64, 128, 256, 512]
    return dict(stem=64, bottleneck=False, depths=depths, widths=widths, out_channels=widths)


def _bottleneck(*depths: int) -> dict:
    widths, out_channels = [64, 128, 256, 512], [256, 512, 1024, 2048]
    return dict(stem=64, bottleneck=True, depths=depths, widths=widths, out_channels=out_channels)


class ResNet(BaseBackbone):
    """ResNet with replaceable 3x3 convolutions; abstract: a subclass is registered.

    A subclass calls ``super().__init__``, takes its own arguments, and calls :meth:`build`.

    Args:
        arch: Name in ``arch_zoo``, or a dict with its keys: ``stem``, the channels behind the
            stem; ``bottleneck``, the kind of block; and for every stage ``depths``, the number of
            blocks, ``widths``, the channels of the 3x3 convolutions, and ``out_channels``.
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned.
        strides: Stride of the first block of each stage.
        dilations: Dilation of the 3x3 convolutions of each stage.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0.
        norm_cfg: Batch normalisation: ``dict(type='BN')`` or ``dict(type='SyncBN')``.
        zero_init_residual: Let every block start as its shortcut (last norm's weight 0).
        frozen_stages: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        norm_eval: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        with_cp: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        init_cfg: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant, or settings that do not fit the number of stages.
    """

    arch_zoo: ClassVar = {
        'r18': _basic(2, 2, 2, 2),
        'r34': _basic(3, 4, 6, 3),
        'r26': _bottleneck(1, 2, 4, 1),
        'r38': _bottleneck(2, 3, 5, 2),
        'r50': _bottleneck(3, 4, 6, 3),
        'r101': _bottleneck(3, 4, 23, 3),
        'r152': _bottleneck(3, 8, 36, 3),
    }

    def __init__(
        self,
        arch: str | dict = 'r50',
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        strides: tuple[int, ...] = (1, 2, 2, 2),
        dilations: tuple[int, ...] = (1, 1, 1, 1),
        drop_path_rate: float = 0.0,
        norm_cfg: dict | None = None,
        zero_init_residual: bool = True,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_channels, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.settings = self.resolve_arch(arch)
        self.depths = self.settings['depths']
        self.stage_channels = self.settings['out_channels']
        self.strides = self.per_stage('strides', strides)
        self.dilations = self.per_stage('dilations', dilations)
        self.drop_path_rate = drop_path_rate
        self.norm_cfg = norm_cfg or dict(type='BN')
        self.zero_init_residual = zero_init_residual

    def per_stage(self, name: str, values: Any) -> tuple:
        """Values of an argument for each stage; a single value stands for all.

        Raises:
            ValueError: Another number of values than stages.
        """
        stages = len(self.depths)
        values = tuple(values) if isinstance(values, list | tuple) else (values,) * stages
        if len(values) != stages:
            raise ValueError(
                f'{name} of {type(self).__name__}: one entry for each of the {stages} stages '
                f'expected, got {values}'
            )
        return values

    # -- what a subclass may replace -------------------------------------------------------------

    def make_stem(self) -> nn.Module:
        """Stem from the image to a map at stride 4 with ``settings['stem']`` channels."""
        return ConvStem(self.in_channels, self.settings['stem'], self.norm_cfg)

    def make_spatial(self, slot: ConvSlot) -> nn.Module:
        """Operator in the place of the 3x3 convolution; it initialises itself."""
        return conv2d(slot.in_channels, slot.channels, 3, slot.stride, slot.dilation)

    def make_spatial_norm(self, slot: ConvSlot) -> nn.Module:
        """Norm behind that operator; ``nn.Identity()`` where the operator has its own."""
        return build_norm(self.norm_cfg, slot.channels)

    def block_class(self, slot: ConvSlot) -> type[ResidualBlock]:
        """Class of the block around that operator."""
        return Bottleneck if self.settings['bottleneck'] else BasicBlock

    # --------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Build stem and stages; the subclass calls it when its arguments are set."""
        settings = self.settings
        self.stem = self.make_stem()
        self.stages = nn.ModuleList()
        rates = drop_path_schedule(self.drop_path_rate, self.depths)
        channels, reduction = settings['stem'], 4
        for stage, out_channels in enumerate(self.stage_channels):
            width, blocks = settings['widths'][stage], []
            for index, rate in enumerate(rates[stage]):
                slot = ConvSlot(
                    stage=stage,
                    block=index,
                    in_channels=width if settings['bottleneck'] else channels,
                    channels=width,
                    stride=self.strides[stage] if index == 0 else 1,
                    dilation=self.dilations[stage],
                    reduction=reduction,
                )
                blocks.append(self._block(channels, out_channels, slot, rate))
                channels, reduction = out_channels, reduction * slot.stride
            self.stages.append(ResNetStage(blocks, self.with_cp))
        self.finish()

    def _block(self, in_channels: int, out_channels: int, slot: ConvSlot, rate: float) -> nn.Module:
        kind = self.block_class(slot)
        spatial, norm = self.make_spatial(slot), self.make_spatial_norm(slot)
        block = kind(in_channels, out_channels, slot, spatial, norm, self.norm_cfg, rate)
        if self.zero_init_residual:
            nn.init.zeros_(block.last_norm.weight)
        return block
