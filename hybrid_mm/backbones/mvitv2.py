"""MViTv2: pooling attention with decomposed relative positions, for classes and for detection.

Status: complete; checked number by number against the official code (classification) and against
detectron2 (detection).

Source: "MViTv2: Improved Multiscale Vision Transformers for Classification and Detection" (arXiv
2112.01526), sections 3 and 4, table 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Arch, Size, StageSizes
from hybrid_mm.backbones.frames.base import SharedArguments
from hybrid_mm.backbones.frames.blocks import Stage
from hybrid_mm.backbones.frames.token_pyramid import MLP, TokenPyramid
from hybrid_mm.layers.attention.pooling_attention import PoolingAttention
from hybrid_mm.layers.drop import DropPath
from hybrid_mm.ops.arguments import divides, positive, sides
from hybrid_mm.registry import MODELS

_EPS = 1e-6


class OverlapTokenEmbed(nn.Module):
    """Overlapping patches of 7 x 7 pixels with stride 4.

    Args:
        in_channels: Channels of the image.
        channels: Channels C of the output.
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, 7, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, ceil(H / 4), ceil(W / 4), C)."""
        return self.proj(x).permute(0, 2, 3, 1)


class MultiScaleBlock(nn.Module):
    """Pooling attention and MLP, each after a layer norm; one of them may widen the map.

    Args:
        channels: Channels of the input.
        attn: Pooling attention; it may have another number of channels.
        out_channels: Channels of the output.
        stride: Stride of the attention's queries.
        mlp_ratio: Hidden width of the MLP as a multiple of its input.
        drop_path: Drop-path rate of both branches.
    """

    def __init__(
        self,
        channels: int,
        attn: PoolingAttention,
        out_channels: int,
        stride: int = 1,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        width = attn.proj.out_features
        self.stride = stride
        self.widens_attention, self.widens_mlp = width != channels, out_channels != width
        self.norm1 = nn.LayerNorm(channels, eps=_EPS)
        self.attn = attn
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = MLP(width, int(width * mlp_ratio), out_channels=out_channels)
        if channels != out_channels:
            self.proj = nn.Linear(channels, out_channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, channels) to (N, ceil(H / stride), ceil(W / stride), out_channels)."""
        y = self.norm1(x)
        if self.widens_attention:
            x = self.proj(y)
        if self.stride > 1:
            x = F.max_pool2d(x.permute(0, 3, 1, 2), self.stride + 1, self.stride, self.stride // 2)
            x = x.permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attn(y))
        y = self.norm2(x)
        if self.widens_mlp:
            x = self.proj(y)
        return x + self.drop_path(self.mlp(y))


