"""Core of the networks of MBConv and attention: MaxViT and CoAtNet."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Arch, Ratio, Size, StageSizes
from hybrid_mm.backbones.frames.base import BaseBackbone, SharedArguments
from hybrid_mm.backbones.frames.blocks import BATCH_NORM, NormCfg, Stage, build_norm
from hybrid_mm.backbones.frames.maxxvit_fields import is_fields, variant
from hybrid_mm.convert.core import StateDict
from hybrid_mm.layers.convolution.mbconv import ACTIVATIONS, Conv3x3, MBConv, choice
from hybrid_mm.layers.norm import LayerNorm2d
from hybrid_mm.ops.argument_types import check_keywords
from hybrid_mm.ops.arguments import not_negative, positive

__all__ = ['MBConvArch', 'MBConvArguments', 'MBConvPyramid', 'TwoConvStem', 'TwoConvStemArch']


class TwoConvStem(nn.Module):
    """3x3 convolution of stride 2, batch norm, activation, 3x3 convolution.

    Args:
        in_channels: Channels of the image.
        channels: Channels of both convolutions.
        act: Activation, 'gelu', 'gelu_tanh', 'silu' or 'relu'.
        padding: See :class:`~hybrid_mm.layers.convolution.mbconv.Conv3x3`.
        bias: Bias of the convolutions.
        norm: Makes a batch norm of a number of channels.
    """

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, int],
        act: str,
        padding: str,
        bias: bool,
        norm: Callable[[int], nn.Module],
    ) -> None:
        super().__init__()
        self.conv1 = Conv3x3(in_channels, channels[0], 2, padding, bias=bias)
        self.norm1 = norm(channels[0])
        self.act = ACTIVATIONS[choice('act', act, ACTIVATIONS)]
        self.conv2 = Conv3x3(channels[0], channels[1], 1, padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / 2), ceil(W / 2))."""
        return self.conv2(self.act(self.norm1(self.conv1(x))))


@dataclass(frozen=True, kw_only=True)
class TwoConvStemArch(Arch):
    """Stem of a :class:`MBConvPyramid`."""

    channels: tuple[int, int]  # channels of its two convolutions
    bias: bool  # biases of these

    def check(self, owner: str, name: str = 'arch.stem') -> None:
        """Check the number of channels as well."""
        super().check(owner, name)
        if len(self.channels) != 2:
            raise ValueError(
                f'{name}.channels of {owner}: two numbers of channels expected, got {self.channels}'
            )
        positive(owner, **{f'{name}.channels': self.channels})


