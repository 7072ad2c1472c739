"""Core of the Swin Transformers whose window attention the papers replace by other operators.

Source: "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (arXiv
2103.14030), its code for classification and, for any image size, that for detection. A subclass
overrides :meth:`Swin.make_attention`.
"""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.backbones.frames.token_pyramid import MLP, TokenPyramid, TokenStage, init_linear
from hybrid_mm.layers.drop import DropPath, drop_path_schedule


class PatchEmbed(nn.Module):
    """Convolution of patches side by side, then layer norm.

    Args:
        in_channels: Channels of the image.
        channels: Channels C of the output.
        patch_size: Pixels of a patch on each side; the last ones are filled up with zeros.
    """

    def __init__(self, in_channels: int, channels: int, patch_size: int = 4) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Conv2d(in_channels, channels, patch_size, patch_size)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, ceil(H / patch), ceil(W / patch), C)."""
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % self.patch_size, 0, -height % self.patch_size))
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
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        return self.reduction(self.norm(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))


class SwinBlock(nn.Module):
    """Window attention and feed-forward network behind layer norms.

    A map that its windows do not divide is filled up with zeros behind the norm and cut again
    behind attention.

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
        down, right = -height % self.window, -width % self.window
        y = self.norm1(x)
        if down or right:
            y = F.pad(y, (0, 0, 0, right, 0, down))
        shifts = self.always_shift or min(height, width) > self.window
        y = self.attn(y, self.shift if shifts else 0)
        x = x + self.drop_path(y[:, :height, :width])
        return x + self.drop_path(self.mlp(self.norm2(x)))


def _arch(embed_dim: int, depths: list[int], heads: list[int]) -> dict:
    return dict(embed_dim=embed_dim, depths=depths, heads=heads)


class Swin(TokenPyramid):
    """Swin Transformer with replaceable attention; abstract: a subclass is registered.

    A subclass calls ``super().__init__``, takes its own arguments, and calls :meth:`build`.
    ``always_shift`` of :class:`SwinBlock` is an attribute of it.

    Args:
        arch: 'tiny', 'small', 'base', 'large', or a dict with ``embed_dim``, the channels of the
            first stage, and for every stage ``depths`` and ``heads``.
        window_size: Pixels of a window on each side, one value or one per stage.
        mlp_ratio: Hidden width of the feed-forward networks as a multiple of the channels.
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned, each behind a layer norm of its own.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0.
        frozen_stages: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        norm_eval: Without effect, there is no batch norm.
        with_cp: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        init_cfg: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant, or settings that do not fit the number of stages.
    """

    arch_zoo: ClassVar = {
        'tiny': _arch(96, [2, 2, 6, 2], [3, 6, 12, 24]),
        'small': _arch(96, [2, 2, 18, 2], [3, 6, 12, 24]),
        'base': _arch(128, [2, 2, 18, 2], [4, 8, 16, 32]),
        'large': _arch(192, [2, 2, 18, 2], [6, 12, 24, 48]),
    }
    arch_aliases: ClassVar = {'t': 'tiny', 's': 'small', 'b': 'base', 'l': 'large'}
    always_shift = False

    def __init__(
        self,
        arch: str | dict = 'tiny',
        window_size: int | tuple[int, ...] = 7,
        mlp_ratio: float = 4.0,
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_channels, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        self.settings = self.resolve_arch(arch)
        self.depths, self.heads = self.settings['depths'], self.settings['heads']
        self.stage_channels = [
            self.settings['embed_dim'] * 2**stage for stage in range(len(self.depths))
        ]
        windows = window_size if isinstance(window_size, list | tuple) else [window_size]
        self.windows = list(windows) * (len(self.depths) if len(windows) == 1 else 1)
        if len(self.windows) != len(self.depths) or min(self.windows) < 1:
            raise ValueError(
                f'window_size of {type(self).__name__}: a positive size, or one for each of the '
                f'{len(self.depths)} stages expected, got {window_size}'
            )
        self.mlp_ratio, self.drop_path_rate = mlp_ratio, drop_path_rate

    def make_attention(self, stage: int, block: int) -> nn.Module:
        """Operator in the place of window attention, see :class:`SwinBlock`."""
        raise NotImplementedError

    def build(self) -> None:
        """Build the stages; the subclass calls it when its arguments are set."""
        rates = drop_path_schedule(self.drop_path_rate, self.depths)
        self.stages = nn.ModuleList()
        for stage, channels in enumerate(self.stage_channels):
            window = self.windows[stage]
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
                for block, rate in enumerate(rates[stage])
            ]
            if stage:
                down = 'downsample', PatchMerging(channels // 2)
            else:
                down = 'embed', PatchEmbed(self.in_channels, channels)
            norm = self.make_norm(stage, channels)
            self.stages.append(TokenStage(down, blocks, norm, self.with_cp))
        init_linear(self)
        self.finish()
