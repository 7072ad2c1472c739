"""Core of HaloNet, BoTNet and their hybrids: bottlenecks with a convolution or with attention.

Source: the papers of the two, and the block layouts that timm trained them with (RegNetZ,
ResNeXt-26t and the like): stems, channel gates, grouped convolutions, widths by the input.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from torch import Tensor, nn

from hybrid_mm.backbones.frames.base import BaseBackbone, build_norm, run_blocks
from hybrid_mm.backbones.frames.resnet import ConvSlot
from hybrid_mm.layers import DropPath, drop_path_schedule
from hybrid_mm.layers.channel_gate import EfficientChannelGate, SqueezeExcite
from hybrid_mm.layers.heads import make_divisible

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    'relu': partial(nn.ReLU, inplace=True),
    'silu': nn.SiLU,
}


GATES: dict[str, Callable[..., nn.Module]] = {'se': SqueezeExcite, 'eca': EfficientChannelGate}


# kernel size and, for n channels behind the stem, channels and strides of its convolutions
STEMS: dict[str, tuple[int, Callable[[int, bool], list[tuple[int, int]]]]] = {
    '7x7': (7, lambda n, pool: [(n, 2)]),
    '3x3': (3, lambda n, pool: [(n, 2)]),
    'tiered': (3, lambda n, pool: [(3 * n // 8, 2), (n // 2, 1), (n, 1 if pool else 2)]),
}


def conv2d(
    in_channels: int, channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    """Convolution without bias to ceil(H / stride) rows; He initialisation over the fan-out."""
    conv = nn.Conv2d(
        in_channels, channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
    )
    nn.init.normal_(conv.weight, std=math.sqrt(2 / (kernel_size**2 * channels / groups)))
    return conv


def conv_norm(
    in_channels: int,
    channels: int,
    kernel_size: int,
    norm_cfg: dict,
    stride: int = 1,
    act: str | None = None,
) -> nn.Sequential:
    """Convolution, norm and activation if any, as ``conv``, ``norm`` and ``act``."""
    layers = OrderedDict(conv=conv2d(in_channels, channels, kernel_size, stride))
    layers['norm'] = build_norm(norm_cfg, channels)
    if act:
        layers['act'] = ACTIVATIONS[act]()
    return nn.Sequential(layers)


class Stem(nn.Module):
    """One convolution of stride 2, or three ('tiered'), and 3x3 max pooling of stride 2 if asked.

    Args:
        in_channels: Channels of the image.
        channels: Channels of the output.
        kind: '7x7', '3x3' or 'tiered': three 3x3 convolutions of 3/8, 1/2 and all channels, of
            which the last has stride 2 if there is no pooling.
        pool: With the pooling.
        act: Activation.
        norm_cfg: Batch normalisation.
    """

    def __init__(
        self, in_channels: int, channels: int, kind: str, pool: bool, act: str, norm_cfg: dict
    ) -> None:
        super().__init__()
        kernel_size, plan = STEMS[kind]
        self.layers = nn.ModuleList()
        for width, stride in plan(channels, pool):
            self.layers.append(conv_norm(in_channels, width, kernel_size, norm_cfg, stride, act))
            in_channels = width
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H / 2 or H / 4, W likewise), rounded up."""
        for layer in self.layers:
            x = layer(x)
        return self.pool(x)


class HybridBottleneck(nn.Module):
    """1x1 convolution, 3x3 convolution or attention, 1x1 convolution, and the shortcut.

    Each is followed by a batch norm, the first two by the activation as well.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        slot: Place, widths and stride of the middle.
        spatial: Operator in the middle.
        norm_cfg: Batch normalisation.
        act: Activation.
        gate: Channel gate, or None.
        gate_place: 'mid' behind the middle, 'out' behind the last norm.
        linear_out: No activation after the sum.
        shortcut: Where stride or channels change, a 1x1 convolution takes the place of the
            shortcut; without, such a block has none at all.
        shortcut_act: Activation behind that convolution.
        drop_path: Drop-path rate of the branch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        slot: ConvSlot,
        spatial: nn.Module,
        norm_cfg: dict,
        act: str = 'relu',
        gate: nn.Module | None = None,
        gate_place: str = 'mid',
        linear_out: bool = False,
        shortcut: bool = True,
        shortcut_act: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1 = conv2d(in_channels, slot.in_channels, 1)
        self.norm1 = build_norm(norm_cfg, slot.in_channels)
        self.conv2 = spatial
        self.norm2 = build_norm(norm_cfg, slot.channels)
        self.conv3 = conv2d(slot.channels, out_channels, 1)
        self.norm3 = build_norm(norm_cfg, out_channels)
        self.gate, self.gate_place = gate, gate_place
        self.act = ACTIVATIONS[act]()
        self.out_act = nn.Identity() if linear_out else ACTIVATIONS[act]()
        self.drop_path = DropPath(drop_path)
        self.shortcut: nn.Module | None = nn.Identity()
        if slot.stride != 1 or in_channels != out_channels:
            self.shortcut = None
            if shortcut:
                name = act if shortcut_act else None
                self.shortcut = conv_norm(in_channels, out_channels, 1, norm_cfg, slot.stride, name)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        y = self.act(self.norm1(self.conv1(x)))
        y = self.act(self.norm2(self.conv2(y)))
        if self.gate is not None and self.gate_place == 'mid':
            y = self.gate(y)
        y = self.norm3(self.conv3(y))
        if self.gate is not None and self.gate_place == 'out':
            y = self.gate(y)
        y = self.drop_path(y)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.out_act(y)


class Stage(nn.Module):
    """Blocks in turn, and behind those of the last stage of a classifier its 1x1 convolution."""

    def __init__(self, blocks: list[nn.Module], final: nn.Module | None, with_cp: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.final = final
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to this stage's."""
        x = run_blocks(self.blocks, x, self.with_cp)
        return x if self.final is None else self.final(x)


