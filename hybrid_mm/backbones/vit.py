"""Plain vision transformers: ViT, and ViTDet's backbone.

Status: complete; checked number by number against timm (ViT) and detectron2 (ViTDet).

Sources: "An Image is Worth 16x16 Words" (arXiv 2010.11929), section 3.1, and "Exploring Plain
Vision Transformer Backbones for Object Detection" (arXiv 2203.16527), section 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Arch, Size, StageSizes
from hybrid_mm.backbones.frames.base import BaseBackbone, SharedArguments
from hybrid_mm.backbones.frames.blocks import Stage, conv2d_he, run_blocks
from hybrid_mm.backbones.frames.token_pyramid import MLP, init_linear
from hybrid_mm.convert.core import StateDict
from hybrid_mm.layers.attention.self_attention import SelfAttention
from hybrid_mm.layers.drop import DropPath
from hybrid_mm.layers.norm import LayerNorm2d
from hybrid_mm.ops.arguments import (
    divides,
    multiple_of,
    not_negative,
    one_of,
    positive,
    sides,
)
from hybrid_mm.ops.fitted_weights import SizedTables
from hybrid_mm.ops.positions import fit_position_embedding, resize_position_embedding
from hybrid_mm.ops.windows import missing
from hybrid_mm.registry import MODELS

_EPS = 1e-6


def _resize_patches(weight: Tensor, size: int) -> Tensor:
    """Fit a convolution of patches (C, in_channels, P, P) to patches of another size, bicubic."""
    if weight.shape[2:] == (size, size):
        return weight
    full = weight.to(torch.promote_types(weight.dtype, torch.float32))
    full = F.interpolate(full, (size, size), mode='bicubic', align_corners=False)
    return full.to(weight.dtype)


class PatchTokens(SizedTables):
    """Patches side by side and their absolute positions, perhaps a class token in front.

    Args:
        in_channels: Channels of the image.
        channels: Channels C of the tokens.
        patch_size: Pixels of a patch on each side.
        grid: Rows and columns of the map that the positions are made for.
        class_token: Put a class token in front; its position is there either way.
        pad: Pad incomplete patches with zeros; else they are left out.
        pre_norm: Layer norm on the tokens; the patches have no bias then.
        norm_eps: Epsilon of that norm.
    """

    tables = ('position',)

    def __init__(
        self,
        in_channels: int,
        channels: int,
        patch_size: int,
        grid: tuple[int, int],
        class_token: bool,
        pad: bool,
        pre_norm: bool = False,
        norm_eps: float = _EPS,
    ) -> None:
        super().__init__()
        self.patch_size, self.pad, self.grid = patch_size, pad, grid
        self.proj = nn.Conv2d(in_channels, channels, patch_size, patch_size, bias=not pre_norm)
        self.pre_norm = nn.LayerNorm(channels, eps=norm_eps) if pre_norm else nn.Identity()
        self.position = nn.Parameter(torch.empty(1, 1 + grid[0] * grid[1], channels))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.class_token = None
        if class_token:
            self.class_token = nn.Parameter(torch.empty(1, 1, channels))
            nn.init.trunc_normal_(self.class_token, std=0.02)

    def fit_weights(self, state: StateDict) -> StateDict:
        """Fit positions, and patches to our patch size (bicubic; ViTDet-H comes from 14 pixels).

        A class token is left out where we have none. 'patch_position' are positions of a file that
        does not tell whether the first one is that of a class token.
        """
        if 'patch_position' in state:
            patches = state.pop('patch_position')
            known = patches.shape[1] == self.position.shape[1]
            state['position'] = patches if known else F.pad(patches, (0, 0, 1, 0))
        position, token = state.get('position'), 'class_token' in state
        if self.class_token is None:
            state.pop('class_token', None)
        if not token and isinstance(position, Tensor) and position.ndim == 3:
            lacking = self.position.shape[1] - position.shape[1]
            # the entry of a class token, which our layout has always
            state['position'] = F.pad(position, (0, 0, 1, 0)) if lacking == 1 else position
        key, patch = 'proj.weight', self.proj.weight
        if key in state and state[key].ndim == 4 and state[key].shape[:2] == patch.shape[:2]:
            state[key] = _resize_patches(state[key], self.patch_size)
        return super().fit_weights(state)

    def resize_table(self, name: str, table: Tensor, shape: Sequence[int]) -> Tensor:
        """Interpolate by cubes."""
        return fit_position_embedding(table, self.grid, 1, 'bicubic', 'pretrain_img_size')

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map (N, in_channels, H, W) to tokens (N, L, C) and the rows and columns of their map."""
        if self.pad:
            below, right = (missing(length, self.patch_size) for length in x.shape[2:])
            x = F.pad(x, (0, right, 0, below))
        x = self.proj(x)
        size = x.shape[2], x.shape[3]
        x = x.flatten(2).transpose(1, 2)
        position = resize_position_embedding(self.position, size, 1, 'bicubic', self.grid)
        if self.class_token is None:
            return self.pre_norm(x + position[:, 1:]), size
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], 1) + position
        return self.pre_norm(x), size


