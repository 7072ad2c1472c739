"""PeLK: ConvNeXt-like networks with peripheral convolutions of up to 101x101 and more.

Status: complete by our reading of the paper, of which no official code or weights exist; checked
against a literal evaluation of its equations.

Source: "PeLK: Parameter-efficient Large Kernel ConvNets with Peripheral Convolution" (arXiv
2403.07589), section 3.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hybrid_mm.backbones.frames.blocks import BATCH_NORM, NormCfg, Stage, run_blocks
from hybrid_mm.backbones.frames.convnext import ConvNeXtArch, ConvNeXtFrame
from hybrid_mm.backbones.frames.parallel_kernels import ParallelKernels, merge_kernels
from hybrid_mm.layers import DepthwiseConv2d
from hybrid_mm.layers.convolution.peripheral_convolution import PeripheralConv2d, make_pos_embed
from hybrid_mm.ops.arguments import odd, per_stage, positive
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
        norm_cfg: NormCfg,
        **settings: Any,
    ) -> None:
        large = PeripheralConv2d(convolved, kernel_size, share_pos_embed=True, **settings)
        kernels: dict[str, nn.Module] = dict(large=large)
        if small_kernel < kernel_size:
            kernels['small'] = DepthwiseConv2d(convolved, small_kernel, bias=False)
        super().__init__(kernels, norm_cfg)
        self.split = convolved, channels - convolved

    def forward(self, x: Tensor, *arguments: Tensor | None) -> Tensor:
        """Map (N, C, H, W) to the same shape; one argument is (1 or convolved, K, K)."""
        first, rest = x.split(self.split, 1)
        return torch.cat([super().forward(first, *arguments), rest], 1)


class PeLKStage(Stage):
    """Stage whose blocks share a position embedding.

    Args:
        pos_embed: The embedding, or None for none.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.blocks.Stage`.
    """

    def __init__(self, *args: Any, pos_embed: nn.Parameter | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pos_embed = pos_embed

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to this stage's, (N, H, W, C)."""
        return run_blocks(self.blocks, self.enter(x), self.with_cp, self.pos_embed)


def _arch(depth: int, width: int) -> ConvNeXtArch:
    dims = (width, 2 * width, 4 * width, 8 * width)
    return ConvNeXtArch(depths=(3, 3, depth, 3), dims=dims)


@MODELS.register_module()
class PeLK(ConvNeXtFrame):
    """PeLK.

    Maps of any image size from 32 x 32 up, also smaller than the kernels: a map has
    floor(H / stride) rows.

    Args:
        arch: 'tiny', 'small' or 'base', or a dict with the fields of
            :class:`~hybrid_mm.backbones.frames.convnext.ConvNeXtArch`.
        kernel_sizes: Odd sizes of the kernels of the stages: 51, 49, 47 and 13, or 101, 69, 67 and
            13 for PeLK-101.
        center_size: Size of the centre with a weight for each tap: 5, or 7 for PeLK-101.
        grids: For every stage the widths, in taps, of the groups that share a weight on an axis,
            from one end of the kernel to the other: symmetric, and adding up to the kernel's size;
            (4, 2, 1, 1, 1, 2, 4) is a grid for a kernel of 15. None, for a stage or all of them,
            takes :func:`~hybrid_mm.layers.sharing_grid` of the kernel and ``center_size``.
        small_kernel: Size of the small kernel parallel to the large one.
        partial_ratio: Part of the channels that are convolved.
        pos_embed: Kernel-wise position embedding: 'bias', 'valid' or 'none', see
            :class:`~hybrid_mm.layers.convolution.peripheral_convolution.PeripheralConv2d`.
        pos_embed_per_channel: Whether every channel has an embedding of its own.
        norm_cfg: Batch normalisation: ``dict(type='BN')``, the default, or ``dict(type='SyncBN')``.
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
        'tiny': _arch(9, 96),
        'small': _arch(27, 96),
        'base': _arch(27, 128),
    }
    arch_aliases: ClassVar = {'t': 'tiny', 's': 'small', 'b': 'base'}

    def __init__(
        self,
        arch: str | Mapping | ConvNeXtArch = 'tiny',
        kernel_sizes: Sequence[int] = (51, 49, 47, 13),
        center_size: int = 5,
        grids: Sequence[Sequence[int] | None] | None = None,
        small_kernel: int = 5,
        partial_ratio: float = 3 / 8,
        pos_embed: str = 'bias',
        pos_embed_per_channel: bool = False,
        norm_cfg: NormCfg | None = None,
        init_std: float = 0.02,
        impl: str = 'auto',
        width_factor: float = 1.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(arch, width_factor, **kwargs)
        stages = len(self.depths)
        if not 0 < partial_ratio <= 1:
            raise ValueError(f'PeLK: partial_ratio must lie in (0, 1], got {partial_ratio}')
        odd(self, kernel_sizes=kernel_sizes, center_size=center_size, small_kernel=small_kernel)
        positive(self, grids=grids, init_std=init_std)
        self.kernel_sizes = per_stage(self, stages, kernel_sizes=kernel_sizes)
        self.grids = per_stage(self, stages, grids=grids)
        for stage, (size, grid) in enumerate(zip(self.kernel_sizes, self.grids, strict=True)):
            if grid is not None and (sum(grid) != size or list(grid) != list(grid)[::-1]):
                raise ValueError(
                    f'PeLK: grids[{stage}] must be symmetric and add up to {size}, the kernel size '
                    f'of the stage, got {list(grid)} (sum {sum(grid)})'
                )
        self.partial_ratio = partial_ratio
        self.pos_embed, self.pos_embed_per_channel = pos_embed, pos_embed_per_channel
        self.operator: dict[str, Any] = dict(
            small_kernel=small_kernel,
            norm_cfg=dict(norm_cfg or BATCH_NORM),
            center_size=center_size,
            pos_embed=pos_embed,
            init_std=init_std,
            impl=impl,
        )
        self.build()

    def _convolved(self, channels: int) -> int:
        return max(1, int(self.partial_ratio * channels))

    def make_mixer(self, stage: int, channels: int) -> nn.Module:
        """Peripheral convolution of a block."""
        return PartialPeripheralConv2d(
            channels,
            self._convolved(channels),
            self.kernel_sizes[stage],
            grid=self.grids[stage],
            **self.operator,
        )

    def new_stage(self, stage: int, channels: int, *args: Any, **kwargs: Any) -> Stage:
        """Stage with its position embedding."""
        embed = None
        if self.pos_embed != 'none':
            per_channel = self._convolved(channels) if self.pos_embed_per_channel else 1
            embed = make_pos_embed(self.kernel_sizes[stage], per_channel)
        return PeLKStage(*args, pos_embed=embed, **kwargs)

    def switch_to_deploy(self) -> None:
        """Merge norms, small kernels and position embeddings into the shared weights."""
        for stage in self.stages:
            merge_kernels(stage, stage.pos_embed)
            stage.pos_embed = None
