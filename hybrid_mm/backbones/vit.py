"""Plain vision transformers: ViT, and ViTDet's backbone.

Status: complete; checked number by number against timm (ViT) and detectron2 (ViTDet).

Sources: "An Image is Worth 16x16 Words" (arXiv 2010.11929), section 3.1, and "Exploring Plain
Vision Transformer Backbones for Object Detection" (arXiv 2203.16527), section 3.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.backbones.frames.base import BaseBackbone, run_blocks
from hybrid_mm.backbones.frames.token_pyramid import MLP, init_linear
from hybrid_mm.layers.attention.self_attention import SelfAttention
from hybrid_mm.layers.drop import DropPath, drop_path_schedule
from hybrid_mm.layers.norm import LayerNorm2d
from hybrid_mm.ops.positions import fit_tables, resize_position_embedding
from hybrid_mm.registry import MODELS

_EPS = 1e-6


class PatchTokens(nn.Module):
    """Patches side by side and their absolute positions, perhaps a class token in front.

    Args:
        in_channels: Channels of the image.
        channels: Channels C of the tokens.
        patch_size: Pixels of a patch on each side.
        grid: Rows (and columns) of the map that the positions are made for.
        class_token: Put a class token in front; its position is there either way.
        pad: Fill up the last patches with zeros; else they are left out.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        patch_size: int,
        grid: int,
        class_token: bool,
        pad: bool,
    ) -> None:
        super().__init__()
        self.patch_size, self.pad = patch_size, pad
        self.proj = nn.Conv2d(in_channels, channels, patch_size, patch_size)
        self.position = nn.Parameter(torch.empty(1, 1 + grid**2, channels))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.class_token = None
        if class_token:
            self.class_token = nn.Parameter(torch.empty(1, 1, channels))
            nn.init.trunc_normal_(self.class_token, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Map (N, in_channels, H, W) to tokens (N, L, C) and the rows and columns of their map."""
        if self.pad:
            height, width = x.shape[2:]
            x = F.pad(x, (0, -width % self.patch_size, 0, -height % self.patch_size))
        x = self.proj(x)
        size = tuple(x.shape[2:])
        x = x.flatten(2).transpose(1, 2)
        position = resize_position_embedding(self.position, size, 1, mode='bicubic')
        if self.class_token is None:
            return x + position[:, 1:], size
        return torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + position, size


class ResidualConvolution(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolution with layer norms; starts as the identity (section 3).

    Args:
        channels: Channels C; C / 2 in between.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = [channels, channels // 2, channels // 2, channels]
        for i, kernel in enumerate((1, 3, 1)):
            conv = nn.Conv2d(widths[i], widths[i + 1], kernel, padding=kernel // 2, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode='fan_out', nonlinearity='relu')
            self.add_module(f'conv{i + 1}', conv)
            self.add_module(f'norm{i + 1}', LayerNorm2d(widths[i + 1], eps=_EPS))
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y = F.gelu(self.norm1(self.conv1(x)))
        y = F.gelu(self.norm2(self.conv2(y)))
        return x + self.norm3(self.conv3(y))


class ViTBlock(nn.Module):
    """Attention and MLP behind layer norms, then perhaps convolutions.

    Args:
        attn: Maps tokens (N, L, C) and the size of their map to the same shape.
        channels: Channels C.
        mlp_ratio: Hidden width of the MLP as a multiple of C.
        drop_path: Drop-path rate of both branches.
        residual: End with residual convolutions.
    """

    def __init__(
        self, attn: SelfAttention, channels: int, mlp_ratio: float, drop_path: float, residual: bool
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=_EPS)
        self.attn = attn
        self.norm2 = nn.LayerNorm(channels, eps=_EPS)
        self.mlp = MLP(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.residual = ResidualConvolution(channels) if residual else None

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (N, L, C) of a map of this size to the same shape."""
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        x = x + self.drop_path(self.mlp(self.norm2(x)))
        if self.residual is None:
            return x
        maps = x.unflatten(1, size).permute(0, 3, 1, 2)
        return self.residual(maps).permute(0, 2, 3, 1).flatten(1, 2)


class ViTStage(nn.Module):
    """Some blocks whose last output may be returned.

    Args:
        blocks: Modules of tokens (N, L, C) and the size of their map.
        norm: Norm of the returned tokens.
        with_cp: Recompute the blocks in the backward pass.
    """

    def __init__(self, blocks: list[nn.Module], norm: nn.Module, with_cp: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.with_cp = with_cp

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map tokens (N, L, C) of a map of this size to the same shape."""
        return run_blocks(self.blocks, x, self.with_cp, size)


def _arch(embed_dim: int, heads: int, depth: int) -> dict:
    return dict(embed_dim=embed_dim, heads=heads, depths=[depth // 4] * 4)


@MODELS.register_module()
class ViT(BaseBackbone):
    """Vision Transformer for dense prediction, plain or as in ViTDet.

    All maps have the stride of a patch. Its blocks are divided into subsets of consecutive ones
    ("stages"): their last outputs are the maps, and with windows their last blocks look at the
    whole map. ViTDet is ``ViT('base', window_size=14, relative=True, class_token=False,
    img_size=1024)`` with :class:`~hybrid_mm.openmmlab.simple_fpn.SimpleFPN` behind it.

    Maps of any image size from 32 x 32 up; absolute positions are interpolated (bicubic), relative
    ones as well (linear).

    Args:
        arch: 'tiny', 'small', 'base', 'large', 'huge', or a dict with ``embed_dim``, ``heads``, and
            ``depths``, the number of blocks of each subset.
        patch_size: Pixels of a patch on each side.
        pretrain_img_size: Rows and columns of the image that the absolute positions are made for;
            weights made for another are interpolated at loading.
        img_size: Rows and columns of the image that the relative positions of blocks without
            windows are made for.
        window_size: Tokens of a window on each side; None: no windows.
        global_blocks: Numbers of the blocks without windows, by default the last of each subset.
        residual_blocks: Numbers of the blocks that end with residual convolutions.
        relative: With decomposed relative positions, which are zero at first.
        class_token: With a class token; it excludes windows, relative positions and convolutions.
        final_norm: Layer norm on the last map.
        pooled: Return the class token of the last subset, (N, C), instead of maps: classifiers.
        partial_patches: 'pad' fills up patches at the lower and right border with zeros, so that a
            map has ceil(H / patch_size) rows; 'drop' leaves them out as the published codes do.
        mlp_ratio: Hidden width of the MLPs as a multiple of the channels.
        qkv_bias: Bias of the projections to queries, keys and values.
        impl: See :func:`~hybrid_mm.ops.decomposed_attention.decomposed_attention`.
        in_channels: Channels of the input image.
        out_indices: Subsets whose last maps are returned.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0.
        frozen_stages: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`; stages are the
            subsets.
        norm_eval: Without effect, there is no batch norm.
        with_cp: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        init_cfg: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant, image sizes that are no multiples of the patch, blocks that
            do not exist, settings that exclude each other.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import ViT
        >>> maps = ViT('tiny').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 192, 7, 9), (1, 192, 7, 9), (1, 192, 7, 9), (1, 192, 7, 9)]
    """

    arch_zoo: ClassVar = {
        'tiny': _arch(192, 3, 12),
        'small': _arch(384, 6, 12),
        'base': _arch(768, 12, 12),
        'large': _arch(1024, 16, 24),
        'huge': _arch(1280, 16, 32),
    }
    arch_aliases: ClassVar = {'ti': 'tiny', 's': 'small', 'b': 'base', 'l': 'large', 'h': 'huge'}

    def __init__(
        self,
        arch: str | dict = 'base',
        patch_size: int = 16,
        pretrain_img_size: int = 224,
        img_size: int = 224,
        window_size: int | None = None,
        global_blocks: Sequence[int] | None = None,
        residual_blocks: Sequence[int] = (),
        relative: bool = False,
        class_token: bool = True,
        final_norm: bool = False,
        pooled: bool = False,
        partial_patches: str = 'pad',
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        impl: str = 'auto',
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_channels, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        settings = self.resolve_arch(arch)
        self.depths, channels = settings['depths'], settings['embed_dim']
        last, number = len(self.depths) - 1, sum(self.depths)
        if partial_patches not in ('pad', 'drop'):
            raise ValueError(f"partial_patches must be 'pad' or 'drop', got {partial_patches!r}")
        for name, size in (('pretrain_img_size', pretrain_img_size), ('img_size', img_size)):
            if size < patch_size or size % patch_size:
                raise ValueError(
                    f'{name} must be a multiple of the patch size {patch_size}, got {size}'
                )
        if class_token and (window_size is not None or relative or residual_blocks):
            raise ValueError(
                'class_token=True excludes window_size, relative and residual_blocks: ViTDet has '
                'class_token=False'
            )
        if pooled and not class_token:
            raise ValueError('pooled=True returns the class token and wants class_token=True')
        if global_blocks is None:
            global_blocks = [sum(self.depths[: i + 1]) - 1 for i in range(last + 1)]
        for name, blocks in (
            ('global_blocks', global_blocks),
            ('residual_blocks', residual_blocks),
        ):
            if any(not 0 <= block < number for block in blocks):
                raise ValueError(f'{name} must lie in 0..{number - 1}, got {tuple(blocks)}')
        self.stage_channels = [channels] * (last + 1)
        self.pooled = pooled
        self.stem = PatchTokens(
            in_channels,
            channels,
            patch_size,
            pretrain_img_size // patch_size,
            class_token,
            partial_patches == 'pad',
        )
        rates = drop_path_schedule(drop_path_rate, self.depths)
        self.stages = nn.ModuleList()
        block = 0
        for stage in range(last + 1):
            blocks = []
            for rate in rates[stage]:
                attn = SelfAttention(
                    channels,
                    settings['heads'],
                    (img_size // patch_size,) * 2 if relative else None,
                    None if block in global_blocks else window_size,
                    qkv_bias,
                    impl,
                )
                blocks.append(ViTBlock(attn, channels, mlp_ratio, rate, block in residual_blocks))
                block += 1
            norm = nn.LayerNorm(channels, eps=_EPS) if final_norm and stage == last else None
            self.stages.append(ViTStage(blocks, norm or nn.Identity(), with_cp))
        init_linear(self)
        self.register_load_state_dict_pre_hook(self._divide)
        self.finish()
        if pooled and self.out_indices != (last,):
            raise ValueError(f'pooled gives no maps: out_indices must be ({last},)')

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map an image (N, in_channels, H, W), H and W from 32, to the maps of ``out_indices``."""
        self.check_input(x)
        outs = []
        x, size = self.stem(x)
        for i, stage in enumerate(self.stages[: self.out_indices[-1] + 1]):
            x = stage(x, size)
            if i not in self.out_indices:
                continue
            tokens = stage.norm(x)
            if self.pooled:
                outs.append(tokens[:, 0])
            else:
                tokens = tokens[:, -size[0] * size[1] :]
                outs.append(tokens.transpose(1, 2).unflatten(2, size).contiguous())
        return tuple(outs)

    @staticmethod
    def _divide(model: 'ViT', state: dict[str, Tensor], prefix: str, *_: Any) -> None:
        """Rename blocks that are numbered through, as converted files have them, in place."""
        stages = [stage for stage, depth in enumerate(model.depths) for _ in range(depth)]
        for key in [key for key in state if key.startswith((f'{prefix}blocks.', f'{prefix}norm.'))]:
            part, _, rest = key[len(prefix) :].partition('.')
            stage = len(model.depths) - 1
            if part == 'blocks':
                number, _, rest = rest.partition('.')
                if not number.isdigit() or int(number) >= len(stages):
                    continue
                stage = stages[int(number)]
                part = f'blocks.{int(number) - sum(model.depths[:stage])}'
            state[f'{prefix}stages.{stage}.{part}.{rest}'] = state.pop(key)

    def load_strictly(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict in our layout, or one with the blocks numbered through.

        Positions are interpolated to our image sizes, patches to our patch size (bicubic; ViTDet-H
        comes from patches of 14 pixels). Relative positions and residual convolutions that a
        pre-trained network has not stay as they are; its class token and last norm are left out
        where we have none.

        Raises:
            ValueError: Keys or shapes differ; the message names the first of each.
        """
        own, state = self.state_dict(), dict(state)
        self._divide(self, state, '')
        state = fit_tables(self, state)
        state = {
            key: value
            for key, value in state.items()
            if key in own or not key.endswith(('stem.class_token', 'norm.weight', 'norm.bias'))
        }
        position = state.get('stem.position')
        if position is not None and position.ndim == 3:
            if round(position.shape[1] ** 0.5) ** 2 == position.shape[1]:  # no class token
                position = F.pad(position, (0, 0, 1, 0))
            side = round((own['stem.position'].shape[1] - 1) ** 0.5)
            state['stem.position'] = resize_position_embedding(
                position, (side, side), 1, mode='bicubic'
            )
        key, patch = 'stem.proj.weight', (self.stem.patch_size,) * 2
        if key in state and state[key].ndim == 4 and state[key].shape[2:] != patch:
            state[key] = F.interpolate(state[key], patch, mode='bicubic', align_corners=False)
        for part in ('.attn.relative.', '.residual.'):
            if not any(part in key for key in state):
                state |= {key: value for key, value in own.items() if part in key}
        super().load_strictly(state, origin)
