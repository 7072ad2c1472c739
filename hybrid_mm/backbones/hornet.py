"""HorNet: ConvNeXt-like networks of recursive gated convolutions.

Status: complete; checked number by number against the official code.

Source: "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions" (arXiv
2207.14284), section 3.3 and table 1.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from hybrid_mm.backbones.frames.convnext import ConvNeXtFrame
from hybrid_mm.backbones.frames.token_pyramid import MLP
from hybrid_mm.layers import DropPath, RecursiveGatedConv
from hybrid_mm.ops.positions import fit_tables
from hybrid_mm.registry import MODELS

_EPS = 1e-6
_FILTERS = [None, None, (14, 8), (7, 4)]
_FILTERS_384 = [None, None, (24, 13), (12, 7)]


class HorBlock(nn.Module):
    """Mixing of pixels and MLP, each behind a layer norm and inside a residual connection.

    Args:
        mixer: Module from (N, C, H, W) to the same shape.
        channels: Channels C.
        drop_path: Drop-path rate.
        layer_scale: Initial value of the two layer scales, or 0 for none.
    """

    def __init__(
        self, mixer: nn.Module, channels: int, drop_path: float, layer_scale: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=_EPS)
        self.mixer = mixer
        self.norm2 = nn.LayerNorm(channels, eps=_EPS)
        self.mlp = MLP(channels, 4 * channels)
        self.gamma1 = self.gamma2 = None
        if layer_scale > 0:
            self.gamma1 = nn.Parameter(torch.full((channels,), float(layer_scale)))
            self.gamma2 = nn.Parameter(torch.full((channels,), float(layer_scale)))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same shape."""
        mixed = self.mixer(self.norm1(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.drop_path(mixed if self.gamma1 is None else self.gamma1 * mixed)
        hidden = self.mlp(self.norm2(x))
        return x + self.drop_path(hidden if self.gamma2 is None else self.gamma2 * hidden)


def _variants(**dims: int) -> dict[str, dict]:
    kinds = {'': [None] * 4, '-gf': _FILTERS, '-gf384': _FILTERS_384}
    return {
        name + kind: dict(
            depths=[2, 3, 18, 2],
            dims=[dim, 2 * dim, 4 * dim, 8 * dim],
            orders=[2, 3, 4, 5],
            filter_sizes=filters,
        )
        for name, dim in dims.items()
        for kind, filters in kinds.items()
    }


@MODELS.register_module()
class HorNet(ConvNeXtFrame):
    """HorNet.

    Maps of any image size from 32 x 32 up; a map has floor(H / stride) rows.

    Args:
        arch: 'tiny', 'small', 'base' or 'large', each also with '-gf' (global filters in the third
            and fourth stage, for images of 224 x 224) or '-gf384', or a dict with ``depths``,
            ``dims``, ``orders`` and ``filter_sizes``, one entry per stage.
        filter_sizes: Replaces that of the variant: sizes of the learned spectra, None for a 7 x 7
            kernel. Weights of another size are interpolated at loading, as officially.
        scale: What the result of the depthwise convolutions is multiplied by.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.convnext.ConvNeXtFrame`.

    Raises:
        ValueError: An unknown variant, or channels that the orders do not divide.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import HorNet
        >>> maps = HorNet('tiny-gf').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 64, 24, 32), (1, 128, 12, 16), (1, 256, 6, 8), (1, 512, 3, 4)]
    """

    arch_zoo: ClassVar = _variants(tiny=64, small=96, base=128, large=192)
    arch_aliases: ClassVar = {'t': 'tiny', 's': 'small', 'b': 'base', 'l': 'large'}
    blocks_per_layer = 2

    def __init__(
        self,
        arch: str | dict = 'tiny',
        filter_sizes: Sequence[tuple[int, int] | None] | None = None,
        scale: float = 1 / 3,
        **kwargs,
    ) -> None:
        self.check_per_stage(arch, filter_sizes=filter_sizes)
        settings = self.resolve_arch(arch)
        self._filter_sizes = filter_sizes or settings['filter_sizes']
        self._orders, self._scale = settings['orders'], scale
        super().__init__(arch, **kwargs)

    def make_block(
        self, stage: int, channels: int, drop_path: float, layer_scale: float
    ) -> nn.Module:
        """Block of a stage."""
        size = self._filter_sizes[stage]
        mixer = RecursiveGatedConv(
            channels,
            channels,
            channels,
            self._orders[stage],
            scale=self._scale,
            filter_size=None if size is None else tuple(size),
        )
        return HorBlock(mixer, channels, drop_path, layer_scale)

    def load_strictly(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict in our layout; learned spectra of another size are interpolated.

        Raises:
            ValueError: Keys or shapes differ; the message names the first of each.
        """
        super().load_strictly(fit_tables(self, state), origin)
