"""SAN, the self-attention network without convolutions beyond 1x1, and SAN with ACmix.

Status: SAN complete; its operators are checked number by number against the official formulation.
SAN with ACmix is a design of this project, since ACmix's authors published no code of it; it has
their parameter count with one set of shift kernels.

Sources: "Exploring Self-attention for Image Recognition" (arXiv 2004.13621), and "On the
Integration of Self-Attention and Convolution" (arXiv 2111.14556).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Arch, Count, Size, StageKernels, StageSizes
from hybrid_mm.backbones.frames.base import BaseBackbone, SharedArguments
from hybrid_mm.backbones.frames.blocks import BATCH_NORM, NormCfg, Stage, build_norm
from hybrid_mm.layers import DropPath, PairwiseAttention2d, PatchwiseAttention2d
from hybrid_mm.ops.arguments import multiple_of, odd, one_of
from hybrid_mm.registry import MODELS

ATTENTIONS = {'pairwise': PairwiseAttention2d, 'patchwise': PatchwiseAttention2d}


class SANBlock(nn.Module):
    """Norm, ReLU, attention, norm, ReLU, 1x1, and a residual around them (figure 2).

    Args:
        channels: Number of channels C.
        attention: 'pairwise' or 'patchwise'.
        kernel_size: Window of the attention.
        rel_channels: Channels of queries and keys, C / 16 in the networks.
        mid_channels: Channels of values, C / 4 in the networks.
        share: Channels that share a weight.
        mix: Add the convolution path of ACmix.
        drop_path: Drop-path rate of the branch.
        norm_cfg: Batch normalisation.
        impl: See :class:`~hybrid_mm.layers.attention.pairwise_patchwise.VectorAttention2d`.
    """

    def __init__(
        self,
        channels: int,
        attention: str,
        kernel_size: int,
        rel_channels: int,
        mid_channels: int,
        share: int = 8,
        mix: bool = False,
        drop_path: float = 0.0,
        norm_cfg: NormCfg | None = None,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        norm = functools.partial(build_norm, dict(norm_cfg or BATCH_NORM))
        self.norm1, self.norm2 = norm(channels), norm(mid_channels)
        self.attn = ATTENTIONS[attention](
            channels, rel_channels, mid_channels, share, kernel_size, mix=mix, norm=norm, impl=impl
        )
        self.conv = nn.Conv2d(mid_channels, channels, 1)
        self.act = nn.ReLU(inplace=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        out = self.attn(self.act(self.norm1(x)))
        return x + self.drop_path(self.conv(self.act(self.norm2(out))))


class SANStem(nn.Module):
    """1x1 convolution of the pixels, norm, ReLU, and a first stage at half the resolution."""

    def __init__(
        self, in_channels: int, channels: int, stage: nn.Module, norm_cfg: NormCfg
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm = build_norm(norm_cfg, channels)
        self.act = nn.ReLU(inplace=True)
        self.stage = stage

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / 2), ceil(W / 2))."""
        return self.stage(self.act(self.norm(self.conv(x))))


@dataclass(frozen=True, kw_only=True)
class SANArch(Arch):
    """Variant of a SAN."""

    stem_channels: Size  # channels of the stage at stride 2, a multiple of 32
    stem_depth: Count  # blocks of that stage
    stem_kernel_size: Size  # window of their attention, odd
    depths: StageSizes  # number of blocks
    channels: StageSizes  # channels of the maps, multiples of 32
    kernel_sizes: StageKernels  # windows of the attention

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check the multiples and the window of the stem as well."""
        super().check(owner, name)
        multiple_of(
            owner,
            32,
            **{f'{name}.stem_channels': self.stem_channels, f'{name}.channels': self.channels},
        )
        odd(owner, **{f'{name}.stem_kernel_size': self.stem_kernel_size})


def _variant(stem_depth: int, *depths: int) -> SANArch:
    return SANArch(
        stem_channels=64,
        stem_depth=stem_depth,
        stem_kernel_size=3,
        depths=depths,
        channels=(256, 512, 1024, 2048),
        kernel_sizes=(7, 7, 7, 7),
    )


@MODELS.register_module()
class SAN(BaseBackbone):
    """Network of pairwise or patchwise self-attention, optionally with ACmix's convolution path.

    Maps of any image size from 32 x 32 up: a map has ceil(H / stride) rows, where the official
    code rounds down. With pairwise attention, weights depend on positions relative to the size of
    the image.

    Args:
        arch: 'san10', 'san15', 'san19', or a dict with the fields of :class:`SANArch`.
        attention: 'pairwise' or 'patchwise'.
        acmix: Add ACmix's convolution path to every attention: queries, keys and values are 6 maps
            of C / 16 channels, mixed and shifted by 3x3 kernels.
        norm_cfg: Batch normalisation: ``dict(type='BN')``, the default, or ``dict(type='SyncBN')``.
        impl: See :class:`~hybrid_mm.layers.attention.pairwise_patchwise.VectorAttention2d`.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`; drop-path rates grow
            from 0 at stride 4.

    Raises:
        ValueError: An unknown variant or attention, or channels that are no multiples of 32.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import SAN
        >>> maps = SAN('san10', acmix=True).eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 256, 25, 33), (1, 512, 13, 17), (1, 1024, 7, 9), (1, 2048, 4, 5)]
    """

    arch_class = SANArch
    arch_zoo: ClassVar = {
        'san10': _variant(2, 1, 2, 4, 1),
        'san15': _variant(3, 2, 3, 5, 2),
        'san19': _variant(3, 3, 4, 6, 3),
    }

    arch: SANArch

    def __init__(
        self,
        arch: str | Mapping | SANArch = 'san10',
        attention: str = 'patchwise',
        acmix: bool = False,
        *,
        norm_cfg: NormCfg | None = None,
        impl: str = 'auto',
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        one_of(self, ATTENTIONS, attention=attention)
        self.depths, self.stage_channels = list(self.arch.depths), list(self.arch.channels)
        self.attention, self.acmix, self.impl = attention, acmix, impl
        self.norm_cfg = dict(norm_cfg or BATCH_NORM)
        self.build()

    def make_stem(self) -> nn.Module:
        """1x1 convolution and a stage at stride 2."""
        arch, channels = self.arch, self.arch.stem_channels
        rates = [0.0] * arch.stem_depth
        stage = self._stage(channels, channels, arch.stem_kernel_size, rates)
        return SANStem(self.in_channels, channels, stage, self.norm_cfg)

    def make_stage(self, stage: int) -> nn.Module:
        """2x2 max pooling, 1x1 convolution, blocks, norm, ReLU."""
        before = self.stage_channels[stage - 1] if stage else self.arch.stem_channels
        kernel_size, rates = self.arch.kernel_sizes[stage], self.drop_path_rates[stage]
        return self._stage(before, self.stage_channels[stage], kernel_size, rates)

    def _stage(
        self, in_channels: int, channels: int, kernel_size: int, rates: Sequence[float]
    ) -> Stage:
        blocks = [
            SANBlock(
                channels,
                self.attention,
                kernel_size,
                channels // 16,
                channels // 4,
                mix=self.acmix,
                drop_path=rate,
                norm_cfg=self.norm_cfg,
                impl=self.impl,
            )
            for rate in rates
        ]
        before = {
            'pool': nn.MaxPool2d(2, ceil_mode=True),
            'downsample': nn.Conv2d(in_channels, channels, 1, bias=False),
        }
        after = {'norm': build_norm(self.norm_cfg, channels), 'act': nn.ReLU(inplace=True)}
        return Stage(blocks, self.with_cp, before, after)
