"""Pyramid Vision Transformer, plain and with ACmix.

Status: PVT complete, checked number by number against the authors' code for classification and
detection. PVT with ACmix was never published: complete by our reading of the paper.

Sources: "Pyramid Vision Transformer" (arXiv 2102.12122) and "On the Integration of Self-Attention
and Convolution" (arXiv 2111.14556).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Arch, StageRatios, StageSizes
from hybrid_mm.backbones.frames.base import BaseBackbone, SharedArguments
from hybrid_mm.backbones.frames.blocks import Stage, run_blocks
from hybrid_mm.backbones.frames.swin import PaddedPatchEmbed
from hybrid_mm.backbones.frames.token_pyramid import MLP, init_linear
from hybrid_mm.layers.attention.spatial_reduction_attention import (
    ACmixSpatialReductionAttention,
    SpatialReductionAttention,
)
from hybrid_mm.layers.drop import DropPath
from hybrid_mm.ops.arguments import divides, multiple_of, one_of, sides
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.fitted_weights import SizedTables
from hybrid_mm.ops.positions import fit_position_embedding, resize_position_embedding
from hybrid_mm.registry import MODELS


class PVTEmbed(SizedTables, PaddedPatchEmbed):
    """Patches, layer norm, and position embedding.

    Args:
        in_channels: Channels of the input.
        channels: Channels C of the output.
        patch_size: Pixels of a patch on each side.
        grid: Rows and columns of the map that the positions are made for.
        class_token: The table has an entry for a class token in front.
        pad: Pad incomplete patches with zeros; else they are left out.
    """

    tables = ('position',)
    class_token: nn.Parameter  # of the last stage of a classifier only

    def __init__(
        self,
        in_channels: int,
        channels: int,
        patch_size: int,
        grid: tuple[int, int],
        class_token: bool,
        pad: bool,
    ) -> None:
        super().__init__(in_channels, channels, patch_size)
        self.extra, self.pad, self.grid = int(class_token), pad, grid
        self.position = nn.Parameter(torch.empty(1, self.extra + grid[0] * grid[1], channels))
        nn.init.trunc_normal_(self.position, std=0.02)

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Interpolate bilinearly."""
        return fit_position_embedding(table, self.grid, self.extra, 'bilinear', 'img_size')

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, H', W', C)."""
        if not self.pad:
            x = x[:, :, : x.shape[2] // self.patch_size * self.patch_size]
            x = x[..., : x.shape[3] // self.patch_size * self.patch_size]
        x = super().forward(x)
        size = x.shape[1], x.shape[2]
        position = resize_position_embedding(self.position, size, self.extra, grid=self.grid)
        return x + position[:, self.extra :].unflatten(1, size)


class PVTBlock(nn.Module):
    """Attention to a reduced map and feed-forward network, each after a layer norm.

    Args:
        channels: Number of channels C.
        attn: Maps tokens (N, L, C) and the size (H, W) of their map to the same shape.
        mlp_ratio: Hidden width of the feed-forward network as a multiple of C.
        drop_path: Drop-path rate of both branches.
    """

    def __init__(self, channels: int, attn: nn.Module, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=1e-6)
        self.attn = attn
        self.norm2 = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = MLP(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Map (N, H, W, C), or tokens (N, L, C) of a map of the given size, to the same shape."""
        shape = x.shape
        size = size or (shape[1], shape[2])
        x = x.flatten(1, -2)
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return (x + self.drop_path(self.mlp(self.norm2(x)))).reshape(shape)


class PVTStage(Stage):
    """Patch embedding and blocks of maps (N, H, W, C), which are passed on as (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to this stage's, (N, C, H, W)."""
        return super().forward(x).permute(0, 3, 1, 2)


class PVTClassTokenStage(Stage):
    """The last stage of the classifier: its class token goes through the blocks with the map."""

    embed: PVTEmbed

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        channels = self.embed.position.shape[-1]
        self.embed.class_token = nn.Parameter(torch.zeros(1, 1, channels))
        nn.init.trunc_normal_(self.embed.class_token, std=0.02)
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to the class token, (N, C)."""
        x = self.embed(x)
        size = tuple(x.shape[1:3])
        first = self.embed.class_token + self.embed.position[:, :1]
        x = torch.cat([first.expand(x.shape[0], -1, -1), x.flatten(1, 2)], 1)
        return self.norm(run_blocks(self.blocks, x, self.with_cp, size)[:, 0])


@dataclass(frozen=True, kw_only=True)
class PVTArch(Arch):
    """Variant of a PVT."""

    # as in MMDetection
    other_names: ClassVar = {
        'num_layers': 'depths',
        'num_heads': 'heads',
        'sr_ratios': 'reductions',
    }

    depths: StageSizes  # number of blocks
    embed_dims: StageSizes  # channels of the maps
    heads: StageSizes  # heads of the attention
    mlp_ratios: StageRatios  # hidden width of the feed-forward networks to the channels
    reductions: StageSizes  # stride of the keys and values

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check that heads divide the channels as well."""
        super().check(owner, name)
        for channels, heads in zip(self.embed_dims, self.heads, strict=True):
            divides(owner, channels, **{f'{name}.heads': heads})


