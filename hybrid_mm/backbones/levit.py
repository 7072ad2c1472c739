"""LeViT: convolutions, then attention with batch norm, shrinking between stages.

Status: complete, checked number by number against the authors' code.

Source: "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference" (arXiv 2104.01136).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Arch, StageOptions, StageRatios, StageSizes
from hybrid_mm.backbones.frames.base import BaseBackbone, SharedArguments
from hybrid_mm.backbones.frames.blocks import Stage, run_blocks
from hybrid_mm.layers.attention.levit_attention import LeViTAttention
from hybrid_mm.layers.drop import DropPath
from hybrid_mm.layers.folded_norm import Conv2dNorm, LinearNorm, fold_norms
from hybrid_mm.ops.arguments import multiple_of, not_negative, positive, sides
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.inference_cache import InferenceCache, keeps
from hybrid_mm.registry import MODELS


class StemConv(nn.Module):
    """Convolution 3 x 3 with stride 2 and batch norm, then Hardswish except for the last one.

    Args:
        in_channels: Channels of the input.
        channels: Channels C of the output.
        act: Apply Hardswish.
    """

    def __init__(self, in_channels: int, channels: int, act: bool = True) -> None:
        super().__init__()
        self.conv = Conv2dNorm(in_channels, channels, stride=2)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / 2), ceil(W / 2))."""
        x = self.conv(x)
        return F.hardswish(x, inplace=keeps(self)) if self.act else x


