"""The simple feature pyramid of ViTDet: all levels from one map.

Status: complete; checked number by number against detectron2.

Source: "Exploring Plain Vision Transformer Backbones for Object Detection" (arXiv 2203.16527),
section 3, figure 2.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from hybrid_mm.layers.norm import LayerNorm2d
from hybrid_mm.registry import MODELS

__all__ = ['SimpleFPN']

_EPS = 1e-6
_SCALES = (4, 2, 1, 0.5)


class HalfSize(nn.Module):
    """2 x 2 max pooling; drops the last row or column of an odd size, unless the size is 1."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, max(H // 2, 1), max(W // 2, 1))."""
        return F.max_pool2d(x, tuple(min(2, side) for side in x.shape[2:]), 2)


def _level(scale: float, channels: int, out_channels: int) -> nn.Sequential:
    """Resizing, 1 x 1 convolution and 3 x 3 convolution, each with its norm."""
    layers: list[nn.Module] = []
    if scale == 4:
        layers += [
            nn.ConvTranspose2d(channels, channels // 2, 2, 2),
            LayerNorm2d(channels // 2, eps=_EPS),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 2, channels // 4, 2, 2),
        ]
        channels //= 4
    elif scale == 2:
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 2, 2))
        channels //= 2
    elif scale == 0.5:
        layers.append(HalfSize())
    return nn.Sequential(
        *layers,
        nn.Conv2d(channels, out_channels, 1, bias=False),
        LayerNorm2d(out_channels, eps=_EPS),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        LayerNorm2d(out_channels, eps=_EPS),
    )


@MODELS.register_module()
class SimpleFPN(BaseModule):
    """Neck that computes all levels from the last map of a plain backbone, without a top-down path.

    Args:
        in_channels: Channels C of the map, or of all maps of the backbone, the last of which is
            used.
        out_channels: Channels of every level.
        scales: Size of each level relative to the map: 4, 2, 1 or 0.5.
        num_outs: Number of maps; those after the levels subsample the previous one by 2.
        init_cfg: See MMEngine's ``BaseModule``.

    Raises:
        ValueError: ``in_channels`` is not a multiple of 4, a scale is unknown, or there are fewer
            maps than levels.

    Example:
        >>> import torch
        >>> from hybrid_mm.openmmlab.simple_fpn import SimpleFPN
        >>> maps = SimpleFPN(8, 16)([torch.rand(1, 8, 7, 5)])
        >>> [tuple(m.shape) for m in maps]
        [(1, 16, 28, 20), (1, 16, 14, 10), (1, 16, 7, 5), (1, 16, 3, 2), (1, 16, 2, 1)]
    """

    def __init__(
        self,
        in_channels: int | Sequence[int],
        out_channels: int = 256,
        scales: Sequence[float] = _SCALES,
        num_outs: int = 5,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        channels = in_channels if isinstance(in_channels, int) else in_channels[-1]
        if channels < 4 or channels % 4:
            raise ValueError(f'in_channels must be a multiple of 4, got {in_channels}')
        unknown = [scale for scale in scales if scale not in _SCALES]
        if unknown or not scales:
            raise ValueError(f'scales must be some of {_SCALES}, got {tuple(scales)}')
        if num_outs < len(scales):
            raise ValueError(
                f'num_outs must be at least the number of scales {len(scales)}, got {num_outs}'
            )
        self.num_outs = num_outs
        self.levels = nn.ModuleList(_level(scale, channels, out_channels) for scale in scales)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute ``num_outs`` maps (N, out_channels, H', W') from the maps of a backbone."""
        # mmcv's RoIAlign ignores strides and reads memory as NCHW
        outs = [level(inputs[-1]).contiguous() for level in self.levels]
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], 1, 2))
        return tuple(outs)
