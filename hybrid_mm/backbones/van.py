"""VAN with large kernel attention (LKA) or large separable kernel attention (LSKA).

Status: complete; checked number by number against the official classification, detection and
segmentation code of both papers.

Sources: "Visual Attention Network" (arXiv 2202.09741) and "Large Separable Kernel Attention"
(arXiv 2309.01439). VAN-LSKA Tiny, Small, Base are VAN-B0, B1, B2 with ``attention='lska'``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Arch, StageRatios, StageSizes
from hybrid_mm.backbones.frames.base import BaseBackbone, SharedArguments
from hybrid_mm.backbones.frames.blocks import BATCH_NORM, NormCfg, Stage, build_norm, he_normal_
from hybrid_mm.layers import (
    DilatedDepthwiseConv2d,
    DropPath,
    LayerNorm2d,
    build_large_kernel_attention,
)
from hybrid_mm.ops.arguments import not_negative, positive
from hybrid_mm.registry import MODELS


class SpatialAttention(nn.Module):
    """1x1, GELU, large kernel attention, 1x1, and a residual around them (VAN paper, figure 3d).

    Args:
        channels: Number of channels C.
        attention: Name of the operator, see
            :mod:`hybrid_mm.layers.convolution.large_kernel_attention`.
        kernel_size: Nominal kernel size.
        dilation: Dilation of the operator; by default the papers' choice.
    """

    def __init__(
        self, channels: int, attention: str, kernel_size: int, dilation: int | None = None
    ) -> None:
        super().__init__()
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.act = nn.GELU()
        self.lka = build_large_kernel_attention(attention, channels, kernel_size, dilation)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return x + self.proj_out(self.lka(self.act(self.proj_in(x))))


class DepthwiseConvFFN(nn.Module):
    """Feed-forward network with a 3x3 depthwise convolution between its two 1x1 convolutions.

    Args:
        channels: Number of channels C.
        hidden_channels: Width between the 1x1 convolutions.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden_channels, 1)
        self.dwconv = DilatedDepthwiseConv2d(hidden_channels, 3)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class VANBlock(nn.Module):
    """Attention and feed-forward branches, each after a batch norm and with a layer scale.

    Args:
        channels: Number of channels C.
        mlp_ratio: Hidden width of the feed-forward network as a multiple of C.
        attention: Name of the operator.
        kernel_size: Nominal kernel size.
        dilation: Dilation of the operator.
        drop_path: Drop-path rate of both branches.
        norm_cfg: Batch normalisation.
        layer_scale: Initial value of the layer scales.
    """

    def __init__(
        self,
        channels: int,
        mlp_ratio: float,
        attention: str = 'lka',
        kernel_size: int = 23,
        dilation: int | None = None,
        drop_path: float = 0.0,
        norm_cfg: NormCfg | None = None,
        layer_scale: float = 1e-2,
    ) -> None:
        super().__init__()
        norm_cfg = norm_cfg or BATCH_NORM
        self.norm1 = build_norm(norm_cfg, channels)
        self.attn = SpatialAttention(channels, attention, kernel_size, dilation)
        self.norm2 = build_norm(norm_cfg, channels)
        self.mlp = DepthwiseConvFFN(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), float(layer_scale)))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), float(layer_scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        x = x + self.drop_path(self.layer_scale_1[:, None, None] * self.attn(self.norm1(x)))
        return x + self.drop_path(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))


class OverlapPatchEmbed(nn.Module):
    """Strided convolution with overlapping windows, then batch norm.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        kernel_size: Kernel size; padding is half of it.
        stride: Stride. The output has floor((H - 1) / stride) + 1 rows for an odd kernel.
        norm_cfg: Batch normalisation.
    """

    def __init__(
        self, in_channels: int, channels: int, kernel_size: int, stride: int, norm_cfg: NormCfg
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, channels, kernel_size, stride=stride, padding=kernel_size // 2
        )
        self.norm = build_norm(norm_cfg, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H', W')."""
        return self.norm(self.conv(x))


@dataclass(frozen=True, kw_only=True)
class VANArch(Arch):
    """Variant of a VAN."""

    other_names: ClassVar = {'ffn_ratios': 'mlp_ratios'}

    embed_dims: StageSizes  # channels of the maps
    depths: StageSizes  # number of blocks
    mlp_ratios: StageRatios  # hidden width of the feed-forward networks to the channels

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check the hidden widths as well."""
        super().check(owner, name)
        widths = zip(self.embed_dims, self.mlp_ratios, strict=True)
        hidden = [int(channels * ratio) for channels, ratio in widths]
        positive(owner, **{f'{name}.mlp_ratios * embed_dims': hidden})


