"""Core of the Swin Transformers whose window attention the papers replace by other operators.

Source: "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (arXiv
2103.14030), its code for classification and, for any image size, that for detection. A subclass
overrides :meth:`Swin.make_attention`.
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
from hybrid_mm.layers.drop import DropPath
from hybrid_mm.ops.arguments import divides, per_stage, positive
from hybrid_mm.ops.export import has_symbols
from hybrid_mm.ops.windows import missing

__all__ = ['PaddedPatchEmbed', 'PatchMerging', 'Swin', 'SwinArch', 'SwinArguments', 'SwinBlock']


class PaddedPatchEmbed(nn.Module):
    """Convolution of patches side by side, then layer norm.

    Args:
        in_channels: Channels of the image.
        channels: Channels C of the output.
        patch_size: Pixels of a patch on each side; the last ones are padded with zeros.
    """

    def __init__(self, in_channels: int, channels: int, patch_size: int = 4) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, channels, patch_size, patch_size)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, ceil(H / patch), ceil(W / patch), C)."""
        height, width = x.shape[2:]
        x = F.pad(x, (0, missing(width, self.patch_size), 0, missing(height, self.patch_size)))
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class PatchMerging(nn.Module):
    """2 x 2 pixels side by side as one vector, layer norm, linear layer to half its width.

    Args:
        channels: Channels C of the input; the output has 2 C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, ceil(H / 2), ceil(W / 2), 2 C)."""
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, missing(width, 2), 0, missing(height, 2)))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        return self.reduction(self.norm(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))