class LeViTMLP(nn.Module):
    """Linear, Hardswish, linear; batch norms in place of biases.

    Args:
        channels: Channels C.
        hidden_channels: Channels in between.
        norm_weight: Initial scale of the last norm.
    """

    def __init__(self, channels: int, hidden_channels: int, norm_weight: float) -> None:
        super().__init__()
        self.fc1 = LinearNorm(channels, hidden_channels)
        self.fc2 = LinearNorm(hidden_channels, channels, norm_weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to the same shape."""
        return self.fc2(self.fc1(x, 'hardswish'))


class LeViTBlock(nn.Module):
    """Attention and feed-forward network, each with a shortcut.

    Args:
        attn: Maps (N, H, W, C) to the same shape, or, if it shrinks, to a smaller map of C'
            channels: it has no shortcut then.
        mlp: Maps (..., C') to the same shape; None for none.
        drop_path: Drop-path rate of both branches.
    """

    def __init__(self, attn: LeViTAttention, mlp: nn.Module | None, drop_path: float) -> None:
        super().__init__()
        self.attn = attn
        self.mlp = mlp
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, ceil(H / s), ceil(W / s), C')."""
        y = self.attn(x)
        x = x + self.drop_path(y) if self.attn.stride == 1 else y
        return x if self.mlp is None else x + self.drop_path(self.mlp(x))


class StemStage(Stage):
    """A convolution of the stem, then blocks, if any, of maps (N, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / 2), ceil(W / 2))."""
        x = self.enter(x)
        if not len(self.blocks):
            return x
        # contiguous, or all that follows would take over the strides of the convolution
        x = x.permute(0, 2, 3, 1).contiguous()
        return run_blocks(self.blocks, x, self.with_cp).permute(0, 3, 1, 2)


class ShrinkingStage(Stage):
    """Shrinking attention, then blocks, of maps (N, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / 2), ceil(W / 2))."""
        blocks = [self.downsample, *self.blocks]
        return run_blocks(blocks, x.permute(0, 2, 3, 1), self.with_cp).permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class LeViTArch(Arch):
    """Variant of a LeViT; one entry per attention stage."""

    other_names: ClassVar = {'num_heads': 'heads'}

    embed_dims: StageSizes  # channels of the maps, the first a multiple of 8
    key_dims: StageSizes  # channels of a head's queries and keys
    heads: StageSizes  # heads of the attention
    depths: StageSizes  # number of blocks
    mlp_ratios: StageRatios  # hidden width of the feed-forward networks to the channels
    value_ratios: StageRatios  # channels of the values to those of the keys
    # the same of the shrinking attention before a stage; the first stage has none
    shrink_heads: StageOptions
    shrink_key_dims: StageOptions
    shrink_value_ratios: StageOptions
    shrink_mlp_ratios: StageOptions

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check the width of the stem and the numbers of the shrinking attention as well."""
        super().check(owner, name)
        multiple_of(owner, 8, **{f'{name}.embed_dims[0]': self.embed_dims[0]})
        for key in (field.name for field in fields(self)):
            if not key.startswith('shrink_'):
                continue
            values = getattr(self, key)[1:]
            if any(value is None for value in values):
                raise ValueError(
                    f'{name}.{key} of {owner}: a number for every stage but the first expected, '
                    f'got {getattr(self, key)}'
                )
            check = not_negative if key.endswith('ratios') else positive
            check(owner, **{f'{name}.{key}': values})


def _arch(
    embed_dims: Sequence[int], key_dim: int, heads: Sequence[int], depths: Sequence[int]
) -> LeViTArch:
    return LeViTArch(
        embed_dims=embed_dims,
        key_dims=(key_dim,) * 3,
        heads=heads,
        depths=depths,
        mlp_ratios=(2,) * 3,
        value_ratios=(2,) * 3,
        shrink_heads=(None, *(width // key_dim for width in embed_dims[:2])),
        shrink_key_dims=(None, key_dim, key_dim),
        shrink_value_ratios=(None, 4, 4),
        shrink_mlp_ratios=(None, 2, 2),
    )


@MODELS.register_module()
class LeViT(BaseBackbone):
    """LeViT with maps at strides 4 to 64, for images of any size.

    The first two maps are those of the second and third convolution of the stem, after their
    activation; the other three are those of the attention stages. Biases by distance, made
    for a square map, are interpolated for others.

    Args:
        arch: '128s', '128', '192', '256', '384', or a dict with the fields of :class:`LeViTArch`.
        img_size: Height and width of the image that the biases are made for, one number or two;
            those of files made for another are interpolated at loading.
        pooled: Return the mean of the last map, (N, C), as the classifier does. No other maps then.
        zero_init_residual: Start the last norm of every branch at zero, as the published code does.
        impl: Of the attention, see :func:`~hybrid_mm.ops.distance_attention.distance_attention`.
        deploy: Build the network as :meth:`switch_to_deploy` leaves it.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`. There are five maps,
            of strides 4 to 64; the stem that can be frozen is the first convolution; all blocks
            have one drop-path rate. ``norm_eval`` saves memory: the norms are part of the layers
            before them then.

    Raises:
        ValueError: An unknown variant or impl, an image size or widths that do not fit, other maps
            than the last with ``pooled``.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import LeViT
        >>> maps = LeViT('128s').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 32, 25, 33), (1, 64, 13, 17), (1, 128, 7, 9), (1, 256, 4, 5)]
    """

    arch_class = LeViTArch
    arch_zoo: ClassVar = {
        '128s': _arch((128, 256, 384), 16, (4, 6, 8), (2, 3, 4)),
        '128': _arch((128, 256, 384), 16, (4, 8, 12), (4, 4, 4)),
        '192': _arch((192, 288, 384), 32, (3, 5, 6), (4, 4, 4)),
        '256': _arch((256, 384, 512), 32, (4, 6, 8), (4, 4, 4)),
        '384': _arch((384, 512, 768), 32, (6, 9, 12), (4, 4, 4)),
    }
    arch_aliases: ClassVar = {f'levit-{name}': name for name in arch_zoo}

    arch: LeViTArch

    def __init__(
        self,
        arch: str | Mapping | LeViTArch = '128s',
        img_size: int | Sequence[int] = 224,
        pooled: bool = False,
        zero_init_residual: bool = True,
        impl: str = 'auto',
        deploy: bool = False,
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        check_impl(impl, 'distance_attention')
        self.img_size = sides(self, img_size=img_size)
        widths = self.arch.embed_dims
        self.depths = [0, 0, *self.arch.depths]
        self.stem_channels = [widths[0] // 8, widths[0] // 4, widths[0] // 2]
        self.stage_channels = [*self.stem_channels[1:], *widths]
        self.pooled, self.impl, self.deploy = pooled, impl, deploy
        self.last_norm = 0.0 if zero_init_residual else 1.0
        self._cache = InferenceCache()
        self.build()

    def _forward(self, x: Tensor) -> tuple[Tensor, ...]:
        with self._cache.of(self):
            return super()._forward(x)

    def make_stem(self) -> nn.Module:
        """The first convolution."""
        return StemConv(self.in_channels, self.stem_channels[0])

    def make_stage(self, stage: int) -> nn.Module:
        """Convolution of the stem, or blocks, or shrinking attention and blocks."""
        width = self.stage_channels[stage]
        before = self.stage_channels[stage - 1] if stage else self.stem_channels[0]
        index = stage - 2  # of the attention stages
        if index < 0:
            return StemStage([], self.with_cp, {'downsample': StemConv(before, width)})
        blocks = [
            LeViTBlock(self._attention(index), self._mlp(index), self.drop_path_rate)
            for _ in range(self.depths[stage])
        ]
        if index == 0:
            convolution = StemConv(before, width, act=False)
            return StemStage(blocks, self.with_cp, {'downsample': convolution})
        mlp = self._mlp(index, self.arch.shrink_mlp_ratios[index])
        shrink = LeViTBlock(self._shrinking_attention(index), mlp, self.drop_path_rate)
        return ShrinkingStage(blocks, self.with_cp, {'downsample': shrink})

    def _map_size(self, index: int) -> tuple[int, int]:
        """Rows and columns of the map of an attention stage, for an image of ``img_size``."""
        height, width = (-(-side // (16 * 2**index)) for side in self.img_size)
        return height, width

    def _attention(self, index: int) -> LeViTAttention:
        arch, width = self.arch, self.arch.embed_dims[index]
        return LeViTAttention(
            width,
            width,
            arch.key_dims[index],
            arch.heads[index],
            arch.value_ratios[index],
            self._map_size(index),
            norm_weight=self.last_norm,
            impl=self.impl,
        )

    def _shrinking_attention(self, index: int) -> LeViTAttention:
        arch = self.arch
        return LeViTAttention(
            arch.embed_dims[index - 1],
            arch.embed_dims[index],
            arch.shrink_key_dims[index],
            arch.shrink_heads[index],
            arch.shrink_value_ratios[index],
            self._map_size(index - 1),
            stride=2,
            impl=self.impl,
        )

    def _mlp(self, index: int, ratio: float | None = None) -> nn.Module | None:
        width = self.arch.embed_dims[index]
        hidden = int(width * (self.arch.mlp_ratios[index] if ratio is None else ratio))
        return LeViTMLP(width, hidden, self.last_norm) if hidden else None

    def reset_parameters(self) -> None:
        """Merge norms if asked for; weights keep the values of their layers."""
        if self.deploy:
            self.switch_to_deploy()

    def finish(self) -> None:
        """Check as well that a mean is returned alone."""
        super().finish()
        self.need_last_map_only(pooled=self.pooled)

    def returned_map(self, stage: int, state: Tensor) -> Tensor:
        """The map of a stage as it is returned, (N, C, H, W); pooled, (N, C)."""
        return state.mean((2, 3)) if self.pooled else state

    def switch_to_deploy(self) -> None:
        """Merge all norms into the layers before them, for inference."""
        fold_norms(self)
