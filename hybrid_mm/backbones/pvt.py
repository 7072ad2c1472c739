"""Pyramid Vision Transformer, plain and with ACmix.

Status: PVT complete, checked number by number against the authors' code for classification and
detection. PVT with ACmix was never published: complete by our reading of the paper.

Sources: "Pyramid Vision Transformer" (arXiv 2102.12122) and "On the Integration of Self-Attention
and Convolution" (arXiv 2111.14556).
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from hybrid_mm.backbones.frames.base import BaseBackbone, run_blocks
from hybrid_mm.backbones.frames.swin import PatchEmbed
from hybrid_mm.backbones.frames.token_pyramid import MLP, init_linear
from hybrid_mm.layers.attention.spatial_reduction_attention import (
    ACmixSpatialReductionAttention,
    SpatialReductionAttention,
)
from hybrid_mm.layers.drop import DropPath, drop_path_schedule
from hybrid_mm.ops.positions import resize_position_embedding
from hybrid_mm.registry import MODELS


class PVTEmbed(PatchEmbed):
    """Patches, layer norm, and position embedding.

    Args:
        in_channels: Channels of the input.
        channels: Channels C of the output.
        patch_size: Pixels of a patch on each side.
        grid: Rows (and columns) of the map that the positions are made for.
        class_token: The table has an entry for a class token in front.
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
        super().__init__(in_channels, channels, patch_size)
        self.extra, self.pad = int(class_token), pad
        self.position = nn.Parameter(torch.empty(1, self.extra + grid**2, channels))
        nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, H', W', C)."""
        if not self.pad:
            x = x[:, :, : x.shape[2] // self.patch_size * self.patch_size]
            x = x[..., : x.shape[3] // self.patch_size * self.patch_size]
        x = super().forward(x)
        position = resize_position_embedding(self.position, x.shape[1:3], self.extra)
        return x + position[:, self.extra :].unflatten(1, x.shape[1:3])


class PVTBlock(nn.Module):
    """Attention to a reduced map and feed-forward network behind layer norms.

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
        size = size or tuple(shape[1:3])
        x = x.reshape(shape[0], -1, shape[-1])
        x = x + self.drop_path(self.attn(self.norm1(x), size))
        return (x + self.drop_path(self.mlp(self.norm2(x)))).reshape(shape)


class PVTStage(nn.Module):
    """Patch embedding and blocks."""

    def __init__(self, embed: nn.Module, blocks: list[nn.Module], with_cp: bool) -> None:
        super().__init__()
        self.embed = embed
        self.blocks = nn.ModuleList(blocks)
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to this stage's, (N, C, H, W)."""
        return run_blocks(self.blocks, self.embed(x), self.with_cp).permute(0, 3, 1, 2)