class BottleneckNet(BaseBackbone):
    """Network of :class:`HybridBottleneck`; abstract: a subclass has :meth:`make_attention`.

    A subclass calls ``super().__init__``, takes its own arguments, and calls :meth:`build`.

    Args:
        arch: Name in ``arch_zoo``, or a dict that changes settings of the variant named by its key
            ``base``, or of none. Settings are, with one entry for each stage: ``depths``,
            ``channels`` of the output, ``ratios`` of the middle of a block to them, ``heads``,
            ``strides`` of the first blocks, and ``attention``, the indices of the blocks with
            attention (True for all of them, False for none). For the whole network:

            * ``stem``: ``dict(kind='7x7' | '3x3' | 'tiered', channels=..., pool=True | False)``;
            * ``act``: 'relu' or 'silu';
            * ``group_size``: channels of a group of the 3x3 convolutions, 0 for one group;
            * ``gate``: None, or ``dict(kind='se' | 'eca', place='mid' | 'out')``, for 'se' with
              its ``ratio`` of C to the hidden width; those in the middle only stand in blocks
              without attention;
            * ``value_ratio``: channels of the values to those of the queries;
            * ``bottle_in``: ``ratios`` count from the input of a block, not from its output;
            * ``linear_out``: no activation behind the sum of a block;
            * ``shortcut``: convolution in the shortcut where its shape changes, or none at all;
            * ``final``: channels of the 1x1 convolution of a classifier, or None;
            * those of the kind of attention.
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned.
        strides: Strides of the stages, by default the variant's.
        final_conv: Put the variant's last 1x1 convolution behind the last stage, for
            classification.
        shortcut_act: Activation behind the convolution of a shortcut.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0.
        norm_cfg: Batch normalisation: ``dict(type='BN')`` or ``dict(type='SyncBN')``.
        zero_init_residual: Let every block start as its shortcut (last norm's weight 0); only
            those blocks that have one.
        impl: Algorithm of attention, see :mod:`hybrid_mm.ops.local_attention`.
        frozen_stages: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        norm_eval: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        with_cp: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        init_cfg: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant, or settings that do not fit each other.
    """

    arch_defaults: ClassVar[dict[str, Any]] = dict(
        ratios=[0.25] * 4,
        strides=[1, 2, 2, 2],
        stem=dict(kind='7x7', channels=64, pool=True),
        act='relu',
        group_size=0,
        gate=None,
        value_ratio=1.0,
        bottle_in=False,
        linear_out=False,
        shortcut=True,
        final=None,
    )

    def __init__(
        self,
        arch: str | dict,
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        strides: tuple[int, ...] | None = None,
        final_conv: bool = False,
        shortcut_act: bool = False,
        drop_path_rate: float = 0.0,
        norm_cfg: dict | None = None,
        zero_init_residual: bool = True,
        impl: str = 'auto',
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_channels, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.settings = self.resolve_arch(
            arch if strides is None else dict(self._as_dict(arch), strides=list(strides))
        )
        if final_conv and self.settings['final'] is None:
            raise ValueError(f'arch {arch!r} has no final convolution: final_conv must be False')
        self.depths = list(self.settings['depths'])
        self.stage_channels = list(self.settings['channels'])
        if final_conv:
            self.stage_channels[-1] = self.settings['final']
        self.final_conv, self.shortcut_act = final_conv, shortcut_act
        self.drop_path_rate = drop_path_rate
        self.norm_cfg = norm_cfg or dict(type='BN')
        self.zero_init_residual, self.impl = zero_init_residual, impl

    @staticmethod
    def _as_dict(arch: str | dict) -> dict:
        return dict(base=arch) if isinstance(arch, str) else arch

    @classmethod
    def resolve_arch(cls, arch: str | dict) -> dict:
        """Settings of a variant, by name or as a dict of changes.

        Raises:
            ValueError: Unknown name, missing or unknown keys, values that do not fit each other.
        """
        arch = dict(cls._as_dict(arch))
        base = arch.pop('base', None)
        start = cls.arch_defaults if base is None else super().resolve_arch(base)
        settings = super().resolve_arch({**start, **arch})
        stem, gate = settings['stem'], settings['gate']
        choices = [('stem.kind', stem.get('kind'), STEMS), ('act', settings['act'], ACTIVATIONS)]
        if gate:
            choices += [
                ('gate.kind', gate.get('kind'), GATES),
                ('gate.place', gate.get('place'), ('mid', 'out')),
            ]
        for name, value, known in choices:
            if value not in known:
                raise ValueError(
                    f'arch of {cls.__name__}: {name} must be one of {", ".join(known)}, '
                    f'got {value!r}'
                )
        return settings

    # -- what a subclass has or may replace ------------------------------------------------------

    def make_attention(self, slot: ConvSlot) -> nn.Module:
        """Attention in the place of a 3x3 convolution."""
        raise NotImplementedError

    # --------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Build stem and stages; the subclass calls it when its arguments are set."""
        settings, stem = self.settings, self.settings['stem']
        self.stem = Stem(self.in_channels, act=settings['act'], norm_cfg=self.norm_cfg, **stem)
        self.stages = nn.ModuleList()
        rates = drop_path_schedule(self.drop_path_rate, self.depths)
        channels, reduction = stem['channels'], 4 if stem['pool'] or stem['kind'] == 'tiered' else 2
        for stage, out_channels in enumerate(settings['channels']):
            attention, blocks = self._attention_blocks(stage), []
            for index, rate in enumerate(rates[stage]):
                width = channels if settings['bottle_in'] else out_channels
                width = make_divisible(width * settings['ratios'][stage])
                attends = index in attention
                slot = ConvSlot(
                    stage=stage,
                    block=index,
                    in_channels=width,
                    channels=round(width * settings['value_ratio']) if attends else width,
                    stride=settings['strides'][stage] if index == 0 else 1,
                    dilation=1,
                    reduction=reduction,
                )
                blocks.append(self._block(channels, out_channels, slot, attends, rate))
                channels, reduction = out_channels, reduction * slot.stride
            final = None
            if self.final_conv and stage == len(self.depths) - 1:
                final = conv_norm(
                    channels, self.stage_channels[-1], 1, self.norm_cfg, act=settings['act']
                )
            self.stages.append(Stage(blocks, final, self.with_cp))
        self.finish()

    def _attention_blocks(self, stage: int) -> tuple[int, ...]:
        blocks, depth = self.settings['attention'][stage], self.depths[stage]
        if isinstance(blocks, bool):
            return tuple(range(depth)) if blocks else ()
        if any(not 0 <= index < depth for index in blocks):
            raise ValueError(
                f'arch of {type(self).__name__}: attention of stage {stage} must name blocks '
                f'0..{depth - 1}, got {blocks}'
            )
        return tuple(blocks)

    def _block(
        self, in_channels: int, out_channels: int, slot: ConvSlot, attends: bool, rate: float
    ) -> nn.Module:
        settings = self.settings
        if attends:
            spatial = self.make_attention(slot)
        else:
            width, size = slot.channels, settings['group_size'] or slot.channels
            if width % size:
                raise ValueError(
                    f'arch of {type(self).__name__}: group_size {size} does not divide the {width} '
                    f'channels in the middle of a block of stage {slot.stage}'
                )
            spatial = conv2d(width, width, 3, slot.stride, groups=width // size)
        gate, place = None, 'mid'
        if settings['gate']:
            kwargs = dict(settings['gate'])
            kind, place = kwargs.pop('kind'), kwargs.pop('place')
            if place == 'out' or not attends:
                gate = GATES[kind](out_channels if place == 'out' else slot.channels, **kwargs)
        block = HybridBottleneck(
            in_channels,
            out_channels,
            slot,
            spatial,
            self.norm_cfg,
            settings['act'],
            gate,
            place,
            settings['linear_out'],
            settings['shortcut'],
            self.shortcut_act,
            rate,
        )
        if self.zero_init_residual and block.shortcut is not None:
            nn.init.zeros_(block.norm3.weight)
        return block