@dataclass(frozen=True, kw_only=True)
class MBConvArch(Arch):
    """Variant of a :class:`MBConvPyramid`."""

    depths: StageSizes  # number of blocks
    channels: StageSizes  # channels of the maps
    stem: TwoConvStemArch  # a dict of its fields
    conv: Mapping[str, Any]  # arguments of :class:`~hybrid_mm.layers.convolution.mbconv.MBConv`
    norm: Mapping[str, Any]  # arguments of the batch norms
    ln_eps: Ratio  # epsilon of the layer norms
    head_width: Size = 32  # channels of a head

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check the numbers among the arguments of the convolutions and norms as well."""
        super().check(owner, name)
        check_numbers(owner, f'{name}.conv', self.conv, MBConv)
        check_numbers(owner, f'{name}.norm', self.norm, nn.BatchNorm2d)


def check_numbers(
    owner: str, name: str, arguments: Mapping[str, Any], layer: type[nn.Module]
) -> None:
    """Check that the arguments of a layer are a dict, its numbers finite and not negative.

    Raises:
        ValueError: Names the argument and what was given.
    """
    check_keywords(owner, name, arguments, layer)
    numbers = {key: value for key, value in arguments.items() if isinstance(value, int | float)}
    not_negative(owner, **{f'{name}.{key}': value for key, value in numbers.items()})


class MBConvArguments(SharedArguments, total=False):
    """Arguments that all of these networks take, by keyword; see :class:`MBConvPyramid`."""

    norm_outputs: bool
    pooled: bool
    norm_cfg: NormCfg | None


class MBConvPyramid(BaseBackbone):
    """Stem and stages of blocks that a subclass makes, the first of a stage with stride 2.

    Args:
        arch: Name of a variant, or a dict with the fields of its ``arch_class``, or one with those
            of timm's ``MaxxVitCfg``.
        norm_outputs: Layer norm of each returned map, over its channels.
        pooled: Average the last map before its norm and return it as (N, C, 1, 1), as classifiers
            do.
        norm_cfg: Batch normalisation, ``dict(type='BN')``, the default, or ``dict(type='SyncBN')``;
            epsilon and momentum are those of the variant if they are not in it.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
    """

    arch_class: ClassVar[type[MBConvArch]] = MBConvArch
    arch: MBConvArch

    def __init__(
        self,
        arch: str | Mapping | MBConvArch,
        norm_outputs: bool = False,
        pooled: bool = False,
        norm_cfg: NormCfg | None = None,
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        self.depths, self.stage_channels = list(self.arch.depths), list(self.arch.channels)
        self.norm_outputs, self.pooled = norm_outputs, pooled
        norm_cfg = {**self.arch.norm, **(norm_cfg or BATCH_NORM)}
        self.conv_settings: dict[str, Any] = dict(
            self.arch.conv, norm=functools.partial(build_norm, norm_cfg)
        )

    @classmethod
    def resolve_arch(cls, arch: str | Mapping | Arch) -> Any:
        """Return a variant, also by the fields of timm's ``MaxxVitCfg``.

        Raises:
            ValueError: As for other networks; a field of timm that has no counterpart is named.
        """
        return super().resolve_arch(variant(arch, cls.__name__) if is_fields(arch) else arch)

    def make_stem(self) -> nn.Module:
        """Two 3x3 convolutions."""
        act, padding = (
            self.conv_settings.get(name, default)
            for name, default in (('act', 'gelu'), ('padding', 'same'))
        )
        stem, norm = self.arch.stem, self.conv_settings['norm']
        return TwoConvStem(self.in_channels, stem.channels, act, padding, stem.bias, norm)

    def make_stage(self, stage: int) -> nn.Module:
        """Blocks; the norm is that of the returned map."""
        channels = self.stage_channels[stage]
        before = self.stage_channels[stage - 1] if stage else self.arch.stem.channels[1]
        blocks = [
            self.make_block(stage, channels if j else before, channels, 1 if j else 2, rate)
            for j, rate in enumerate(self.drop_path_rates[stage])
        ]
        normed = self.norm_outputs and self.returns(stage)
        norm = LayerNorm2d(channels, self.arch.ln_eps) if normed else nn.Identity()
        return Stage(blocks, self.with_cp, norm=norm)

    def make_block(
        self, stage: int, in_channels: int, channels: int, stride: int, drop_path: float
    ) -> nn.Module:
        """Block of a stage, (N, in_channels, H, W) to (N, channels, H', W')."""
        raise NotImplementedError(f'{type(self).__name__} needs the method make_block')

    def reset_parameters(self) -> None:
        """Draw the weights as the variants were trained from."""
        raise NotImplementedError(f'{type(self).__name__} needs the method reset_parameters')

    def returned_map(self, stage: int, state: Tensor) -> Tensor:
        """The map of a stage as it is returned."""
        if self.pooled and stage == len(self.depths) - 1:
            state = state.mean((2, 3), keepdim=True)
        return self.stages[stage].norm(state)

    def may_lack_norm(self, stage: int) -> bool:
        """Any."""
        return True

    def initial_values(self, state: StateDict) -> StateDict:
        """Norms of the returned maps, where the file has none."""
        return self.norms_of_maps()
