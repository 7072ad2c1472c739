"""SAN, the self-attention network without convolutions beyond 1x1, and SAN with ACmix.

Status: SAN complete; its operators are checked number by number against the official formulation.
SAN with ACmix is a design of this project, since ACmix's authors published no code of it; it has
their parameter count with one set of shift kernels.

Sources: "Exploring Self-attention for Image Recognition" (arXiv 2004.13621), and "On the
Integration of Self-Attention and Convolution" (arXiv 2111.14556).
"""

import functools
from typing import ClassVar

from torch import Tensor, nn

from hybrid_mm.backbones.frames.base import BaseBackbone, build_norm, run_blocks
from hybrid_mm.layers import (
    DropPath,
    PairwiseAttention2d,
    PatchwiseAttention2d,
    drop_path_schedule,
)
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
        norm_cfg: dict | None = None,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        norm = functools.partial(build_norm, norm_cfg or dict(type='BN'))
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


class SANStage(nn.Module):
    """2x2 max pooling, 1x1 convolution, blocks, norm, ReLU.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        blocks: The blocks.
        norm_cfg: Batch normalisation.
        with_cp: Recompute each block in the backward pass.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        blocks: list[nn.Module],
        norm_cfg: dict,
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.downsample = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.blocks = nn.ModuleList(blocks)
        self.norm = build_norm(norm_cfg, channels)
        self.act = nn.ReLU(inplace=True)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / 2), ceil(W / 2))."""
        x = run_blocks(self.blocks, self.downsample(self.pool(x)), self.with_cp)
        return self.act(self.norm(x))


class SANStem(nn.Module):
    """1x1 convolution of the pixels, norm, ReLU, and a first stage at half the resolution."""

    def __init__(self, in_channels: int, channels: int, stage: nn.Module, norm_cfg: dict) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm = build_norm(norm_cfg, channels)
        self.act = nn.ReLU(inplace=True)
        self.stage = stage

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / 2), ceil(W / 2))."""
        return self.stage(self.act(self.norm(self.conv(x))))


def _variant(stem_depth: int, *depths: int) -> dict:
    return dict(
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
        arch: 'san10', 'san15', 'san19', or a dict with ``stem_channels``, ``stem_depth`` and
            ``stem_kernel_size`` of the stage at stride 2, and ``depths``, ``channels`` (multiples
            of 32) and ``kernel_sizes``, one entry per stage.
        attention: 'pairwise' or 'patchwise'.
        acmix: Add ACmix's convolution path to every attention: queries, keys and values are 6 maps
            of C / 16 channels, mixed and shifted by 3x3 kernels.
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0 at stride 4.
        norm_cfg: Batch normalisation: ``dict(type='BN')`` or ``dict(type='SyncBN')``.
        impl: See :class:`~hybrid_mm.layers.attention.pairwise_patchwise.VectorAttention2d`.
        frozen_stages: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        norm_eval: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        with_cp: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        init_cfg: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant or attention, or channels that are no multiples of 32.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import SAN
        >>> maps = SAN('san10', acmix=True).eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 256, 25, 33), (1, 512, 13, 17), (1, 1024, 7, 9), (1, 2048, 4, 5)]
    """

    arch_zoo: ClassVar = {
        'san10': _variant(2, 1, 2, 4, 1),
        'san15': _variant(3, 2, 3, 5, 2),
        'san19': _variant(3, 3, 4, 6, 3),
    }

    def __init__(
        self,
        arch: str | dict = 'san10',
        attention: str = 'patchwise',
        acmix: bool = False,
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        norm_cfg: dict | None = None,
        impl: str = 'auto',
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_channels, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        settings = self.resolve_arch(arch)
        if attention not in ATTENTIONS:
            raise ValueError(
                f'attention of SAN must be one of {", ".join(ATTENTIONS)}, got {attention!r}'
            )
        stem = settings['stem_channels']
        self.depths, self.stage_channels = settings['depths'], settings['channels']
        bad = [c for c in (stem, *self.stage_channels) if c % 32]
        if bad:
            raise ValueError(f'channels of SAN must be multiples of 32, got {bad[0]}')
        norm_cfg = norm_cfg or dict(type='BN')

        def stage(inputs: int, channels: int, kernel_size: int, rates: list[float]) -> SANStage:
            blocks = [
                SANBlock(
                    channels,
                    attention,
                    kernel_size,
                    channels // 16,
                    channels // 4,
                    mix=acmix,
                    drop_path=rate,
                    norm_cfg=norm_cfg,
                    impl=impl,
                )
                for rate in rates
            ]
            return SANStage(inputs, channels, blocks, norm_cfg, with_cp)

        first = stage(stem, stem, settings['stem_kernel_size'], [0.0] * settings['stem_depth'])
        self.stem = SANStem(in_channels, stem, first, norm_cfg)
        self.stages = nn.ModuleList()
        inputs = stem
        for channels, kernel_size, rates in zip(
            self.stage_channels,
            settings['kernel_sizes'],
            drop_path_schedule(drop_path_rate, self.depths),
            strict=True,
        ):
            self.stages.append(stage(inputs, channels, kernel_size, rates))
            inputs = channels
        self.finish()
