"""HorNet: ConvNeXt-like networks of recursive gated convolutions.

Status: complete; checked number by number against the official code.

Source: "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions" (arXiv
2207.14284), section 3.3 and table 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import StageOptions, StageSizes
from hybrid_mm.backbones.frames.convnext import ConvNeXtArch, ConvNeXtArguments, ConvNeXtFrame
from hybrid_mm.backbones.frames.token_pyramid import MLP
from hybrid_mm.layers import DropPath, RecursiveGatedConv
from hybrid_mm.ops.arguments import not_negative, per_stage, positive
from hybrid_mm.registry import MODELS

_EPS = 1e-6
_FILTERS = (None, None, (14, 8), (7, 4))
_FILTERS_384 = (None, None, (24, 13), (12, 7))


class HorBlock(nn.Module):
    """Mixing of pixels and MLP, each after a layer norm and inside a residual connection.

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


def _dims(base_dim: int) -> dict[str, Any]:
    return {'dims': [base_dim * 2**stage for stage in range(4)]}


def _filter_sizes(dw_cfg: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """MMPretrain's description of the depthwise convolutions, 'DW' or 'GF', as ours."""
    sizes: list[tuple[int, int] | None] = []
    for cfg in dw_cfg:
        if dict(cfg) == dict(type='DW', kernel_size=7):
            sizes.append(None)
        elif set(cfg) == {'type', 'h', 'w'} and cfg['type'] == 'GF':
            sizes.append((cfg['h'], cfg['w']))
        else:
            raise ValueError(
                "arch.dw_cfg of HorNet: dict(type='DW', kernel_size=7) or dict(type='GF', h=..., "
                f'w=...) expected for each stage, got {cfg!r}'
            )
    return {'filter_sizes': sizes}


@dataclass(frozen=True, kw_only=True)
class HorNetArch(ConvNeXtArch):
    """Variant of a HorNet."""

    other_names: ClassVar = {'base_dim': _dims, 'dw_cfg': _filter_sizes}

    orders: StageSizes  # order of the recursive gated convolutions
    # rows and columns of the learned spectrum of a global filter, or None for a 7 x 7 kernel
    filter_sizes: StageOptions

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check the sizes of the spectra as well."""
        super().check(owner, name)
        for size in self.filter_sizes:
            if size is not None and not (isinstance(size, list | tuple) and len(size) == 2):
                raise ValueError(
                    f'{name}.filter_sizes of {owner}: None or (rows, columns) for each stage '
                    f'expected, got {self.filter_sizes}'
                )
            positive(owner, **{f'{name}.filter_sizes': size})


def _variants(**dims: int) -> dict[str, HorNetArch]:
    filters = {'': (None,) * 4, '-gf': _FILTERS, '-gf384': _FILTERS_384}
    return {
        name + suffix: HorNetArch(
            depths=(2, 3, 18, 2),
            dims=(dim, 2 * dim, 4 * dim, 8 * dim),
            orders=(2, 3, 4, 5),
            filter_sizes=sizes,
        )
        for name, dim in dims.items()
        for suffix, sizes in filters.items()
    }


@MODELS.register_module()
class HorNet(ConvNeXtFrame):
    """HorNet.

    Maps of any image size from 32 x 32 up; a map has floor(H / stride) rows.

    Args:
        arch: 'tiny', 'small', 'base' or 'large', each also with '-gf' (global filters in the third
            and fourth stage, for images of 224 x 224) or '-gf384', or a dict with the
            fields of :class:`HorNetArch`.
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

    arch_class = HorNetArch
    arch_zoo: ClassVar = _variants(tiny=64, small=96, base=128, large=192)
    arch_aliases: ClassVar = {
        size[0] + suffix: size + suffix
        for size in ('tiny', 'small', 'base', 'large')
        for suffix in ('', '-gf', '-gf384')
    }
    other_names: ClassVar = {
        **ConvNeXtFrame.other_names,
        'use_layer_scale': lambda on: {} if on else {'layer_scale': 0.0},
    }
    blocks_per_layer = 2

    arch: HorNetArch

    def __init__(
        self,
        arch: str | Mapping | HorNetArch = 'tiny',
        filter_sizes: Sequence[tuple[int, int] | None] | None = None,
        scale: float = 1 / 3,
        **kwargs: Unpack[ConvNeXtArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        not_negative(self, scale=scale)
        if filter_sizes is not None:
            sizes = per_stage(self, len(self.depths), filter_sizes=filter_sizes)
            self.arch = replace(self.arch, filter_sizes=sizes)
            self.arch.check(type(self).__name__)
        self.scale = scale
        self.build()

    def make_block(self, stage: int, channels: int, drop_path: float) -> nn.Module:
        """Block of a stage."""
        size = self.arch.filter_sizes[stage]
        mixer = RecursiveGatedConv(
            channels,
            channels,
            channels,
            self.arch.orders[stage],
            scale=self.scale,
            filter_size=None if size is None else tuple(size),
        )
        return HorBlock(mixer, channels, drop_path, self.layer_scale)
