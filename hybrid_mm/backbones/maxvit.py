"""MaxViT: MBConv, attention in windows and attention on grids in every block.

Status: complete; checked number by number against the weights' port in timm.

Source: "MaxViT: Multi-Axis Vision Transformer" (arXiv 2204.01697), section 3 and table 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.mbconv_pyramid import (
    MBConvArch,
    MBConvArguments,
    MBConvPyramid,
    TwoConvStemArch,
    check_numbers,
)
from hybrid_mm.backbones.frames.token_pyramid import MLP
from hybrid_mm.layers.attention.partition_attention import PartitionAttention
from hybrid_mm.layers.convolution.mbconv import MBConv
from hybrid_mm.layers.drop import DropPath
from hybrid_mm.ops.arguments import one_of, positive, sides
from hybrid_mm.registry import MODELS


class PartitionBlock(nn.Module):
    """Attention in windows or grids, then MLP, each after a layer norm in a residual connection.

    Args:
        channels: Channels C.
        window: Pixels of a window or grid on each side.
        head_width: Channels of a head.
        kind: 'block' or 'grid'.
        approximate: GELU of the MLP, 'tanh' or 'none'.
        ln_eps: Epsilon of the layer norms.
        drop_path: Drop-path rate of both branches.
        relative: 'table' or 'log', see
            :class:`~hybrid_mm.layers.attention.partition_attention.PartitionAttention`.
        relative_channels: See there.
        layer_scale: Initial value of the layer scales, or None for none.
    """

    def __init__(
        self,
        channels: int,
        window: tuple[int, int],
        head_width: int = 32,
        kind: str = 'block',
        approximate: str = 'none',
        ln_eps: float = 1e-5,
        drop_path: float = 0.0,
        relative: str = 'table',
        relative_channels: int = 512,
        layer_scale: float | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=ln_eps)
        self.attn = PartitionAttention(
            channels,
            window,
            head_width,
            kind,
            relative=relative,
            relative_channels=relative_channels,
        )
        self.gamma1 = self.gamma2 = None
        if layer_scale is not None:
            self.gamma1 = nn.Parameter(torch.full((channels,), float(layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(layer_scale)))
        self.norm2 = nn.LayerNorm(channels, eps=ln_eps)
        self.mlp = MLP(channels, 4 * channels, approximate)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same shape."""
        y = self.attn(self.norm1(x))
        x = x + self.drop_path(y if self.gamma1 is None else self.gamma1 * y)
        y = self.mlp(self.norm2(x))
        return x + self.drop_path(y if self.gamma2 is None else self.gamma2 * y)


class MaxViTBlock(nn.Module):
    """MBConv, attention in windows, attention on grids.

    Args:
        conv: MBConv.
        block: Attention in windows with its MLP.
        grid: Attention on grids with its MLP.
    """

    def __init__(self, conv: nn.Module, block: nn.Module, grid: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.block = block
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, H', W')."""
        x = self.conv(x).permute(0, 2, 3, 1)
        x = x.contiguous() if x.is_cuda else x  # once, not in every layer
        return self.grid(self.block(x)).permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class MaxViTArch(MBConvArch):
    """Variant of a MaxViT."""

    approximate: str  # GELU of the MLPs: 'tanh' or 'none'
    # relative, relative_channels and layer_scale of :class:`PartitionBlock`
    attention: Mapping[str, Any] = field(default_factory=dict)
    window_size: Sequence[int] | None = None  # rows and columns, 7 x 7 if not said
    grid_size: Sequence[int] | None = None  # as windows if not said

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check the GELU and the arguments of attention as well."""
        super().check(owner, name)
        check_numbers(owner, f'{name}.attention', self.attention, PartitionBlock)
        one_of(owner, ('tanh', 'none'), **{f'{name}.approximate': self.approximate})


def _official(stem: int, channels: int, deep: bool = False) -> MaxViTArch:
    """Variant of table 1; batch norm and GELU are those of TensorFlow."""
    return MaxViTArch(
        depths=(2, 6, 14, 2) if deep else (2, 2, 5, 2),
        channels=tuple(channels * 2**stage for stage in range(4)),
        stem=TwoConvStemArch(channels=(stem, stem), bias=True),
        conv=dict(act='gelu_tanh', padding='same'),
        norm=dict(eps=1e-3, momentum=0.01),
        ln_eps=1e-5,
        approximate='tanh',
    )


