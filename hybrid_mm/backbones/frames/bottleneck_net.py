"""Core of HaloNet, BoTNet and their hybrids: bottlenecks with a convolution or with attention.

Source: the papers of the two, and the block layouts that timm trained them with (RegNetZ,
ResNeXt-26t and the like): stems, channel gates, grouped convolutions, widths by the input.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import (
    Arch,
    Count,
    Ratio,
    Size,
    StageOptions,
    StageRatios,
    StageSizes,
)
from hybrid_mm.backbones.frames.base import BaseBackbone, SharedArguments
from hybrid_mm.backbones.frames.blocks import BATCH_NORM, NormCfg, Stage, conv2d_he
from hybrid_mm.backbones.frames.byob_fields import ByobAttention, from_byob
from hybrid_mm.backbones.frames.hybrid_bottleneck import (
    ACTIVATIONS,
    GATES,
    STEMS,
    HybridBottleneck,
    Stem,
    named_conv_norm,
    stem_stride,
)
from hybrid_mm.backbones.frames.resnet import ConvSlot
from hybrid_mm.layers.heads import make_divisible
from hybrid_mm.ops.arguments import one_of, per_stage, positive

__all__ = ['BottleneckArch', 'BottleneckNet', 'BottleneckNetArguments', 'GateArch', 'StemArch']


@dataclass(frozen=True, kw_only=True)
class StemArch(Arch):
    """Stem of a :class:`BottleneckNet`, see :class:`Stem`."""

    kind: str  # '7x7', '3x3', 'tiered', 'deep' or 'quad'
    channels: Size  # channels of its output
    pool: bool  # max pooling at its end

    def check(self, owner: str, name: str = 'arch.stem') -> None:
        """Check the kind, and the width of the first convolution, as well."""
        super().check(owner, name)
        one_of(owner, STEMS, **{f'{name}.kind': self.kind})
        first, _ = STEMS[self.kind][1](self.channels, self.pool)[0]
        positive(owner, **{f'channels of the first convolution of {name}': first})


@dataclass(frozen=True, kw_only=True)
class GateArch(Arch):
    """Channel gate of the blocks of a :class:`BottleneckNet`."""

    kind: str  # 'se' or 'eca'
    # 'mid': after the middle of blocks without attention; 'out': after the last norm of all blocks;
    # 'out-conv': after that of blocks without attention
    place: str  # where the gate sits
    ratio: Ratio | None = None  # of the channels to the hidden width of 'se'; None for its default

    def check(self, owner: str, name: str = 'arch.gate') -> None:
        """Check kind and place as well."""
        super().check(owner, name)
        one_of(owner, GATES, **{f'{name}.kind': self.kind})
        one_of(owner, ('mid', 'out', 'out-conv'), **{f'{name}.place': self.place})
        if self.ratio is not None:
            positive(owner, **{f'{name}.ratio': self.ratio})


@dataclass(frozen=True, kw_only=True)
class BottleneckArch(Arch):
    """Variant of a :class:`BottleneckNet`; those of a kind of attention are added by subclasses."""

    depths: StageSizes  # number of blocks
    channels: StageSizes  # channels of the maps
    # indices of the blocks with attention
    attention: StageOptions  # one entry per stage; True for all of its blocks, False for none
    ratios: StageRatios = (0.25, 0.25, 0.25, 0.25)  # width of the middle of a block to its output
    strides: StageSizes = (1, 2, 2, 2)  # of the first blocks
    stem: StemArch = StemArch(kind='7x7', channels=64, pool=True)  # a dict of these fields
    act: str = 'relu'  # or 'silu'
    group_size: Count = 0  # channels of a group of the 3x3 convolutions, 0 for one group
    gate: GateArch | None = None  # channel gate, a dict of its fields
    value_ratio: Ratio = 1.0  # channels of the values to those of the queries
    bottle_in: bool = False  # ratios count from the input of a block, not from its output
    linear_out: bool = False  # no activation after the sum of a block
    shortcut: bool = True  # a convolution in a shortcut whose shape changes; else no shortcut there
    final: Size | None = None  # channels of the 1x1 convolution at the end of classifiers

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check activation and blocks with attention as well."""
        super().check(owner, name)
        one_of(owner, ACTIVATIONS, **{f'{name}.act': self.act})
        for stage in range(len(self.depths)):
            self.attention_blocks(stage, owner)
        positive(owner, **{f'{name}.value_ratio': self.value_ratio})

    def attention_blocks(self, stage: int, owner: str = 'BottleneckNet') -> tuple[int, ...]:
        """Indices of the blocks of a stage that have attention.

        Raises:
            ValueError: A block that does not exist.
        """
        blocks, depth = self.attention[stage], self.depths[stage]
        if isinstance(blocks, bool):
            return tuple(range(depth)) if blocks else ()
        if not isinstance(blocks, list | tuple) or any(not 0 <= i < depth for i in blocks):
            raise ValueError(
                f'arch of {owner}: attention of stage {stage} must name blocks 0..{depth - 1}, '
                f'got {blocks}'
            )
        return tuple(blocks)