class SwinBlock(nn.Module):
    """Window attention and feed-forward network, each after a layer norm.

    A map that its windows do not divide is padded with zeros after the norm and cropped after
    attention.

    Args:
        channels: Number of channels C.
        attn: Maps (N, H, W, C), sides being multiples of the window, and the shift to the same
            shape.
        window: Pixels of a window on each side.
        shift: By how much the windows of this block are shifted.
        mlp_ratio: Hidden width of the feed-forward network as a multiple of C.
        drop_path: Drop-path rate of both branches.
        always_shift: Shift the windows of a map with a side that fits into a window as well.
    """

    def __init__(
        self,
        channels: int,
        attn: nn.Module,
        window: int,
        shift: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        always_shift: bool = False,
    ) -> None:
        super().__init__()
        self.window, self.shift, self.always_shift = window, shift, always_shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = attn
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, int(channels * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same shape."""
        height, width = x.shape[1:3]
        down, right = missing(height, self.window), missing(width, self.window)
        y = self.norm1(x)
        if has_symbols((height, width)) or down or right:
            y = F.pad(y, (0, 0, 0, right, 0, down))
        y = self.attn(y, self.shift_of(height, width))
        x = x + self.drop_path(y[:, :height, :width])
        return x + self.drop_path(self.mlp(self.norm2(x)))

    def shift_of(self, height: int, width: int) -> int:
        """By how much the windows are shifted on a map, which may have a symbolic size."""
        if self.always_shift or not self.shift:
            return self.shift
        if not has_symbols((height, width)):
            return self.shift if min(height, width) > self.window else 0
        shift = self.shift
        for side in (height, width):  # times 1 if it is larger than a window, else times 0
            shift *= 1 - 1 // (1 + (side - 1) // self.window)
        return shift


@dataclass(frozen=True, kw_only=True)
class SwinArch(Arch):
    """Variant of a Swin Transformer."""

    embed_dim: Size  # channels of the first stage, doubled from stage to stage
    depths: StageSizes  # number of blocks
    heads: StageSizes  # heads of the attention


def _arch(embed_dim: int, depths: Sequence[int], heads: Sequence[int]) -> SwinArch:
    return SwinArch(embed_dim=embed_dim, depths=depths, heads=heads)


class SwinArguments(SharedArguments, total=False):
    """Arguments that all Swin Transformers take, by keyword; see :class:`Swin`."""

    window_size: int | Sequence[int]
    mlp_ratio: float
    patch_size: int


class Swin(TokenPyramid):
    """Swin Transformer with replaceable attention; abstract: a subclass is registered.

    ``always_shift`` of :class:`SwinBlock` is an attribute of it.

    Args:
        arch: Name in ``arch_zoo``, or a dict with the fields of :class:`SwinArch`.
        window_size: Pixels of a window on each side, one value or one per stage.
        mlp_ratio: Hidden width of the feed-forward networks as a multiple of the channels.
        patch_size: Pixels of a token of the first stage on each side.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`; ``norm_eval`` has no
            effect, there is no batch norm.

    Raises:
        ValueError: An unknown variant, or settings that do not fit the number of stages.
    """

    arch_class: ClassVar[type[SwinArch]] = SwinArch
    arch_zoo: ClassVar = {
        'tiny': _arch(96, (2, 2, 6, 2), (3, 6, 12, 24)),
        'small': _arch(96, (2, 2, 18, 2), (3, 6, 12, 24)),
        'base': _arch(128, (2, 2, 18, 2), (4, 8, 16, 32)),
        'large': _arch(192, (2, 2, 18, 2), (6, 12, 24, 48)),
    }
    arch_aliases: ClassVar = {'t': 'tiny', 's': 'small', 'b': 'base', 'l': 'large'}
    always_shift = False

    arch: SwinArch

    def __init__(
        self,
        arch: str | Mapping | SwinArch = 'tiny',
        window_size: int | Sequence[int] = 7,
        mlp_ratio: float = 4.0,
        patch_size: int = 4,
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        self.depths, self.heads = list(self.arch.depths), self.arch.heads
        self.stage_channels = [self.arch.embed_dim * 2**stage for stage in range(len(self.depths))]
        for channels, heads in zip(self.stage_channels, self.heads, strict=True):
            divides(self, channels, **{'arch.heads': heads})
        positive(self, window_size=window_size, mlp_ratio=mlp_ratio, patch_size=patch_size)
        self.windows = per_stage(self, len(self.depths), window_size=window_size)
        self.mlp_ratio, self.patch_size = mlp_ratio, patch_size

    @property
    def map_strides(self) -> tuple[int, ...]:
        """The size of a patch, doubled from stage to stage."""
        return tuple(self.patch_size * 2**stage for stage in range(len(self.stage_channels)))

    def make_attention(self, stage: int, block: int) -> nn.Module:
        """Operator in place of window attention; what a subclass has to define.

        Args:
            stage: Index of the stage, from 0; ``self.stage_channels[stage]`` are its channels C,
                ``self.heads[stage]`` its heads, ``self.windows[stage]`` its window.
            block: Index of the block in its stage, from 0; odd ones shift their windows.

        Returns:
            Module that maps (N, H, W, C), with sides that are multiples of the window, and the
            shift in pixels, 0 for none, to (N, H, W, C); see :class:`SwinBlock`.
        """
        raise NotImplementedError(f'{type(self).__name__} needs the method make_attention')

    def make_stage(self, stage: int) -> nn.Module:
        """Patch embedding or merging, then blocks; every second one shifts its windows."""
        channels, window = self.stage_channels[stage], self.windows[stage]
        blocks = [
            SwinBlock(
                channels,
                self.make_attention(stage, block),
                window,
                window // 2 * (block % 2),
                self.mlp_ratio,
                rate,
                self.always_shift,
            )
            for block, rate in enumerate(self.drop_path_rates[stage])
        ]
        before: dict[str, nn.Module] = (
            {'downsample': PatchMerging(channels // 2)}
            if stage
            else {'embed': PaddedPatchEmbed(self.in_channels, channels, self.patch_size)}
        )
        return Stage(blocks, self.with_cp, before, norm=self.make_norm(stage, channels))
