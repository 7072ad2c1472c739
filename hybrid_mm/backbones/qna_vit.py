"""QnA-ViT: stages of learned-query attention and of attention in windows.

Status: complete; checked number by number against the official code. The official code has no dense
prediction: what maps are returned is our choice.

Source: "Learned Queries for Efficient Local Attention" (arXiv 2112.11435), section 5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Arch, Size, StageCounts, StageKernels, StageSizes
from hybrid_mm.backbones.frames.base import SharedArguments
from hybrid_mm.backbones.frames.blocks import Stage
from hybrid_mm.backbones.frames.token_pyramid import MLP, TokenPyramid
from hybrid_mm.layers import DropPath, drop_path_schedule
from hybrid_mm.layers.attention.learned_query_attention import LearnedQueryAttention2d
from hybrid_mm.layers.attention.window_attention import WindowAttention
from hybrid_mm.layers.initialisation import lecun_normal_
from hybrid_mm.ops.arguments import divides, not_negative, one_of, per_stage, positive
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
    """Attention and MLP, each after a norm and inside a residual connection.

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
    """4x4 convolution with stride 4; the image is padded evenly on both sides."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, 4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, ceil(H / 4), ceil(W / 4), channels)."""
        down, right = (-size % 4 for size in x.shape[2:])
        if down or right:
            x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return self.conv(x).permute(0, 2, 3, 1)


@dataclass(frozen=True, kw_only=True)
class QnAArch(Arch):
    """Variant of a QnA-ViT.

    Blocks with windows come first in a stage; the block that halves its map has the stage's heads
    twice.
    """

    embed_dim: Size  # channels of the first stage, doubled from stage to stage
    qna_depths: StageCounts  # blocks with learned queries
    qna_heads: StageSizes  # their heads
    kernel_sizes: StageKernels  # their windows
    window_depths: StageCounts  # blocks with attention in windows
    window_sizes: StageSizes  # pixels of these windows on each side
    window_heads: StageSizes  # their heads

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check that heads divide the channels where there are such blocks as well."""
        super().check(owner, name)
        last = len(self.qna_depths) - 1
        for stage in range(last + 1):
            channels = self.embed_dim * 2**stage
            if self.qna_depths[stage] or stage < last:
                divides(owner, channels, **{f'{name}.qna_heads': self.qna_heads[stage]})
            if self.window_depths[stage]:
                divides(owner, channels, **{f'{name}.window_heads': self.window_heads[stage]})


def _arch(width: int, depth: int, heads: int, kernel: int) -> QnAArch:
    return QnAArch(
        embed_dim=width,
        qna_depths=(2, 3, depth, 0),
        qna_heads=(heads, 2 * heads, 4 * heads, 8 * heads),
        kernel_sizes=(kernel,) * 4,
        window_depths=(0, 0, 2 * depth, 2),
        window_sizes=(7, 7, 14, 7),
        window_heads=(width // 32, width // 16, width // 8, width // 4),
    )


@MODELS.register_module()
class QnAViT(TokenPyramid):
    """QnA-ViT.

    Maps of any image size from 32 x 32 up: a map has ceil(H / stride) rows. The returned maps are
    those before the blocks that halve them, which open the next stage here.

    Args:
        arch: 'tiny', 'tiny-7x7', 'small' or 'base', or a dict with the fields of :class:`QnAArch`.
        queries: Number of learned queries.
        normalize_queries: Whether queries have unit length in every head, one value or one per
            stage; the block that halves the map of a stage goes with this stage.
        layer_scale: Initial value of layer scales, or None for none.
        norm_outputs: Layer norms on the returned maps: 'all', 'last' (classifiers) or 'none'.
        attention_scale: 'normal' for learned weights of what each query reads, by position in the
            window, or 'none'.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant, heads that do not divide the channels, an even kernel.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import QnAViT
        >>> maps = QnAViT('tiny').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 64, 25, 33), (1, 128, 13, 17), (1, 256, 7, 9), (1, 512, 4, 5)]
    """

    arch_class = QnAArch
    arch_zoo: ClassVar = {
        'tiny': _arch(64, 2, 8, 3),
        'tiny-7x7': _arch(64, 2, 8, 7),
        'small': _arch(64, 6, 8, 3),
        'base': _arch(96, 6, 6, 3),
    }
    norm_eps = _EPS
    arch: QnAArch

    def __init__(
        self,
        arch: str | Mapping | QnAArch = 'tiny',
        queries: int = 2,
        normalize_queries: bool | Sequence[bool] = True,
        layer_scale: float | None = None,
        norm_outputs: str = 'all',
        attention_scale: str = 'normal',
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        one_of(self, ('all', 'last', 'none'), norm_outputs=norm_outputs)
        positive(self, queries=queries)
        not_negative(self, layer_scale=layer_scale)
        self.norm_outputs, self.layer_scale = norm_outputs, layer_scale
        self.queries, self.attention_scale = queries, attention_scale
        stages = len(self.arch.qna_depths)
        self.normalize_queries = per_stage(self, stages, normalize_queries=normalize_queries)
        depths = zip(self.arch.window_depths, self.arch.qna_depths, strict=True)
        self.depths = [windows + qna for windows, qna in depths]
        self.stage_channels = [self.arch.embed_dim * 2**stage for stage in range(stages)]
        self.build()

    def make_stage(self, stage: int) -> nn.Module:
        """Embedding, or the block that halves the map, then blocks with windows and with QnA."""
        # the blocks that halve the map count, at the end of the stage before
        stages = len(self.depths)
        counted = [depth + (i < stages - 1) for i, depth in enumerate(self.depths)]
        schedule = drop_path_schedule(self.drop_path_rate, counted)
        rates, width = schedule[stage][: self.depths[stage]], self.stage_channels[stage]
        before: dict[str, nn.Module] = {'embed': PatchStem(self.in_channels, width)}
        if stage:
            halving = self._attention(stage - 1, 2)
            block = QnABlock(halving, width // 2, width, schedule[stage - 1][-1], self.layer_scale)
            before = {'downsample': block}
        blocks = []
        for i, rate in enumerate(rates):
            attn: nn.Module
            if i < self.arch.window_depths[stage]:
                window, heads = self.arch.window_sizes[stage], self.arch.window_heads[stage]
                attn = PaddedWindowAttention(width, window, heads)
            else:
                attn = self._attention(stage)
            blocks.append(QnABlock(attn, width, width, rate, self.layer_scale))
        return Stage(blocks, self.with_cp, before, norm=self.make_norm(stage, width))

    def _attention(self, stage: int, stride: int = 1) -> LearnedQueryAttention2d:
        return LearnedQueryAttention2d(
            self.stage_channels[stage],
            self.stage_channels[stage] * stride,
            self.arch.qna_heads[stage] * stride,
            self.arch.kernel_sizes[stage],
            stride,
            self.queries,
            self.normalize_queries[stage],
            attention_scale=self.attention_scale,
        )

    def make_norm(self, stage: int, channels: int) -> nn.Module:
        """Norm of a stage's map, where that is returned and has one."""
        last = stage == len(self.depths) - 1
        normed = dict(all=True, last=last, none=False)[self.norm_outputs]
        return super().make_norm(stage, channels) if normed else nn.Identity()

    def reset_parameters(self) -> None:
        """Draw weights from truncated normals of variance 1 / fan-in; biases are 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                lecun_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