def _rw(
    stem: tuple[int, int], depths: Sequence[int], channels: int, **attention: Any
) -> MaxViTArch:
    """Variant trained by timm."""
    return MaxViTArch(
        depths=depths,
        channels=tuple(channels * 2**stage for stage in range(4)),
        stem=TwoConvStemArch(channels=stem, bias=False),
        conv=dict(
            act='silu',
            padding='symmetric',
            expand_from='input',
            gate_ratio=1 / 16,
            bias=False,
        ),
        norm=dict(eps=1e-5, momentum=0.1),
        ln_eps=1e-6,
        approximate='none',
        attention=attention,
    )


@MODELS.register_module()
class MaxViT(MBConvPyramid):
    """MaxViT.

    Maps of any image size from 32 x 32 up: a map has ceil(H / stride) rows. On maps that windows or
    grids do not divide, pixels beyond the border are not attended to. The official code returns
    the maps as they are.

    Args:
        arch: 'tiny', 'small', 'base', 'large' or 'xlarge'; the variants of timm 'tiny-rw',
            'nano-rw' and 'pico-rw', with tables of relative positions, and 'rmlp-base-rw',
            'rmlp-small-rw', 'rmlp-tiny-rw', 'rmlp-nano-rw' and 'rmlp-pico-rw', with networks for
            them; or a dict with the fields of :class:`MaxViTArch` or of timm's ``MaxxVitCfg``.
        window_size: Pixels of a window on each side, or (rows, columns): the side of the image over
            32, so that grids have the spacing of pixels that they were trained with; by default
            that of the variant, 7 in all that are named. Tables of another size are interpolated at
            loading, bilinearly as TensorFlow's code does.
        grid_size: Pixels of a grid, by default those of a window.
        head_width: Channels of a head, by default those of the variant, 32 in all that are named.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.mbconv_pyramid.MBConvPyramid`.

    Raises:
        ValueError: An unknown variant, channels that heads do not fill, a window without pixels.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import MaxViT
        >>> maps = MaxViT('pico-rw', window_size=8).eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 32, 25, 33), (1, 64, 13, 17), (1, 128, 7, 9), (1, 256, 4, 5)]
    """

    arch_class = MaxViTArch
    arch_zoo: ClassVar = {
        'tiny': _official(64, 64),
        'small': _official(64, 96),
        'base': _official(64, 96, deep=True),
        'large': _official(128, 128, deep=True),
        'xlarge': _official(192, 192, deep=True),
        'tiny-rw': _rw((32, 64), (2, 2, 5, 2), 64),
        'nano-rw': _rw((32, 64), (1, 2, 3, 1), 64),
        'pico-rw': _rw((24, 32), (2, 2, 5, 2), 32),
        'rmlp-pico-rw': _rw((24, 32), (2, 2, 5, 2), 32, relative='log'),
        'rmlp-nano-rw': _rw((32, 64), (1, 2, 3, 1), 64, relative='log'),
        'rmlp-tiny-rw': _rw((32, 64), (2, 2, 5, 2), 64, relative='log'),
        'rmlp-small-rw': _rw((32, 64), (2, 2, 5, 2), 96, relative='log', layer_scale=1e-6),
        'rmlp-base-rw': _rw((32, 64), (2, 6, 14, 2), 96, relative='log'),
    }
    arch_aliases: ClassVar = {'t': 'tiny', 's': 'small', 'b': 'base', 'l': 'large', 'xl': 'xlarge'}

    arch: MaxViTArch

    def __init__(
        self,
        arch: str | Mapping | MaxViTArch = 'tiny',
        window_size: int | Sequence[int] | None = None,
        grid_size: int | Sequence[int] | None = None,
        head_width: int | None = None,
        **kwargs: Unpack[MBConvArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        self.head_width = self.arch.head_width if head_width is None else head_width
        positive(self, head_width=self.head_width)
        if window_size is None:
            window_size, grid_size = (
                self.arch.window_size or 7,
                self.arch.grid_size if grid_size is None else grid_size,
            )
        window = sides(self, window_size=window_size)
        grid = window if grid_size is None else sides(self, grid_size=grid_size)
        self.windows = {'block': window, 'grid': grid}
        self.build()

    def make_block(
        self, stage: int, in_channels: int, channels: int, stride: int, drop_path: float
    ) -> nn.Module:
        """Block of a stage."""
        conv = MBConv(in_channels, channels, stride, drop_path=drop_path, **self.conv_settings)
        parts = [
            PartitionBlock(
                channels,
                window,
                self.head_width,
                kind,
                self.arch.approximate,
                self.arch.ln_eps,
                drop_path,
                **self.arch.attention,
            )
            for kind, window in self.windows.items()
        ]
        return MaxViTBlock(conv, *parts)

    def reset_parameters(self) -> None:
        """Draw all weights from N(0, 0.02) as the official code does; biases are 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