class ResidualConvolution(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolution with layer norms; starts as the identity (section 3).

    Args:
        channels: Channels C; C / 2 in between.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = conv2d_he(channels, half, 1)
        self.norm1 = LayerNorm2d(half, eps=_EPS)
        self.conv2 = conv2d_he(half, half, 3)
        self.norm2 = LayerNorm2d(half, eps=_EPS)
        self.conv3 = conv2d_he(half, channels, 1)
        self.norm3 = LayerNorm2d(channels, eps=_EPS)
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y = F.gelu(self.norm1(self.conv1(x)))
        y = F.gelu(self.norm2(self.conv2(y)))
        return x + self.norm3(self.conv3(y))


class ViTBlock(nn.Module):
    """Attention and MLP, each after a layer norm, then perhaps convolutions.

    Args:
        attn: Maps tokens (N, L, C) and the size of their map to the same shape.
        channels: Channels C.
        mlp_ratio: Hidden width of the MLP as a multiple of C.
        drop_path: Drop-path rate of both branches.
        residual: End with residual convolutions.
        layer_scale: Initial value of the layer scales, or None for none.
        norm_eps: Epsilon of the layer norms.
    """

    def __init__(
        self,
        attn: SelfAttention,
        channels: int,
        mlp_ratio: float,
        drop_path: float,
        residual: bool,
        layer_scale: float | None = None,
        norm_eps: float = _EPS,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=norm_eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(channels, eps=norm_eps)
        self.mlp = MLP(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.residual = ResidualConvolution(channels) if residual else None
        self.gamma1 = self.gamma2 = None
        if layer_scale is not None:
            self.gamma1, self.gamma2 = (
                nn.Parameter(torch.full((channels,), float(layer_scale))) for _ in range(2)
            )

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (N, L, C) of a map of this size to the same shape."""
        y = self.attn(self.norm1(x), size)
        x = x + self.drop_path(y if self.gamma1 is None else self.gamma1 * y)
        y = self.mlp(self.norm2(x))
        x = x + self.drop_path(y if self.gamma2 is None else self.gamma2 * y)
        if self.residual is None:
            return x
        maps = x.unflatten(1, size).permute(0, 3, 1, 2)
        return self.residual(maps).permute(0, 2, 3, 1).flatten(1, 2)


class ViTStage(Stage):
    """Some blocks whose last output may be returned."""

    def forward(self, state: tuple[Tensor, tuple[int, int]]) -> tuple[Tensor, tuple[int, int]]:
        """Map tokens (N, L, C) and the size of their map to such."""
        x, size = state
        return run_blocks(self.blocks, x, self.with_cp, size), size


def _depths(num_layers: Any) -> dict[str, Any]:
    """Every block a subset: MMPretrain's ``out_indices`` are numbers of blocks."""
    return {'depths': [1] * num_layers if isinstance(num_layers, int) else num_layers}


def _layer_scale(value: float) -> dict[str, Any]:
    """MMPretrain has 0 for none."""
    return {'layer_scale': value or None}


def _pooled(out_type: str) -> dict[str, Any]:
    """What MMPretrain returns: maps, or the class token."""
    one_of('ViT', ('featmap', 'cls_token'), out_type=out_type)
    return {'pooled': out_type == 'cls_token'}


@dataclass(frozen=True, kw_only=True)
class ViTArch(Arch):
    """Variant of a ViT."""

    other_names: ClassVar = {
        'embed_dims': 'embed_dim',
        'num_heads': 'heads',
        'num_layers': _depths,
    }

    embed_dim: Size  # channels
    heads: Size  # heads of the attention
    depths: StageSizes  # number of blocks of each subset

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check that heads divide the channels as well."""
        super().check(owner, name)
        divides(owner, self.embed_dim, **{f'{name}.heads': self.heads})


def _arch(embed_dim: int, heads: int, depth: int) -> ViTArch:
    return ViTArch(embed_dim=embed_dim, heads=heads, depths=(depth // 4,) * 4)


@MODELS.register_module()
class ViT(BaseBackbone):
    """Vision Transformer for dense prediction, plain or as in ViTDet.

    All maps have the stride of a patch. Its blocks are divided into subsets of consecutive ones
    ("stages"): their last outputs are the maps, and with windows their last blocks look at the
    whole map. ViTDet is ``ViT('base', window_size=14, relative=True, class_token=False,
    img_size=1024)`` followed by :class:`~hybrid_mm.openmmlab.simple_fpn.SimpleFPN`.

    Maps of any image size from 32 x 32 up; absolute positions are interpolated (bicubic), relative
    ones as well (linear; biases bilinear).

    Args:
        arch: 'tiny', 'small', 'base', 'large', 'huge', or a dict with the fields of
            :class:`ViTArch`.
        patch_size: Pixels of a patch on each side.
        pretrain_img_size: Rows and columns of the image, one number or two, that the absolute
            positions are made for; weights made for another (square, if it has another number of
            patches) are interpolated at loading.
        img_size: Rows and columns of the image, one number or two, that the relative positions of
            blocks without windows are made for.
        window_size: Tokens of a window on each side; None: no windows.
        global_blocks: Numbers of the blocks without windows, by default the last of each subset.
        residual_blocks: Numbers of the blocks that end with residual convolutions.
        relative: With decomposed relative positions, or 'bias': with a number per head and offset,
            as in BEiT and in MMSegmentation's MAE. Both are zero at first.
        class_token: With a class token; it excludes windows, decomposed relative positions and
            convolutions.
        final_norm: Layer norm on the last map.
        pre_norm: Layer norm before the first block, and patches without bias, as in CLIP.
        pooled: Return the class token of the last subset, (N, C), instead of maps: classifiers.
        partial_patches: 'pad' pads patches at the lower and right border with zeros, so that a
            map has ceil(H / patch_size) rows; 'drop' leaves them out as the published codes do.
        mlp_ratio: Hidden width of the MLPs as a multiple of the channels.
        qkv_bias: Bias of the projections to queries, keys and values.
        layer_scale: Initial value of layer scales, or None for none; weights without them leave
            them as they are.
        impl: See :func:`~hybrid_mm.ops.decomposed_attention.decomposed_attention`.
        norm_eps: Epsilon of the layer norms of tokens: 1e-5 in CLIP and in timm's SAM.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`; its stages are the
            subsets. ``norm_eval`` has no effect, there is no batch norm.

    Raises:
        ValueError: An unknown variant, image sizes that are not multiples of the patch, blocks that
            do not exist, settings that exclude each other.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import ViT
        >>> maps = ViT('tiny').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 192, 7, 9), (1, 192, 7, 9), (1, 192, 7, 9), (1, 192, 7, 9)]
    """

    arch_class = ViTArch
    arch_zoo: ClassVar = {
        'tiny': _arch(192, 3, 12),
        'small': _arch(384, 6, 12),
        'base': _arch(768, 12, 12),
        'large': _arch(1024, 16, 24),
        'huge': _arch(1280, 16, 32),
    }
    arch_aliases: ClassVar = {
        **{'ti': 'tiny', 's': 'small', 'b': 'base', 'l': 'large', 'h': 'huge'},
        **{'deit-tiny': 'tiny', 'deit-small': 'small', 'deit-base': 'base'},
        **{'deit-t': 'tiny', 'deit-s': 'small', 'deit-b': 'base'},
    }
    other_names: ClassVar = {
        'with_cls_token': 'class_token',
        'use_rel_pos': 'relative',
        'layer_scale_init_value': _layer_scale,
        'out_type': _pooled,
    }

    arch: ViTArch

    def __init__(
        self,
        arch: str | Mapping | ViTArch = 'base',
        patch_size: int = 16,
        pretrain_img_size: int | Sequence[int] = 224,
        img_size: int | Sequence[int] = 224,
        window_size: int | None = None,
        global_blocks: Sequence[int] | None = None,
        residual_blocks: Sequence[int] = (),
        relative: bool | str = False,
        class_token: bool = True,
        final_norm: bool = False,
        pooled: bool = False,
        partial_patches: str = 'pad',
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        layer_scale: float | None = None,
        impl: str = 'auto',
        pre_norm: bool = False,
        norm_eps: float = _EPS,
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        one_of(self, ('pad', 'drop'), partial_patches=partial_patches)
        one_of(self, (False, True, 'bias'), relative=relative)
        positive(self, patch_size=patch_size, window_size=window_size, mlp_ratio=mlp_ratio)
        not_negative(self, layer_scale=layer_scale, norm_eps=norm_eps)
        self.pretrain_img_size = sides(self, pretrain_img_size=pretrain_img_size)
        self.img_size = sides(self, img_size=img_size)
        multiple_of(self, patch_size, pretrain_img_size=pretrain_img_size, img_size=img_size)
        if class_token and (window_size is not None or relative is True or residual_blocks):
            raise ValueError(
                'class_token=True excludes window_size, relative=True and residual_blocks: ViTDet '
                'has class_token=False'
            )
        if pooled and not class_token:
            raise ValueError('pooled=True returns the class token and needs class_token=True')
        self.depths = list(self.arch.depths)
        self.stage_channels = [self.arch.embed_dim] * len(self.depths)
        self.first_blocks = [sum(self.depths[:stage]) for stage in range(len(self.depths) + 1)]
        if global_blocks is None:
            global_blocks = [block - 1 for block in self.first_blocks[1:]]
        self.global_blocks = self._blocks(global_blocks=global_blocks)
        self.residual_blocks = self._blocks(residual_blocks=residual_blocks)
        self.patch_size, self.window_size = patch_size, window_size
        self.relative, self.class_token, self.qkv_bias = relative, class_token, qkv_bias
        self.final_norm, self.pooled, self.impl = final_norm, pooled, impl
        self.pad, self.mlp_ratio = partial_patches == 'pad', mlp_ratio
        self.layer_scale, self.pre_norm, self.norm_eps = layer_scale, pre_norm, norm_eps
        self.build()

    def _blocks(self, **argument: Sequence[int]) -> tuple[int, ...]:
        """Numbers of blocks, of all subsets in turn.

        Raises:
            ValueError: A block that does not exist.
        """
        ((name, blocks),) = argument.items()
        number = sum(self.depths)
        if any(not 0 <= block < number for block in blocks):
            raise ValueError(f'{name} must lie in 0..{number - 1}, got {tuple(blocks)}')
        return tuple(blocks)

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the patches of an image."""
        return size[0] // self.patch_size, size[1] // self.patch_size

    @property
    def map_strides(self) -> tuple[int, ...]:
        """The size of a patch, for all maps."""
        return (self.patch_size,) * len(self.depths)

    def make_stem(self) -> nn.Module:
        """Patches and their positions."""
        return PatchTokens(
            self.in_channels,
            self.arch.embed_dim,
            self.patch_size,
            self._grid(self.pretrain_img_size),
            self.class_token,
            self.pad,
            self.pre_norm,
            self.norm_eps,
        )

    def make_stage(self, stage: int) -> nn.Module:
        """Consecutive blocks; only the last map may have a norm."""
        channels, first = self.arch.embed_dim, self.first_blocks[stage]
        size = self._grid(self.img_size)
        kind = 'decomposed'
        if self.relative == 'bias':
            kind = 'token_bias' if self.class_token else 'bias'
        blocks = []
        for block, rate in enumerate(self.drop_path_rates[stage], first):
            attn = SelfAttention(
                channels,
                self.arch.heads,
                size if self.relative else None,
                None if block in self.global_blocks else self.window_size,
                self.qkv_bias,
                self.impl,
                kind,
            )
            residual = block in self.residual_blocks
            scales = self.layer_scale, self.norm_eps
            blocks.append(ViTBlock(attn, channels, self.mlp_ratio, rate, residual, *scales))
        normed = self.final_norm and stage == len(self.depths) - 1
        norm = nn.LayerNorm(channels, eps=self.norm_eps) if normed else nn.Identity()
        return ViTStage(blocks, self.with_cp, norm=norm)

    def reset_parameters(self) -> None:
        """Draw the weights of linear layers from N(0, 0.02), cut at 2; biases are 0."""
        init_linear(self)

    def finish(self) -> None:
        """Check as well that a class token is returned alone."""
        super().finish()
        self.need_last_map_only(pooled=self.pooled)

    def returned_map(self, stage: int, state: tuple[Tensor, tuple[int, int]]) -> Tensor:
        """The map of a stage as it is returned, (N, C, H, W); pooled, its class token (N, C)."""
        x, size = state
        tokens = self.stages[stage].norm(x)
        if self.pooled:
            return tokens[:, 0]
        return tokens[:, -size[0] * size[1] :].transpose(1, 2).unflatten(2, size)

    def fit_weights(self, state: StateDict) -> StateDict:
        """Map flat indices of blocks, as converted files have them, to (stage, block)."""
        stages = [stage for stage, depth in enumerate(self.depths) for _ in range(depth)]
        for key in [key for key in state if key.startswith(('blocks.', 'norm.'))]:
            part, _, rest = key.partition('.')
            stage = len(self.depths) - 1
            if part == 'blocks':
                number, _, rest = rest.partition('.')
                if not number.isdigit() or int(number) >= len(stages):
                    continue
                stage = stages[int(number)]
                part = f'blocks.{int(number) - sum(self.depths[:stage])}'
            state[f'stages.{stage}.{part}.{rest}'] = state.pop(key)
        return super().fit_weights(state)

    def may_lack_norm(self, stage: int) -> bool:
        """That of a pre-trained network."""
        return True

    def initial_values(self, state: StateDict) -> StateDict:
        """What ViTDet adds to a pre-trained network, and layer scales."""
        lacking = tuple(
            part
            for part in ('.attn.relative.', '.residual.', '.gamma')
            if not any(part in key for key in state)
        )
        own = self.state_dict().items()
        return {key: value for key, value in own if any(part in key for part in lacking)}
