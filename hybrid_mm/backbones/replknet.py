"""RepLKNet: networks with dense depthwise kernels of up to 31x31.

Status: complete; checked number by number against the official code, in training and merged form.

Source: "Scaling Up Your Kernels to 31x31: Revisiting Large Kernel Design in CNNs" (arXiv
2203.06717), sections 3 and 4.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.backbones.frames.base import BaseBackbone, build_norm, run_blocks
from hybrid_mm.backbones.frames.parallel_kernels import ConvNorm, ParallelKernels, merge_kernels
from hybrid_mm.layers import DepthwiseConv2d, DropPath, drop_path_schedule
from hybrid_mm.registry import MODELS


def conv_norm(
    in_channels: int,
    channels: int,
    norm_cfg: dict,
    kernel_size: int = 1,
    stride: int = 1,
    depthwise: bool = False,
) -> ConvNorm:
    """Convolution without bias and its batch norm."""
    conv = nn.Conv2d(
        in_channels,
        channels,
        kernel_size,
        stride,
        kernel_size // 2,
        groups=channels if depthwise else 1,
        bias=False,
    )
    return ConvNorm(conv, build_norm(norm_cfg, channels))


class RepLKBlock(nn.Module):
    """Norm, 1x1, large depthwise kernel, 1x1 inside a residual connection (figure 4).

    Args:
        channels: Channels C.
        mid_channels: Channels of the large kernel.
        kernel_size: Odd size of the large kernel.
        small_kernel: Odd size of the kernel beside it, or None for none.
        drop_path: Drop-path rate.
        norm_cfg: Batch normalisation.
    """

    def __init__(
        self,
        channels: int,
        mid_channels: int,
        kernel_size: int,
        small_kernel: int | None,
        drop_path: float,
        norm_cfg: dict,
    ) -> None:
        super().__init__()
        self.norm = build_norm(norm_cfg, channels)
        self.proj_in = conv_norm(channels, mid_channels, norm_cfg)
        sizes = dict(large=kernel_size)
        if small_kernel is not None:
            if small_kernel > kernel_size:
                raise ValueError(
                    f'small_kernel={small_kernel} must not be larger than the kernel of '
                    f'{kernel_size} beside it'
                )
            sizes['small'] = small_kernel
        kernels = {n: DepthwiseConv2d(mid_channels, size, bias=False) for n, size in sizes.items()}
        self.mixer = ParallelKernels(kernels, norm_cfg)
        self.proj_out = conv_norm(mid_channels, channels, norm_cfg)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y = F.relu(self.mixer(F.relu(self.proj_in(self.norm(x)))))
        return x + self.drop_path(self.proj_out(y))


class ConvFFN(nn.Module):
    """Norm, 1x1, GELU, 1x1 inside a residual connection.

    Args:
        channels: Channels C.
        hidden_channels: Channels between the 1x1 convolutions.
        drop_path: Drop-path rate.
        norm_cfg: Batch normalisation.
    """

    def __init__(
        self, channels: int, hidden_channels: int, drop_path: float, norm_cfg: dict
    ) -> None:
        super().__init__()
        self.norm = build_norm(norm_cfg, channels)
        self.fc1 = conv_norm(channels, hidden_channels, norm_cfg)
        self.fc2 = conv_norm(hidden_channels, channels, norm_cfg)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return x + self.drop_path(self.fc2(F.gelu(self.fc1(self.norm(x)))))


class RepLKStage(nn.Module):
    """Down-sampling, blocks, and the norm of the returned map only.

    Args:
        downsample: Convolutions with norms, each followed by ReLU.
        blocks: Modules from (N, C, H, W) to the same shape.
        norm: Norm of the returned map.
        with_cp: Recompute the blocks in the backward pass.
    """

    def __init__(
        self, downsample: list[nn.Module], blocks: list[nn.Module], norm: nn.Module, with_cp: bool
    ) -> None:
        super().__init__()
        self.downsample = ReLUs(*downsample)
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Map the previous stage's output to this stage's."""
        return run_blocks(self.blocks, self.downsample(x), self.with_cp)


class ReLUs(nn.Sequential):
    """Modules in turn, each followed by ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W)."""
        for module in self:
            x = F.relu(module(x))
        return x