def _arch(embed_dims: tuple[int, ...], depths: tuple[int, ...]) -> VANArch:
    return VANArch(embed_dims=embed_dims, depths=depths, mlp_ratios=(8, 8, 4, 4))


@MODELS.register_module()
class VAN(BaseBackbone):
    """Visual Attention Network, with each of the operators of the VAN and LSKA papers.

    Maps of any image size from 32 x 32 up: a map has ceil(H / stride) rows.

    Args:
        arch: 'b0' to 'b6' (aliases 'tiny', 'small', 'base', 'large' for 'b0' to 'b3'), or a dict
            with the fields of :class:`VANArch`.
        attention: 'lka', 'lska', 'lka_trivial', 'lska_trivial', or 'slak' (stripes of SLaK).
        kernel_size: Nominal kernel size: 7, 11, 23, 35, 41, 53 or 65, or another with
            ``dilation``; any odd one for the trivial operators and 'slak'.
        dilation: Dilation of 'lka' and 'lska'; by default the papers' choice for the kernel size.
        layer_scale: Initial value of the layer scales.
        norm_cfg: Batch normalisation: ``dict(type='BN')``, the default, or ``dict(type='SyncBN')``.
        ln_eps: Epsilon of the layer norms after the stages: 1e-5 in the dense models of both
            papers, 1e-6 in their classifiers.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant or operator, or a kernel size without centre.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import VAN
        >>> maps = VAN('b0', attention='lska').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 32, 25, 33), (1, 64, 13, 17), (1, 160, 7, 9), (1, 256, 4, 5)]
    """

    traces_any_size = True
    arch_class = VANArch
    arch_zoo: ClassVar = {
        'b0': _arch((32, 64, 160, 256), (3, 3, 5, 2)),
        'b1': _arch((64, 128, 320, 512), (2, 2, 4, 2)),
        'b2': _arch((64, 128, 320, 512), (3, 3, 12, 3)),
        'b3': _arch((64, 128, 320, 512), (3, 5, 27, 3)),
        'b4': _arch((64, 128, 320, 512), (3, 6, 40, 3)),
        'b5': _arch((96, 192, 480, 768), (3, 3, 24, 3)),
        'b6': _arch((96, 192, 384, 768), (6, 6, 90, 6)),
    }
    arch_aliases: ClassVar = {
        name: f'b{size}'
        for size, names in enumerate(('t tiny', 's small', 'b base', 'l large'))
        for name in names.split()
    }

    arch: VANArch

    def __init__(
        self,
        arch: str | Mapping | VANArch = 'b0',
        attention: str = 'lka',
        kernel_size: int = 23,
        dilation: int | None = None,
        *,
        layer_scale: float = 1e-2,
        norm_cfg: NormCfg | None = None,
        ln_eps: float = 1e-5,
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        positive(self, kernel_size=kernel_size, dilation=dilation)
        not_negative(self, layer_scale=layer_scale, ln_eps=ln_eps)
        self.depths, self.stage_channels = list(self.arch.depths), list(self.arch.embed_dims)
        self.operator = attention, kernel_size, dilation
        self.layer_scale, self.ln_eps = layer_scale, ln_eps
        self.norm_cfg = dict(norm_cfg or BATCH_NORM)
        self.build()

    def make_stage(self, stage: int) -> nn.Module:
        """Patch embedding, blocks and layer norm, which the next stage sees as well."""
        channels = self.stage_channels[stage]
        embed = OverlapPatchEmbed(
            self.stage_channels[stage - 1] if stage else self.in_channels,
            channels,
            kernel_size=3 if stage else 7,
            stride=2 if stage else 4,
            norm_cfg=self.norm_cfg,
        )
        blocks = [
            VANBlock(
                channels,
                self.arch.mlp_ratios[stage],
                *self.operator,
                rate,
                self.norm_cfg,
                self.layer_scale,
            )
            for rate in self.drop_path_rates[stage]
        ]
        norm = LayerNorm2d(channels, self.ln_eps)
        return Stage(blocks, self.with_cp, before={'embed': embed}, after={'norm': norm})

    def reset_parameters(self) -> None:
        """He's initial values over the fan-out, as in the official classification code."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                he_normal_(module)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
