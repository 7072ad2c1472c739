"""PeLK: ConvNeXt-like networks with peripheral convolutions of up to 101x101 and more.

Status: complete by our reading of the paper, of which no official code or weights exist; checked
against a literal evaluation of its equations.

Source: "PeLK: Parameter-efficient Large Kernel ConvNets with Peripheral Convolution" (arXiv
2403.07589), section 3.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from hybrid_mm.backbones.frames.base import run_blocks
from hybrid_mm.backbones.frames.convnext import ConvNeXtFrame
from hybrid_mm.backbones.frames.parallel_kernels import ParallelKernels, merge_kernels
from hybrid_mm.backbones.frames.token_pyramid import TokenStage
from hybrid_mm.layers import DepthwiseConv2d
from hybrid_mm.layers.convolution.peripheral_convolution import PeripheralConv2d, make_pos_embed
from hybrid_mm.registry import MODELS


class PartialPeripheralConv2d(ParallelKernels):
    """Peripheral and small convolution of the first channels; the others pass (eq. 4 to 6).

    Args:
        channels: Channels C.
        convolved: How many of them are convolved.
        kernel_size: Odd size K of the kernel.
        small_kernel: Odd size of the small kernel; there is none unless it is below K.
        norm_cfg: Batch normalisation.
        **settings: Further arguments of
            :class:`~hybrid_mm.layers.convolution.peripheral_convolution.PeripheralConv2d`.
    """

    def __init__(
        self,
        channels: int,
        convolved: int,
        kernel_size: int,
        small_kernel: int,
        norm_cfg: dict,
        **settings,
    ) -> None:
        large = PeripheralConv2d(convolved, kernel_size, share_pos_embed=True, **settings)
        kernels: dict[str, nn.Module] = dict(large=large)
        if small_kernel < kernel_size:
            kernels['small'] = DepthwiseConv2d(convolved, small_kernel, bias=False)
        super().__init__(kernels, norm_cfg)
        self.split = convolved, channels - convolved

    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        """Map (N, C, H, W) to the same shape; ``pos_embed`` is (1 or convolved, K, K)."""
        first, rest = x.split(self.split, 1)
        return torch.cat([super().forward(first, pos_embed), rest], 1)


class PeLKStage(TokenStage):
    """Stage whose blocks share a position embedding."""

    def __init__(
        self,
        down: tuple[str, nn.Module],
        blocks: list[nn.Module],
        norm: nn.Module,
        with_cp: bool,
        pos_embed: nn.Parameter | None,
    ) -> None:
        super().__init__(down, blocks, norm, with_cp)
        self.pos_embed = pos_embed

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to this stage's, (N, H, W, C)."""
        x = getattr(self, self.down)(x)
        return run_blocks(self.blocks, x, self.with_cp, self.pos_embed)


@MODELS.register_module()
class PeLK(ConvNeXtFrame):
    """PeLK.

    Maps of any image size from 32 x 32 up, also smaller than the kernels: a map has
    floor(H / stride) rows.

    Args:
        arch: 'tiny', 'small' or 'base', or a dict with ``depths`` and ``dims``, one entry per
            stage.
        kernel_sizes: Odd sizes of the kernels of the stages: 51, 49, 47 and 13, or 101, 69, 67 and
            13 for PeLK-101.
        center_size: Size of the centre with a weight for each tap: 5, or 7 for PeLK-101.
        grids: Widths of the groups of taps on an axis for every stage; by default the paper's rule.
        small_kernel: Size of the small kernel beside the large one.
        partial_ratio: Part of the channels that are convolved.
        pos_embed: Kernel-wise position embedding: 'bias', 'valid' or 'none', see
            :class:`~hybrid_mm.layers.convolution.peripheral_convolution.PeripheralConv2d`.
        pos_embed_per_channel: Whether every channel has an embedding of its own.
        norm_cfg: Batch normalisation: ``dict(type='BN')`` or ``dict(type='SyncBN')``.
        init_std: Standard deviation of the initial shared weights.
        impl: Algorithm, see :func:`~hybrid_mm.ops.grid_convolution.grid_convolution`.
        width_factor: What the numbers of channels are multiplied by: 1.3 for the sparse networks
            of the paper, 1 for dense ones of as many parameters.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.convnext.ConvNeXtFrame`.

    Raises:
        ValueError: An unknown variant, mode or algorithm, an even kernel, or a grid that does not
            fit the kernel.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import PeLK
        >>> maps = PeLK('tiny').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 124, 24, 32), (1, 249, 12, 16), (1, 499, 6, 8), (1, 998, 3, 4)]
    """

    arch_zoo: ClassVar = {
        'tiny': dict(depths=[3, 3, 9, 3], dims=[96, 192, 384, 768]),
        'small': dict(depths=[3, 3, 27, 3], dims=[96, 192, 384, 768]),
        'base': dict(depths=[3, 3, 27, 3], dims=[128, 256, 512, 1024]),
    }
    arch_aliases: ClassVar = {'t': 'tiny', 's': 'small', 'b': 'base'}

    def __init__(
        self,
        arch: str | dict = 'tiny',
        kernel_sizes: Sequence[int] = (51, 49, 47, 13),
        center_size: int = 5,
        grids: Sequence[Sequence[int]] | None = None,
        small_kernel: int = 5,
        partial_ratio: float = 3 / 8,
        pos_embed: str = 'bias',
        pos_embed_per_channel: bool = False,
        norm_cfg: dict | None = None,
        init_std: float = 0.02,
        impl: str = 'auto',
        width_factor: float = 1.3,
        **kwargs,
    ) -> None:
        self.check_per_stage(arch, kernel_sizes=kernel_sizes, grids=grids)
        if not 0 < partial_ratio <= 1:
            raise ValueError(f'partial_ratio must lie in (0, 1], got {partial_ratio}')
        self._partial_ratio = partial_ratio
        self._per_stage = [
            dict(kernel_size=size, grid=grids[i] if grids else None)
            for i, size in enumerate(kernel_sizes)
        ]
        self._settings = dict(
            small_kernel=small_kernel,
            norm_cfg=norm_cfg or dict(type='BN'),
            center_size=center_size,
            pos_embed=pos_embed,
            init_std=init_std,
            impl=impl,
        )
        self._pos_embed_per_channel = pos_embed_per_channel
        super().__init__(arch, width_factor, **kwargs)

    def _convolved(self, channels: int) -> int:
        return max(1, int(self._partial_ratio * channels))

    def make_mixer(self, stage: int, channels: int) -> nn.Module:
        """Peripheral convolution of a block."""
        return PartialPeripheralConv2d(
            channels, self._convolved(channels), **self._per_stage[stage], **self._settings
        )

    def make_stage(self, stage: int, channels: int, *arguments) -> nn.Module:
        """Stage with its position embedding."""
        embed = None
        if self._settings['pos_embed'] != 'none':
            size = self._per_stage[stage]['kernel_size']
            per_channel = self._pos_embed_per_channel
            embed = make_pos_embed(size, self._convolved(channels) if per_channel else 1)
        return PeLKStage(*arguments, embed)

    def switch_to_deploy(self) -> None:
        """Merge norms, small kernels and position embeddings into the shared weights."""
        for stage in self.stages:
            merge_kernels(stage, stage.pos_embed)
            stage.pos_embed = None