@dataclass(frozen=True, kw_only=True)
class MViTv2Arch(Arch):
    """Variant of a MViTv2."""

    other_names: ClassVar = {'embed_dims': 'embed_dim', 'num_heads': 'heads'}

    embed_dim: Size  # channels of the first stage, doubled from stage to stage
    heads: Size  # heads of the first stage, doubled from stage to stage
    depths: StageSizes  # number of blocks

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check that heads divide the channels as well."""
        super().check(owner, name)
        divides(owner, self.embed_dim, **{f'{name}.heads': self.heads})


def _arch(embed_dim: int, heads: int, *depths: int) -> MViTv2Arch:
    return MViTv2Arch(embed_dim=embed_dim, heads=heads, depths=depths)


@MODELS.register_module()
class MViTv2(TokenPyramid):
    """Multiscale Vision Transformer, version 2.

    The defaults are the form for detection: attention within windows but for the last block of
    every stage after the first, whose keys the second and third stage pool once more. The form
    for classification has ``window_size=None, double_kv_stride=False``. Weights of either load
    into the other; classifiers lack the norms of all maps but the last.

    Maps of any image size from 32 x 32 up; a map has ceil(H / stride) rows.

    Args:
        arch: 'tiny', 'small', 'base', 'large', 'huge', or a dict with the fields of
            :class:`MViTv2Arch`.
        img_size: Rows and columns of the image, one number or two, that the relative positions are
            made for; weights made for another are interpolated at loading.
        window_size: Pixels of the first stage's windows on each side; halved from stage to stage,
            where the first block still has the windows of the stage before. None: no windows.
        kv_stride: Stride of keys and values in the first stage; halved from stage to stage.
        double_kv_stride: Twice that stride in the last blocks of the second and third stage.
        dim_mul_in_att: Widen the map in the attention of the first block of a stage; otherwise in
            the MLP of the last block before it, so that all maps but the last have twice the
            channels (the published MViTv2-L for classification).
        mlp_ratio: Hidden width of the MLPs as a multiple of their input.
        qkv_bias: Bias of the projections to queries, keys and values.
        relative: With decomposed relative positions.
        residual: With residual pooling.
        impl: See :func:`~hybrid_mm.ops.decomposed_attention.decomposed_attention`.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`; each returned map has
            a layer norm of its own. ``norm_eval`` has no effect, there is no batch norm.

    Raises:
        ValueError: An unknown variant, heads that do not divide the channels, windows that are no
            multiples of the strides, or an image too small for the number of stages.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import MViTv2
        >>> maps = MViTv2('tiny').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 96, 25, 33), (1, 192, 13, 17), (1, 384, 7, 9), (1, 768, 4, 5)]
    """

    arch_class = MViTv2Arch
    arch_zoo: ClassVar = {
        'tiny': _arch(96, 1, 1, 2, 5, 2),
        'small': _arch(96, 1, 1, 2, 11, 2),
        'base': _arch(96, 1, 2, 3, 16, 3),
        'large': _arch(144, 2, 2, 6, 36, 4),
        'huge': _arch(192, 3, 4, 8, 60, 8),
    }
    arch_aliases: ClassVar = {'t': 'tiny', 's': 'small', 'b': 'base', 'l': 'large', 'h': 'huge'}
    other_names: ClassVar = {
        'out_scales': 'out_indices',
        'adaptive_kv_stride': 'kv_stride',
        'rel_pos_spatial': 'relative',
        'residual_pooling': 'residual',
        'dim_mul_in_attention': 'dim_mul_in_att',
    }

    norm_eps = _EPS
    arch: MViTv2Arch

    def __init__(
        self,
        arch: str | Mapping | MViTv2Arch = 'tiny',
        img_size: int | Sequence[int] = 224,
        window_size: int | None = 56,
        kv_stride: int = 4,
        double_kv_stride: bool = True,
        dim_mul_in_att: bool = True,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        relative: bool = True,
        residual: bool = True,
        impl: str = 'auto',
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        positive(self, window_size=window_size, kv_stride=kv_stride, mlp_ratio=mlp_ratio)
        self.depths = list(self.arch.depths)
        last = len(self.depths) - 1
        self.img_size = sides(self, img_size=img_size)
        if min(self.img_size) < 4 * 2**last:
            raise ValueError(
                f'img_size must be one number or two, from {4 * 2**last} on for '
                f'{last + 1} stages, got {img_size}'
            )
        self.widths = [self.arch.embed_dim * 2**stage for stage in range(last + 1)]
        self.dim_mul_in_att = dim_mul_in_att
        self.stage_channels = self.widths if dim_mul_in_att else [*self.widths[1:], self.widths[-1]]
        self.window_size, self.kv_stride = window_size, kv_stride
        self.double_kv_stride, self.mlp_ratio = double_kv_stride, mlp_ratio
        self.qkv_bias, self.relative, self.residual = qkv_bias, relative, residual
        self.impl = impl
        self.build()

    def make_stage(self, stage: int) -> nn.Module:
        """Blocks, the first of which halves the map in all stages but the first."""
        before: dict[str, nn.Module] = (
            {'downsample': nn.Identity()}  # the first block does it
            if stage
            else {'embed': OverlapTokenEmbed(self.in_channels, self.widths[0])}
        )
        blocks = []
        channels = self.stage_channels[stage - 1] if stage else self.widths[0]
        for block, rate in enumerate(self.drop_path_rates[stage]):
            first, final = stage > 0 and block == 0, block == self.depths[stage] - 1
            width = self.stage_channels[stage] if final else self.widths[stage]
            attn = self._attention(stage, channels, first, final)
            stride = 2 if first else 1
            blocks.append(MultiScaleBlock(channels, attn, width, stride, self.mlp_ratio, rate))
            channels = width
        return Stage(blocks, self.with_cp, before, norm=self.make_norm(stage, channels))

    def _attention(self, stage: int, channels: int, first: bool, final: bool) -> PoolingAttention:
        """Attention of a block.

        Args:
            stage: Its stage.
            channels: Channels of its input.
            first: Whether it is the first of a stage after the first one.
            final: Whether it is the last of its stage.
        """
        before = stage - first  # the stage whose grid the block starts from
        window = self.window_size and self.window_size // 2**before
        stride_kv = max(self.kv_stride // 2**stage, 1)
        doubled = self.double_kv_stride and final and stage in (1, 2)
        height, width = (side // (4 * 2**before) for side in self.img_size)
        return PoolingAttention(
            channels,
            self.widths[stage],
            self.arch.heads * 2**stage,
            (height, width),
            2 if first else 1,
            stride_kv * (2 if doubled else 1),
            None if final and stage > 0 else window,
            self.qkv_bias,
            self.relative,
            self.residual,
            self.impl,
        )
