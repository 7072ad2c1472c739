"""SLaK: ConvNeXt-like networks with kernels of 51x51 and more as two stripes.

Status: complete; checked number by number against the official code.

Source: "More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using Sparsity" (arXiv
2207.03620), section 3. A hook of the training makes them sparse.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from hybrid_mm.backbones.frames.blocks import BATCH_NORM, NormCfg
from hybrid_mm.backbones.frames.convnext import ConvNeXtArch, ConvNeXtFrame
from hybrid_mm.backbones.frames.parallel_kernels import ParallelKernels
from hybrid_mm.layers import DepthwiseConv2d
from hybrid_mm.ops.arguments import odd, per_stage
from hybrid_mm.registry import MODELS


def slak_kernels(
    channels: int,
    kernel_size: int,
    small_kernel: int | None = 5,
    decomposed: bool = True,
    norm_cfg: NormCfg | None = None,
) -> ParallelKernels:
    """The convolutions of a block: two stripes, or one large kernel, and a small kernel.

    Args:
        channels: Channels C.
        kernel_size: Odd size K of the large kernel.
        small_kernel: Odd size N: width of the stripes K x N and N x K, and size of the small
            kernel, which there is only if N < K. Without stripes None means no small kernel.
        decomposed: Stripes; else one K x K kernel.
        norm_cfg: Batch normalisation after each, or None for none.

    Raises:
        ValueError: An even size, or stripes without a width.
    """
    if decomposed:
        if small_kernel is None:
            raise ValueError(
                'small_kernel=None leaves the stripes without a width: decomposed=False?'
            )
        sizes = dict(tall=(kernel_size, small_kernel), wide=(small_kernel, kernel_size))
    else:
        sizes = dict(large=(kernel_size, kernel_size))
    if small_kernel is not None and small_kernel < kernel_size:
        sizes['small'] = (small_kernel, small_kernel)
    kernels = {name: DepthwiseConv2d(channels, size, bias=False) for name, size in sizes.items()}
    return ParallelKernels(kernels, norm_cfg)


def _arch(depth: int, width: int) -> ConvNeXtArch:
    dims = (width, 2 * width, 4 * width, 8 * width)
    return ConvNeXtArch(depths=(3, 3, depth, 3), dims=dims)


@MODELS.register_module()
class SLaK(ConvNeXtFrame):
    """SLaK.

    Maps of any image size from 32 x 32 up, also smaller than the kernels: a map has
    floor(H / stride) rows.

    Args:
        arch: 'tiny', 'small', 'base' or 'large', or a dict with the fields of
            :class:`~hybrid_mm.backbones.frames.convnext.ConvNeXtArch`.
        kernel_sizes: Odd sizes of the kernels of the stages.
        small_kernel: Width of the stripes and size of the small kernel.
        decomposed: Two stripes for every kernel; else dense kernels.
        norm_cfg: Batch normalisation: ``dict(type='BN')``, the default, or ``dict(type='SyncBN')``;
            None for the form without it.
        width_factor: What the numbers of channels are multiplied by: 1.3 for the sparse networks
            of the paper.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.convnext.ConvNeXtFrame`.

    Raises:
        ValueError: An unknown variant, or an even kernel.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import SLaK
        >>> maps = SLaK('tiny').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 124, 24, 32), (1, 249, 12, 16), (1, 499, 6, 8), (1, 998, 3, 4)]
    """

    traces_any_size = True
    arch_zoo: ClassVar = {
        'tiny': _arch(9, 96),
        'small': _arch(27, 96),
        'base': _arch(27, 128),
        'large': _arch(27, 192),
    }
    arch_aliases: ClassVar = {'t': 'tiny', 's': 'small', 'b': 'base', 'l': 'large'}

    def __init__(
        self,
        arch: str | Mapping | ConvNeXtArch = 'tiny',
        kernel_sizes: Sequence[int] = (51, 49, 47, 13),
        small_kernel: int | None = 5,
        decomposed: bool = True,
        norm_cfg: NormCfg | None = BATCH_NORM,
        width_factor: float = 1.3,
        **kwargs: Any,
    ) -> None:
        super().__init__(arch, width_factor, **kwargs)
        odd(self, kernel_sizes=kernel_sizes, small_kernel=small_kernel)
        self.kernel_sizes = per_stage(self, len(self.depths), kernel_sizes=kernel_sizes)
        self.small_kernel, self.decomposed = small_kernel, decomposed
        self.norm_cfg = None if norm_cfg is None else dict(norm_cfg)
        self.build()

    def make_mixer(self, stage: int, channels: int) -> nn.Module:
        """Large kernels of a block."""
        return slak_kernels(
            channels,
            self.kernel_sizes[stage],
            self.small_kernel,
            self.decomposed,
            self.norm_cfg,
        )
