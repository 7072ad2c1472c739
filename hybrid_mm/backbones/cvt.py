"""CvT: convolutional token embeddings and convolutional projections.

Status: complete, checked number by number against the authors' code.

Source: "CvT: Introducing Convolutions to Vision Transformers" (arXiv 2103.15808).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.backbones.frames.arch import Arch, StageCounts, StageRatios, StageSizes
from hybrid_mm.backbones.frames.blocks import Stage, run_blocks
from hybrid_mm.backbones.frames.token_pyramid import TokenPyramid
from hybrid_mm.layers.attention.convolutional_projection import (
    METHODS,
    ConvolutionalProjectionAttention,
)
from hybrid_mm.layers.drop import DropPath, drop_path_schedule
from hybrid_mm.ops.arguments import divides, odd, one_of, per_stage, positive
from hybrid_mm.ops.fusing import is_plain
from hybrid_mm.registry import MODELS


class TokenEmbed(nn.Module):
    """Overlapping patches by a strided convolution, then layer norm; a class token, if any.

    Args:
        in_channels: Channels of the input.
        channels: Channels C of the output.
        patch_size: Kernel of the convolution.
        stride: Its stride.
        padding: Zeros on each side.
        class_token: Keep a class token for the blocks.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        patch_size: int,
        stride: int,
        padding: int,
        class_token: bool,
    ) -> None:
        super().__init__()
        self.patch_size, self.smallest = patch_size, patch_size - 2 * padding
        self.proj = nn.Conv2d(in_channels, channels, patch_size, stride, padding)
        self.norm = nn.LayerNorm(channels)
        if class_token:
            self.class_token = nn.Parameter(torch.zeros(1, 1, channels))
            nn.init.trunc_normal_(self.class_token, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, H', W', C).

        Raises:
            ValueError: A map that is smaller than a patch.
        """
        if min(x.shape[2:]) < self.smallest:
            raise ValueError(
                f'patches of {self.patch_size} pixels need a map of {self.smallest} x '
                f'{self.smallest} or more, got {tuple(x.shape[2:])}: take a larger image or '
                'smaller patch_strides'
            )
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class QuickGELUMLP(nn.Module):
    """Linear, x * sigmoid(1.702 x), linear.

    Args:
        channels: Channels C.
        hidden_channels: Channels in between.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.fc2 = nn.Linear(hidden_channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        # x s(a x) = silu(a x) / a: two tensors are kept for the backward pass instead of three, and
        # the factors cost nothing in the weights
        first, second, a = self.fc1, self.fc2, 1.702
        if not is_plain(first, second):
            x = first(x)
            return second(x * torch.sigmoid(a * x))
        x = F.silu(F.linear(x, a * first.weight, a * first.bias))
        return F.linear(x, second.weight / a, second.bias)


class CvTBlock(nn.Module):
    """Attention and feed-forward network, each after a layer norm.

    Args:
        channels: Number of channels C.
        attn: Maps tokens (N, L, C) and the size (H, W) of their map to the same shape.
        mlp_ratio: Hidden width of the feed-forward network as a multiple of C.
        drop_path: Drop-path rate of both branches.
    """

    def __init__(
        self, channels: int, attn: nn.Module, mlp_ratio: float = 4.0, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn = attn
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = QuickGELUMLP(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (N, L, C) of a map of the given size to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class CvTStage(Stage):
    """Token embedding and blocks.

    ``pooled`` makes it end in what a classifier's head sees before the norm: the class token, or
    all tokens where there is none.
    """

    embed: TokenEmbed
    pooled = False

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to this stage's, (N, C, H, W); pooled, (N, L, C)."""
        x = self.embed(x)
        number, height, width, channels = x.shape
        x = x.flatten(1, 2)
        token = getattr(self.embed, 'class_token', None)
        if token is not None:
            x = torch.cat([token.expand(number, -1, -1).to(x), x], 1)
        x = run_blocks(self.blocks, x, self.with_cp, (height, width))
        if self.pooled:
            return x if token is None else x[:, :1]
        x = x if token is None else x[:, 1:]
        # not unflatten, after which the older ONNX exporter fixes the number of images
        return x.reshape(number, height, width, channels).permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class CvTArch(Arch):
    """Variant of a CvT."""

    depths: StageSizes  # number of blocks
    embed_dims: StageSizes  # channels of the maps
    heads: StageSizes  # heads of the attention
    mlp_ratios: StageRatios  # hidden width of the feed-forward networks to the channels
    patch_sizes: StageSizes  # kernels of the embeddings
    patch_strides: StageSizes  # strides of the embeddings
    patch_paddings: StageCounts  # padding of the embeddings

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check that heads divide the channels as well."""
        super().check(owner, name)
        for channels, heads in zip(self.embed_dims, self.heads, strict=True):
            divides(owner, channels, **{f'{name}.heads': heads})


def _arch(
    depths: Sequence[int],
    embed_dims: Sequence[int] = (64, 192, 384),
    heads: Sequence[int] = (1, 3, 6),
) -> CvTArch:
    return CvTArch(
        depths=depths,
        embed_dims=embed_dims,
        heads=heads,
        mlp_ratios=(4, 4, 4),
        patch_sizes=(7, 3, 3),
        patch_strides=(4, 2, 2),
        patch_paddings=(2, 1, 1),
    )


@MODELS.register_module()
class CvT(TokenPyramid):
    """Convolutional vision Transformer.

    It has three stages, with maps at strides 4, 8 and 16. A neck makes coarser levels of the last
    one (``num_outs=5`` of an FPN, ``add_extra_convs='on_output'``), heads that take several maps
    take three. With the padding of the paper the first map has floor((H + 1) / 4) rows, the next
    ones half of them, rounded up.

    Attention is global in every stage: an image of 800 x 1333 has 66,600 queries and 16,650 keys in
    the first one. Its memory grows with H W all the same, its time with (H W)^2.

    Args:
        arch: '13', '21', 'w24', or a dict with the fields of :class:`CvTArch`.
        with_cls_token: The last stage has a class token, which the maps of the published weights
            count on; or a flag per stage.
        norm_outputs: A layer norm on every returned map. Without, they are as the blocks leave
            them.
        pooled: Return what the head of the classifier sees as (N, C): the class token after the
            last norm, without class token the mean over positions. No other maps then.
        projection: 'dw_bn', 'avg' or 'linear', see :class:`ConvolutionalProjectionAttention`; or
            one per stage. So are the next three.
        kernel_size: Kernel of the projections.
        kv_stride: Stride of keys and values.
        qkv_bias: Biases of queries, keys and values.
        out_indices: Stages whose maps are returned.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`. Drop-path rates grow
            within the last stage, the others have none. ``norm_eval`` concerns the projections,
            which have the batch norms.

    Raises:
        ValueError: An unknown variant or method, heads that do not divide the channels, even
            kernels, other maps than the last with ``pooled``.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import CvT
        >>> maps = CvT('13').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 64, 24, 33), (1, 192, 12, 17), (1, 384, 6, 9)]
    """

    traces_any_size = True
    arch_class = CvTArch
    arch_zoo: ClassVar = {
        '13': _arch((1, 2, 10)),
        '21': _arch((1, 4, 16)),
        'w24': _arch((2, 2, 20), (192, 768, 1024), (3, 12, 16)),
    }
    arch_aliases: ClassVar = {'cvt-13': '13', 'cvt-21': '21', 'cvt-w24': 'w24'}

    arch: CvTArch

    def __init__(
        self,
        arch: str | Mapping | CvTArch = '13',
        with_cls_token: bool | Sequence[bool] = True,
        norm_outputs: bool = False,
        pooled: bool = False,
        projection: str | Sequence[str] = 'dw_bn',
        kernel_size: int | Sequence[int] = 3,
        kv_stride: int | Sequence[int] = 2,
        qkv_bias: bool | Sequence[bool] = True,
        *,
        out_indices: int | Sequence[int] = (0, 1, 2),
        **kwargs: Any,
    ) -> None:
        super().__init__(arch, out_indices=out_indices, **kwargs)
        odd(self, kernel_size=kernel_size)
        positive(self, kv_stride=kv_stride)
        self.depths, self.stage_channels = list(self.arch.depths), list(self.arch.embed_dims)
        self.pooled, self.norm_outputs = pooled, norm_outputs or pooled
        stages = len(self.depths)
        if isinstance(with_cls_token, bool):
            with_cls_token = [with_cls_token and i == stages - 1 for i in range(stages)]
        self.with_cls_token = per_stage(self, stages, with_cls_token=with_cls_token)
        projections = per_stage(self, stages, projection=projection)
        for value in projections:
            one_of(self, METHODS, projection=value)
        self.operators = list(
            zip(
                projections,
                per_stage(self, stages, kernel_size=kernel_size),
                per_stage(self, stages, kv_stride=kv_stride),
                per_stage(self, stages, qkv_bias=qkv_bias),
                strict=True,
            )
        )
        self.build()

    @property
    def map_strides(self) -> tuple[int, ...]:
        """Strides of the maps of all stages, 4, 8 and 16 in the published variants."""
        return tuple(itertools.accumulate(self.arch.patch_strides, lambda a, b: a * b))

    def make_stage(self, stage: int) -> nn.Module:
        """Token embedding and blocks."""
        arch, channels = self.arch, self.stage_channels[stage]
        last = stage == len(self.depths) - 1
        embed = TokenEmbed(
            self.stage_channels[stage - 1] if stage else self.in_channels,
            channels,
            arch.patch_sizes[stage],
            arch.patch_strides[stage],
            arch.patch_paddings[stage],
            self.with_cls_token[stage],
        )
        # linear within the last stage alone
        rates = drop_path_schedule(self.drop_path_rate, self.depths[-1:])
        blocks = [
            CvTBlock(
                channels,
                ConvolutionalProjectionAttention(
                    channels, arch.heads[stage], *self.operators[stage]
                ),
                arch.mlp_ratios[stage],
                rates[0][block] if last else 0.0,
            )
            for block in range(self.depths[stage])
        ]
        norm = self.make_norm(stage, channels)
        made = CvTStage(blocks, self.with_cp, {'embed': embed}, norm=norm)
        made.pooled = self.pooled and last
        return made

    def make_norm(self, stage: int, channels: int) -> nn.Module:
        """Norm of a stage's map, where that is returned and normed."""
        return super().make_norm(stage, channels) if self.norm_outputs else nn.Identity()

    def finish(self) -> None:
        """Check as well that what the classifier sees is returned alone."""
        super().finish()
        self.need_last_map_only(pooled=self.pooled)

    def returned_map(self, stage: int, state: Tensor) -> Tensor:
        """The map of a stage as it is returned, (N, C, H, W); pooled, (N, C)."""
        if self.pooled:
            return self.stages[stage].norm(state).mean(1)
        return super().returned_map(stage, state.permute(0, 2, 3, 1))