class PVTClassTokenStage(PVTStage):
    """The last stage of the classifier: its class token goes through the blocks with the map."""

    def __init__(self, embed: nn.Module, blocks: list[nn.Module], with_cp: bool) -> None:
        super().__init__(embed, blocks, with_cp)
        channels = embed.position.shape[-1]
        self.embed.class_token = nn.Parameter(torch.zeros(1, 1, channels))
        nn.init.trunc_normal_(self.embed.class_token, std=0.02)
        self.norm = nn.LayerNorm(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to the class token, (N, C)."""
        x = self.embed(x)
        size = tuple(x.shape[1:3])
        first = self.embed.class_token + self.embed.position[:, :1]
        x = torch.cat([first.expand(len(x), -1, -1), x.flatten(1, 2)], 1)
        return self.norm(run_blocks(self.blocks, x, self.with_cp, size)[:, 0])


def _arch(*depths: int) -> dict:
    return dict(
        depths=list(depths),
        embed_dims=[64, 128, 320, 512],
        heads=[1, 2, 5, 8],
        mlp_ratios=[8, 8, 4, 4],
        reductions=[8, 4, 2, 1],
    )


@MODELS.register_module()
class PVT(BaseBackbone):
    """Pyramid Vision Transformer, its attention plain or with ACmix's convolution path.

    Maps of any image size from 32 x 32 up; the positions are interpolated.

    Args:
        arch: 'tiny', 'small', 'medium', 'large', or a dict with ``depths``, ``embed_dims``,
            ``heads``, ``mlp_ratios`` and ``reductions``, one entry per stage.
        acmix: Add ACmix's convolution path to every attention (the paper's: 'tiny' and 'small').
        img_size: Height and width of the image that the position embeddings are made for.
        class_token: Return the class token of the last stage behind its norm, (N, C), instead of
            maps: the published classifier.
        partial_patches: 'pad' fills up patches at the lower and right border with zeros, so that a
            map has ceil(H / stride) rows; 'drop' leaves them out as the published code does. They
            agree on multiples of 32.
        qkv_bias: Biases of queries, keys and values.
        impl: Algorithm of ACmix, see :mod:`hybrid_mm.ops.dispatch`.
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0.
        frozen_stages: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        norm_eval: Without effect, there is no batch norm.
        with_cp: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        init_cfg: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant, heads that do not divide the channels, an image size that is
            no multiple of 32, other maps than the last with ``class_token``.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import PVT
        >>> maps = PVT('tiny', acmix=True).eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 64, 25, 33), (1, 128, 13, 17), (1, 320, 7, 9), (1, 512, 4, 5)]
    """

    arch_zoo: ClassVar = {
        'tiny': _arch(2, 2, 2, 2),
        'small': _arch(3, 4, 6, 3),
        'medium': _arch(3, 4, 18, 3),
        'large': _arch(3, 8, 27, 3),
    }
    arch_aliases: ClassVar = {'t': 'tiny', 's': 'small', 'm': 'medium', 'l': 'large'}

    def __init__(
        self,
        arch: str | dict = 'tiny',
        acmix: bool = False,
        img_size: int = 224,
        class_token: bool = False,
        partial_patches: str = 'pad',
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
        if partial_patches not in ('pad', 'drop'):
            raise ValueError(f"partial_patches must be 'pad' or 'drop', got {partial_patches!r}")
        self.depths, self.stage_channels = settings['depths'], settings['embed_dims']
        last = len(self.depths) - 1
        if img_size % (4 * 2**last):
            raise ValueError(f'img_size must be a multiple of {4 * 2**last}, got {img_size}')
        rates = drop_path_schedule(drop_path_rate, self.depths)
        self.stages = nn.ModuleList()
        for i, channels in enumerate(self.stage_channels):
            operator = settings['heads'][i], settings['reductions'][i], qkv_bias
            blocks = [
                PVTBlock(
                    channels,
                    ACmixSpatialReductionAttention(channels, *operator, impl)
                    if acmix
                    else SpatialReductionAttention(channels, *operator),
                    settings['mlp_ratios'][i],
                    rate,
                )
                for rate in rates[i]
            ]
            embed = PVTEmbed(
                self.stage_channels[i - 1] if i else in_channels,
                channels,
                2 if i else 4,
                img_size // (4 * 2**i),
                i == last,  # dense networks have the entry as well, without use
                partial_patches == 'pad',
            )
            kind = PVTClassTokenStage if class_token and i == last else PVTStage
            self.stages.append(kind(embed, blocks, with_cp))
        init_linear(self)
        self.finish()
        if class_token and self.out_indices != (last,):
            raise ValueError(
                f'class_token gives no maps: out_indices must be ({last},), got {self.out_indices}'
            )

    def load_strictly(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict in our layout, its position embeddings fitted to our image size.

        A network for maps leaves out the class token of a classifier and its norm.

        Raises:
            ValueError: Keys or shapes differ; the message names the first of each.
        """
        own, last = self.state_dict(), f'stages.{len(self.stages) - 1}.'
        only = {f'{last}embed.class_token', f'{last}norm.weight', f'{last}norm.bias'}
        state = {key: value for key, value in state.items() if key in own or key not in only}
        for i, stage in enumerate(self.stages):
            key, extra = f'stages.{i}.embed.position', stage.embed.extra
            if key in state and state[key].ndim == 3:
                side = round((own[key].shape[1] - extra) ** 0.5)
                state[key] = resize_position_embedding(state[key], (side, side), extra)
        super().load_strictly(state, origin)
