"""QnA-ViT: stages of learned-query attention and of attention in windows.

Status: complete; checked number by number against the official code. The official code has no dense
prediction: what maps are returned is our choice.

Source: "Learned Queries for Efficient Local Attention" (arXiv 2112.11435), section 5.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.backbones.frames.token_pyramid import MLP, TokenPyramid, TokenStage
from hybrid_mm.layers import DropPath, drop_path_schedule
from hybrid_mm.layers.attention.learned_query_attention import LearnedQueryAttention2d
from hybrid_mm.layers.attention.window_attention import WindowAttention
from hybrid_mm.layers.initialisation import lecun_normal_
from hybrid_mm.registry import MODELS

_EPS = 1e-6


class PaddedWindowAttention(WindowAttention):
    """Attention in windows side by side, those at the right and bottom as large as the map allows.

    That is the same as padding which is not a key.
    """

    any_size = True

    def __init__(self, channels: int, window: int, heads: int) -> None:
        super().__init__(channels, window, heads, qkv_bias=False)
        self.proj = nn.Linear(channels, channels, bias=False)
        nn.init.zeros_(self.relative_bias)


class QnABlock(nn.Module):
    """Attention and MLP, each behind a norm and inside a residual connection.

    Args:
        attn: Attention from (N, H, W, in_channels) to (N, H', W', channels).
        in_channels: Channels of the input.
        channels: Channels of the result; other ones come with stride 2.
        drop_path: Drop-path rate.
        layer_scale: Initial value of the layer scales, or None for none.
    """

    def __init__(
        self,
        attn: nn.Module,
        in_channels: int,
        channels: int,
        drop_path: float,
        layer_scale: float | None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(in_channels, eps=_EPS)
        self.attn = attn
        self.norm2 = nn.LayerNorm(channels, eps=_EPS)
        self.mlp = MLP(channels, 4 * channels, approximate='tanh')
        self.skip = None
        if channels != in_channels:
            self.skip = nn.Linear(in_channels, channels, bias=False)
        self.gamma1 = self.gamma2 = None
        if layer_scale is not None:
            self.gamma1, self.gamma2 = (
                nn.Parameter(torch.full((channels,), float(layer_scale))) for _ in range(2)
            )
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, in_channels) to (N, H', W', channels)."""
        y = self.attn(self.norm1(x))
        y = y if self.gamma1 is None else self.gamma1 * y
        # the branch that halves the map is never dropped
        x = x + self.drop_path(y) if self.skip is None else self.skip(x[:, ::2, ::2]) + y
        y = self.mlp(self.norm2(x))
        return x + self.drop_path(y if self.gamma2 is None else self.gamma2 * y)


class PatchStem(nn.Module):
    """4x4 convolution with stride 4; the image is filled up evenly on both sides."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, ceil(H / 4), ceil(W / 4), channels)."""
        down, right = (-size % 4 for size in x.shape[2:])
        if down or right:
            x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return self.conv(x).permute(0, 2, 3, 1)


@MODELS.register_module()
class QnAViT(TokenPyramid):
    """QnA-ViT.

    Maps of any image size from 32 x 32 up: a map has ceil(H / stride) rows. The returned maps are
    those before the blocks that halve them, which open the next stage here.

    Args:
        arch: 'tiny', 'tiny-7x7', 'small' or 'base', or a dict with ``embed_dim`` and, one entry per
            stage, ``qna_depths``, ``qna_heads``, ``kernel_sizes``, ``window_depths``,
            ``window_sizes`` and ``window_heads``. Blocks with windows come first in a stage; the
            block that halves the map has the stage's heads twice.
        queries: Number of learned queries.
        normalize_queries: Whether queries have unit length in every head.
        layer_scale: Initial value of layer scales, or None for none.
        norm_outputs: Layer norms on the returned maps: 'all', 'last' (classifiers) or 'none'.
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0.
        frozen_stages: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        norm_eval: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        with_cp: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        init_cfg: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant, heads that do not divide the channels, an even kernel.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import QnAViT
        >>> maps = QnAViT('tiny').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 64, 25, 33), (1, 128, 13, 17), (1, 256, 7, 9), (1, 512, 4, 5)]
    """

    arch_zoo: ClassVar = {
        name: dict(
            embed_dim=width,
            qna_depths=[2, 3, depth, 0],
            qna_heads=[heads, 2 * heads, 4 * heads, 8 * heads],
            kernel_sizes=[kernel] * 4,
            window_depths=[0, 0, 2 * depth, 2],
            window_sizes=[7, 7, 14, 7],
            window_heads=[width // 32, width // 16, width // 8, width // 4],
        )
        for name, width, depth, heads, kernel in (
            ('tiny', 64, 2, 8, 3),
            ('tiny-7x7', 64, 2, 8, 7),
            ('small', 64, 6, 8, 3),
            ('base', 96, 6, 6, 3),
        )
    }

    def __init__(
        self,
        arch: str | dict = 'tiny',
        queries: int = 2,
        normalize_queries: bool = True,
        layer_scale: float | None = None,
        norm_outputs: str = 'all',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_channels, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        if norm_outputs not in ('all', 'last', 'none'):
            raise ValueError(f"norm_outputs must be 'all', 'last' or 'none', got {norm_outputs!r}")
        self.norm_outputs = norm_outputs
        settings = self.resolve_arch(arch)
        windows, qna = settings['window_depths'], settings['qna_depths']
        self.depths = [a + b for a, b in zip(windows, qna, strict=True)]
        stages = len(self.depths)
        self.stage_channels = [settings['embed_dim'] * 2**i for i in range(stages)]
        # the blocks that halve the map count
        counted = [depth + (i < stages - 1) for i, depth in enumerate(self.depths)]
        schedule = drop_path_schedule(drop_path_rate, counted)
        rates = (rate for stage_rates in schedule for rate in stage_rates)

        def attention(stage: int, stride: int = 1) -> LearnedQueryAttention2d:
            return LearnedQueryAttention2d(
                self.stage_channels[stage],
                self.stage_channels[stage] * stride,
                settings['qna_heads'][stage] * stride,
                settings['kernel_sizes'][stage],
                stride,
                queries,
                normalize_queries,
            )

        def stage_blocks(stage: int, width: int) -> Iterator[QnABlock]:
            for i in range(self.depths[stage]):
                if i < windows[stage]:
                    window, heads = (settings[f'window_{x}'][stage] for x in ('sizes', 'heads'))
                    attn = PaddedWindowAttention(width, window, heads)
                else:
                    attn = attention(stage)
                yield QnABlock(attn, width, width, next(rates), layer_scale)

        self.stages = nn.ModuleList()
        for i, width in enumerate(self.stage_channels):
            if i == 0:
                down = 'embed', PatchStem(in_channels, width)
            else:
                halving = attention(i - 1, 2)
                down = (
                    'downsample',
                    QnABlock(halving, width // 2, width, next(rates), layer_scale),
                )
            made = list(stage_blocks(i, width))
            self.stages.append(TokenStage(down, made, self.make_norm(i, width), with_cp))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                lecun_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.finish()

    def make_norm(self, stage: int, channels: int) -> nn.Module:
        """Norm of a stage's map, where that is returned and has one."""
        norm = super().make_norm(stage, channels)
        last = stage == len(self.depths) - 1
        wanted = dict(all=True, last=last, none=False)[self.norm_outputs]
        wanted = wanted and isinstance(norm, nn.LayerNorm)
        return nn.LayerNorm(channels, eps=_EPS) if wanted else nn.Identity()