@MODELS.register_module()
class RepLKNet(BaseBackbone):
    """RepLKNet.

    Maps of any image size from 32 x 32 up, also smaller than the kernels: a map has
    ceil(H / stride) rows.

    Args:
        arch: '31b', '13' (31b with kernels of 13), '31l' or 'xl', or a dict with ``kernel_sizes``,
            ``depths``, ``channels``, one entry per stage, ``small_kernel`` (or None) and
            ``dw_ratio``, the width of the large kernels as a multiple of a stage's channels.
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned.
        ffn_ratio: Width of the feed-forward networks as a multiple of a stage's channels.
        norm_outputs: Batch norms on the returned maps: 'none' (31B and 31L in dense prediction),
            'all' (XL), or 'last' (classifiers).
        drop_path_rate: Drop-path rate of the last pair of blocks; it grows linearly from 0.
        norm_cfg: Batch normalisation: ``dict(type='BN')`` or ``dict(type='SyncBN')``.
        deploy: Build the network as :meth:`switch_to_deploy` leaves it.
        frozen_stages: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        norm_eval: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        with_cp: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
        init_cfg: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.

    Raises:
        ValueError: An unknown variant, an even kernel, or a small kernel larger than its
            neighbour.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import RepLKNet
        >>> maps = RepLKNet('31b').eval()(torch.rand(1, 3, 61, 85))
        >>> [tuple(m.shape) for m in maps]
        [(1, 128, 16, 22), (1, 256, 8, 11), (1, 512, 4, 6), (1, 1024, 2, 3)]
    """

    arch_zoo: ClassVar = {
        name: dict(
            kernel_sizes=kernels,
            depths=[2, 2, 18, 2],
            channels=[width, 2 * width, 4 * width, 8 * width],
            small_kernel=small,
            dw_ratio=ratio,
        )
        for name, kernels, width, small, ratio in (
            ('31b', [31, 29, 27, 13], 128, 5, 1.0),
            ('13', [13, 13, 13, 13], 128, 5, 1.0),
            ('31l', [31, 29, 27, 13], 192, 5, 1.0),
            ('xl', [27, 27, 27, 13], 256, None, 1.5),
        )
    }

    def __init__(
        self,
        arch: str | dict = '31b',
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        ffn_ratio: float = 4.0,
        norm_outputs: str = 'none',
        drop_path_rate: float = 0.0,
        norm_cfg: dict | None = None,
        deploy: bool = False,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_channels, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        if norm_outputs not in ('none', 'all', 'last'):
            raise ValueError(f"norm_outputs must be 'none', 'all' or 'last', got {norm_outputs!r}")
        settings = self.resolve_arch(arch)
        norm_cfg = norm_cfg or dict(type='BN')
        self.stage_channels = settings['channels']
        self.depths = [2 * depth for depth in settings['depths']]  # every block has a feed-forward
        last = len(self.depths) - 1
        returned = {i % (last + 1) for i in self.out_indices if -last - 2 < i <= last}
        normed = {'none': set(), 'all': returned, 'last': {last}}[norm_outputs]
        first = self.stage_channels[0]
        self.stem = ReLUs(
            conv_norm(in_channels, first, norm_cfg, 3, 2),
            conv_norm(first, first, norm_cfg, 3, depthwise=True),
            conv_norm(first, first, norm_cfg),
            conv_norm(first, first, norm_cfg, 3, 2, depthwise=True),
        )
        self.stages = nn.ModuleList()
        rates = drop_path_schedule(drop_path_rate, settings['depths'])
        before = first
        for i, channels in enumerate(self.stage_channels):
            downsample = (
                []
                if i == 0
                else [
                    conv_norm(before, channels, norm_cfg),
                    conv_norm(channels, channels, norm_cfg, 3, 2, depthwise=True),
                ]
            )
            mid, kernel = int(channels * settings['dw_ratio']), settings['kernel_sizes'][i]
            blocks = []
            for rate in rates[i]:
                small = settings['small_kernel']
                blocks += [
                    RepLKBlock(channels, mid, kernel, small, rate, norm_cfg),
                    ConvFFN(channels, int(ffn_ratio * channels), rate, norm_cfg),
                ]
            norm = build_norm(norm_cfg, channels) if i in normed else nn.Identity()
            self.stages.append(RepLKStage(downsample, blocks, norm, with_cp))
            before = channels
        if deploy:
            self.switch_to_deploy()
        self.finish()

    def returned_map(self, stage: int, x: Tensor) -> Tensor:
        """The output of a stage behind its norm, if it has one."""
        return self.stages[stage].norm(x)

    def switch_to_deploy(self) -> None:
        """Merge norms and small kernels into the large kernels, for inference."""
        merge_kernels(self)

    def load_strictly(self, state: dict[str, Tensor], origin: str) -> None:
        """Load a state dict in our layout; norms of maps that the file lacks stay as they are.

        Raises:
            ValueError: Keys or shapes differ; the message names the first of each.
        """
        norms = tuple(f'stages.{stage}.norm.' for stage in range(len(self.stages)))
        own = {key: value for key, value in self.state_dict().items() if key.startswith(norms)}
        rest = {key: value for key, value in state.items() if not key.startswith(norms)}
        given = {key: value for key, value in state.items() if key in own}
        super().load_strictly({**rest, **own, **given}, origin)