def _arch(*depths: int) -> PVTArch:
    return PVTArch(
        depths=depths,
        embed_dims=(64, 128, 320, 512),
        heads=(1, 2, 5, 8),
        mlp_ratios=(8, 8, 4, 4),
        reductions=(8, 4, 2, 1),
    )


@MODELS.register_module()
class PVT(BaseBackbone):
    """Pyramid Vision Transformer, its attention plain or with ACmix's convolution path.

    Maps of any image size from 32 x 32 up; the positions are interpolated.

    Args:
        arch: 'tiny', 'small', 'medium', 'large', or a dict with the fields of :class:`PVTArch`.
        acmix: Add ACmix's convolution path to every attention (the paper's: 'tiny' and 'small').
        img_size: Height and width of the image that the position embeddings are made for, one
            number or two; those of files made for another (square, if it has another number of
            patches) are interpolated at loading.
        class_token: Return the class token of the last stage after its norm, (N, C), instead of
            maps: the published classifier.
        partial_patches: 'pad' pads patches at the lower and right border with zeros, so that a
            map has ceil(H / stride) rows; 'drop' leaves them out as the published code does. They
            agree on multiples of 32.
        qkv_bias: Biases of queries, keys and values.
        impl: Algorithm of ACmix, see :mod:`hybrid_mm.ops.dispatch`.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`; ``norm_eval`` has no
            effect, there is no batch norm.

    Raises:
        ValueError: An unknown variant, heads that do not divide the channels, an image size that is
            not a multiple of 32, other maps than the last with ``class_token``.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import PVT
        >>> maps = PVT('tiny', acmix=True).eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 64, 25, 33), (1, 128, 13, 17), (1, 320, 7, 9), (1, 512, 4, 5)]
    """

    arch_class = PVTArch
    arch_zoo: ClassVar = {
        'tiny': _arch(2, 2, 2, 2),
        'small': _arch(3, 4, 6, 3),
        'medium': _arch(3, 4, 18, 3),
        'large': _arch(3, 8, 27, 3),
    }
    arch_aliases: ClassVar = {'t': 'tiny', 's': 'small', 'm': 'medium', 'l': 'large'}
    # of MMDetection's PyramidVisionTransformer, whose variants differ in the numbers of layers
    other_names: ClassVar = {
        'pretrain_img_size': 'img_size',
        'num_layers': lambda depths: {'arch': asdict(_arch()) | {'depths': depths}},
    }

    arch: PVTArch

    def __init__(
        self,
        arch: str | Mapping | PVTArch = 'tiny',
        acmix: bool = False,
        img_size: int | Sequence[int] = 224,
        class_token: bool = False,
        partial_patches: str = 'pad',
        qkv_bias: bool = True,
        impl: str = 'auto',
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        check_impl(impl, 'mixed_shift')
        one_of(self, ('pad', 'drop'), partial_patches=partial_patches)
        self.depths, self.stage_channels = list(self.arch.depths), list(self.arch.embed_dims)
        multiple_of(self, 4 * 2 ** (len(self.depths) - 1), img_size=img_size)
        self.img_size = sides(self, img_size=img_size)
        self.acmix, self.class_token = acmix, class_token
        self.pad = partial_patches == 'pad'
        self.qkv_bias, self.impl = qkv_bias, impl
        self.build()

    def make_stage(self, stage: int) -> nn.Module:
        """Patch embedding and blocks; the last stage may have a class token."""
        arch, channels = self.arch, self.stage_channels[stage]
        last = stage == len(self.depths) - 1
        rows, columns = (side // (4 * 2**stage) for side in self.img_size)
        embed = PVTEmbed(
            self.stage_channels[stage - 1] if stage else self.in_channels,
            channels,
            2 if stage else 4,
            (rows, columns),
            last,  # dense networks have the entry as well, without use
            self.pad,
        )
        blocks = [
            PVTBlock(channels, self._attention(stage), arch.mlp_ratios[stage], rate)
            for rate in self.drop_path_rates[stage]
        ]
        stage_class = PVTClassTokenStage if self.class_token and last else PVTStage
        return stage_class(blocks, self.with_cp, {'embed': embed})

    def _attention(self, stage: int) -> nn.Module:
        arch, channels = self.arch, self.stage_channels[stage]
        operator = channels, arch.heads[stage], arch.reductions[stage], self.qkv_bias
        if self.acmix:
            return ACmixSpatialReductionAttention(*operator, self.impl)
        return SpatialReductionAttention(*operator)

    def reset_parameters(self) -> None:
        """Draw the weights of linear layers from N(0, 0.02), cut at 2; biases are 0."""
        init_linear(self)

    def finish(self) -> None:
        """Check as well that a class token is returned alone."""
        super().finish()
        self.need_last_map_only(class_token=self.class_token)

    def leaves_out(self, key: str) -> bool:
        """Also the class token of a classifier and its norm, in a network for maps."""
        last = f'stages.{len(self.depths) - 1}.'
        only = f'{last}embed.class_token', f'{last}norm.weight', f'{last}norm.bias'
        return super().leaves_out(key) or (key in only and not self.class_token)