class BottleneckNetArguments(SharedArguments, total=False):
    """Arguments that all of these networks take, by keyword; see :class:`BottleneckNet`."""

    strides: Sequence[int] | None
    final_conv: bool
    shortcut_act: bool
    norm_cfg: NormCfg | None
    zero_init_residual: bool
    impl: str


class BottleneckNet(BaseBackbone):
    """Network of bottlenecks; abstract: a subclass is registered and has :meth:`make_attention`.

    Args:
        arch: Name in ``arch_zoo``, or a dict with fields of :class:`BottleneckArch` that change the
            variant named by its key ``base``, or, without ``base``, the defaults. Or a dict with
            ``blocks`` and other fields of timm's ``ByoModelCfg``, see
            ``hybrid_mm.backbones.frames.byob_fields.from_byob``.
        strides: Strides of the stages, by default the variant's.
        final_conv: End the last stage with the variant's last 1x1 convolution, for classification.
        shortcut_act: Activation after the convolution of the shortcut of blocks with attention.
        norm_cfg: Batch normalisation: ``dict(type='BN')``, the default, or ``dict(type='SyncBN')``.
        zero_init_residual: Let every block start as its shortcut (last norm's weight 0); only
            those blocks that have one.
        impl: Algorithm of attention, see :mod:`hybrid_mm.ops.local_attention`.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant, or settings that do not fit each other.
    """

    arch_class: ClassVar[type[BottleneckArch]] = BottleneckArch
    # name of the attention in timm, and of its arguments there and the fields of ours
    byob_attention: ClassVar[ByobAttention]
    arch: BottleneckArch

    def __init__(
        self,
        arch: str | Mapping | BottleneckArch,
        strides: Sequence[int] | None = None,
        final_conv: bool = False,
        shortcut_act: bool = False,
        norm_cfg: NormCfg | None = None,
        zero_init_residual: bool = True,
        impl: str = 'auto',
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        if strides is not None:
            positive(self, strides=strides)
            strides = per_stage(self, len(self.arch.depths), strides=strides)
            self.arch = replace(self.arch, strides=strides)
        if final_conv and self.arch.final is None:
            raise ValueError(f'arch {arch!r} has no final convolution: final_conv must be False')
        self.depths = list(self.arch.depths)
        self.stage_channels = list(self.arch.channels)
        if final_conv and self.arch.final is not None:
            self.stage_channels[-1] = self.arch.final
        self.final_conv, self.shortcut_act = final_conv, shortcut_act
        self.norm_cfg = dict(norm_cfg or BATCH_NORM)
        self.zero_init_residual, self.impl = zero_init_residual, impl

    @classmethod
    def resolve_arch(cls, arch: str | Mapping | Arch) -> Any:
        """Return a variant, given by name or as a dict of changes to the one named by ``base``.

        Raises:
            ValueError: Unknown name, missing or unknown keys, values that do not fit each other,
                fields of timm that the network cannot express.
        """
        if isinstance(arch, Mapping) and 'blocks' in arch:
            arch = from_byob(arch, cls.byob_attention, cls.__name__)
        elif isinstance(arch, Mapping) and arch.get('base') is not None:
            changes = {key: value for key, value in arch.items() if key != 'base'}
            arch = {**super().resolve_arch(arch['base']).to_dict(), **changes}
        elif isinstance(arch, Mapping):
            arch = {key: value for key, value in arch.items() if key != 'base'}
        return super().resolve_arch(arch)

    @property
    def map_strides(self) -> tuple[int, ...]:
        """Strides of the maps of all stages."""
        strides = itertools.accumulate(self.arch.strides, lambda a, b: a * b)
        return tuple(self._stem_stride * stride for stride in strides)

    @property
    def _stem_stride(self) -> int:
        return stem_stride(self.arch.stem.kind, self.arch.stem.pool)

    # -- what a subclass has or may replace ------------------------------------------------------

    def make_attention(self, slot: ConvSlot) -> nn.Module:
        """Attention in place of a 3x3 convolution; what a subclass has to define.

        Args:
            slot: Stage, block, channels, stride and dilation of that convolution.
        """
        raise NotImplementedError(f'{type(self).__name__} needs the method make_attention')

    # --------------------------------------------------------------------------------------------

    def leaves_out(self, key: str) -> bool:
        """Whether a key is of what only maps that are not returned, or only classifiers need."""
        final = f'stages.{len(self.depths) - 1}.final.'
        return super().leaves_out(key) or (not self.final_conv and key.startswith(final))

    def make_stem(self) -> nn.Module:
        """The variant's stem."""
        stem = self.arch.stem
        return Stem(
            self.in_channels, stem.channels, stem.kind, stem.pool, self.arch.act, self.norm_cfg
        )

    def make_stage(self, stage: int) -> nn.Module:
        """Blocks, and after those of the last stage of a classifier its 1x1 convolution."""
        arch, out_channels = self.arch, self.arch.channels[stage]
        channels = arch.channels[stage - 1] if stage else arch.stem.channels
        reduction = self.map_strides[stage - 1] if stage else self._stem_stride
        attention, blocks = arch.attention_blocks(stage, type(self).__name__), []
        for index, rate in enumerate(self.drop_path_rates[stage]):
            width = channels if arch.bottle_in else out_channels
            width = make_divisible(width * arch.ratios[stage])
            attends = index in attention
            slot = ConvSlot(
                stage=stage,
                block=index,
                in_channels=width,
                channels=round(width * arch.value_ratio) if attends else width,
                stride=arch.strides[stage] if index == 0 else 1,
                dilation=1,
                reduction=reduction,
            )
            blocks.append(self._block(channels, out_channels, slot, attends, rate))
            channels, reduction = out_channels, reduction * slot.stride
        after = {}
        if self.final_conv and stage == len(self.depths) - 1:
            last = self.stage_channels[-1]
            after['final'] = named_conv_norm(channels, last, 1, self.norm_cfg, act=arch.act)
        return Stage(blocks, self.with_cp, after=after)

    def _block(
        self, in_channels: int, out_channels: int, slot: ConvSlot, attends: bool, rate: float
    ) -> nn.Module:
        arch = self.arch
        if attends:
            spatial = self.make_attention(slot)
        else:
            width, size = slot.channels, arch.group_size or slot.channels
            if width % size:
                raise ValueError(
                    f'arch of {type(self).__name__}: group_size {size} does not divide the {width} '
                    f'channels in the middle of a block of stage {slot.stage}'
                )
            spatial = conv2d_he(width, width, 3, slot.stride, groups=width // size)
        gate, place = None, 'mid'
        if arch.gate is not None and (arch.gate.place == 'out' or not attends):
            place = arch.gate.place.removesuffix('-conv')
            kwargs = {} if arch.gate.ratio is None else dict(ratio=arch.gate.ratio)
            width = out_channels if place == 'out' else slot.channels
            gate = GATES[arch.gate.kind](width, **kwargs)
        block = HybridBottleneck(
            in_channels,
            out_channels,
            slot,
            spatial,
            self.norm_cfg,
            arch.act,
            gate,
            place,
            arch.linear_out,
            arch.shortcut,
            self.shortcut_act and attends,
            rate,
        )
        if self.zero_init_residual and block.shortcut is not None:
            nn.init.zeros_(block.norm3.weight)
        return block
