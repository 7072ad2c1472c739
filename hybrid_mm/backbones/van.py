"""VAN with large kernel attention (LKA) or large separable kernel attention (LSKA).

Status: complete; checked number by number against the official classification, detection and
segmentation code of both papers.

Sources: "Visual Attention Network" (arXiv 2202.09741) and "Large Separable Kernel Attention"
(arXiv 2309.01439). VAN-LSKA Tiny, Small, Base are VAN-B0, B1, B2 with ``attention='lska'``.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from hybrid_mm.backbones.frames.base import BaseBackbone, build_norm, run_blocks
from hybrid_mm.layers import (
    DropPath,
    LayerNorm2d,
    build_large_kernel_attention,
    drop_path_schedule,
)
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


class ConvFFN(nn.Module):
    """Feed-forward network with a 3x3 depthwise convolution between its two 1x1 convolutions.

    Args:
        channels: Number of channels C.
        hidden_channels: Width between the 1x1 convolutions.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden_channels, 1)
        self.dwconv = nn.Conv2d(
            hidden_channels, hidden_channels, 3, padding=1, groups=hidden_channels
        )
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return self.fc2(self.act(self.dwconv(self.fc1(x))))


class VANBlock(nn.Module):
    """Attention and feed-forward branches behind batch norms, each with a layer scale.

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
        norm_cfg: dict | None = None,
        layer_scale: float = 1e-2,
    ) -> None:
        super().__init__()
        norm_cfg = norm_cfg or dict(type='BN')
        self.norm1 = build_norm(norm_cfg, channels)
        self.attn = SpatialAttention(channels, attention, kernel_size, dilation)
        self.norm2 = build_norm(norm_cfg, channels)
        self.mlp = ConvFFN(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.layer_scale_1 = nn.Parameter(torch.full((channels,), layer_scale))
        self.layer_scale_2 = nn.Parameter(torch.full((channels,), layer_scale))

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
        self, in_channels: int, channels: int, kernel_size: int, stride: int, norm_cfg: dict
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels, channels, kernel_size, stride=stride, padding=kernel_size // 2
        )
        self.norm = build_norm(norm_cfg, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H', W')."""
        return self.norm(self.conv(x))


class VANStage(nn.Module):
    """Patch embedding, blocks and layer norm; the normed map is output and next input alike."""

    def __init__(
        self, embed: nn.Module, blocks: list[nn.Module], norm: nn.Module, with_cp: bool
    ) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to this stage's."""
        return self.norm(run_blocks(self.blocks, self.embed(x), self.with_cp))


@MODELS.register_module()
class VAN(BaseBackbone):
    """Visual Attention Network, with each of the four operators of the VAN and LSKA papers.

    Maps of any image size from 32 x 32 up: a map has ceil(H / stride) rows.

    Args:
        arch: 'b0' to 'b6' (aliases 'tiny', 'small', 'base', 'large' for 'b0' to 'b3'), or a dict
            with ``embed_dims``, ``depths`` and ``mlp_ratios``, one entry per stage.
        attention: 'lka', 'lska', 'lka_trivial' or 'lska_trivial'.
        kernel_size: Nominal kernel size: 7, 11, 23, 35, 41, 53 or 65, or another with
            ``dilation``; any odd one for the trivial operators.
        dilation: Dilation of 'lka' and 'lska'; by default the papers' choice for the kernel size.
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0.
        layer_scale: Initial value of the layer scales.
        norm_cfg: Batch normalisation: ``dict(type='BN')`` or ``dict(type='SyncBN')``.
        ln_eps: Epsilon of the layer norms after the stages: 1e-5 in the dense models of both
            papers, 1e-6 in their classifiers.
        frozen_stages: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        norm_eval: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        with_cp: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        init_cfg: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant or operator, or a kernel size without centre.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import VAN
        >>> maps = VAN('b0', attention='lska').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 32, 25, 33), (1, 64, 13, 17), (1, 160, 7, 9), (1, 256, 4, 5)]
    """

    arch_zoo: ClassVar = {
        'b0': dict(embed_dims=[32, 64, 160, 256], depths=[3, 3, 5, 2], mlp_ratios=[8, 8, 4, 4]),
        'b1': dict(embed_dims=[64, 128, 320, 512], depths=[2, 2, 4, 2], mlp_ratios=[8, 8, 4, 4]),
        'b2': dict(embed_dims=[64, 128, 320, 512], depths=[3, 3, 12, 3], mlp_ratios=[8, 8, 4, 4]),
        'b3': dict(embed_dims=[64, 128, 320, 512], depths=[3, 5, 27, 3], mlp_ratios=[8, 8, 4, 4]),
        'b4': dict(embed_dims=[64, 128, 320, 512], depths=[3, 6, 40, 3], mlp_ratios=[8, 8, 4, 4]),
        'b5': dict(embed_dims=[96, 192, 480, 768], depths=[3, 3, 24, 3], mlp_ratios=[8, 8, 4, 4]),
        'b6': dict(embed_dims=[96, 192, 384, 768], depths=[6, 6, 90, 6], mlp_ratios=[8, 8, 4, 4]),
    }
    arch_aliases: ClassVar = {'tiny': 'b0', 'small': 'b1', 'base': 'b2', 'large': 'b3'}

    def __init__(
        self,
        arch: str | dict = 'b0',
        attention: str = 'lka',
        kernel_size: int = 23,
        dilation: int | None = None,
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        layer_scale: float = 1e-2,
        norm_cfg: dict | None = None,
        ln_eps: float = 1e-5,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_channels, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        settings = self.resolve_arch(arch)
        norm_cfg = norm_cfg or dict(type='BN')
        self.stage_channels, self.depths = settings['embed_dims'], settings['depths']
        rates = drop_path_schedule(drop_path_rate, self.depths)
        self.stages = nn.ModuleList()
        for i, (channels, ratio) in enumerate(
            zip(self.stage_channels, settings['mlp_ratios'], strict=True)
        ):
            embed = OverlapPatchEmbed(
                in_channels if i == 0 else self.stage_channels[i - 1],
                channels,
                kernel_size=7 if i == 0 else 3,
                stride=4 if i == 0 else 2,
                norm_cfg=norm_cfg,
            )
            blocks = [
                VANBlock(
                    channels, ratio, attention, kernel_size, dilation, rate, norm_cfg, layer_scale
                )
                for rate in rates[i]
            ]
            self.stages.append(VANStage(embed, blocks, LayerNorm2d(channels, ln_eps), with_cp))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                # He initialisation over the fan-out, as in the official classification code
                fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
                nn.init.zeros_(module.bias)
        self.finish()
