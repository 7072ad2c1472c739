"""RepLKNet: networks with dense depthwise kernels of up to 31x31.

Status: complete; checked number by number against the official code, in training and merged form.

Source: "Scaling Up Your Kernels to 31x31: Revisiting Large Kernel Design in CNNs" (arXiv
2203.06717), sections 3 and 4.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Arch, Ratio, Size, StageKernels, StageSizes
from hybrid_mm.backbones.frames.base import BaseBackbone, SharedArguments
from hybrid_mm.backbones.frames.blocks import BATCH_NORM, NormCfg, Stage, build_norm
from hybrid_mm.backbones.frames.parallel_kernels import ConvNorm, ParallelKernels, merge_kernels
from hybrid_mm.convert.core import StateDict
from hybrid_mm.layers import DepthwiseConv2d, DropPath, drop_path_schedule
from hybrid_mm.ops.arguments import odd, one_of, positive
from hybrid_mm.registry import MODELS

_BLOCKS_PER_LAYER = 4  # of the third stage, in layer-wise decay of the learning rate


def plain_conv_norm(
    in_channels: int,
    channels: int,
    norm_cfg: NormCfg,
    kernel_size: int = 1,
    stride: int = 1,
    depthwise: bool = False,
) -> ConvNorm:
    """Convolution without bias, with torch's initial values, and its batch norm."""
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
        small_kernel: Odd size of the kernel parallel to it, or None.
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
        norm_cfg: NormCfg,
    ) -> None:
        super().__init__()
        self.norm = build_norm(norm_cfg, channels)
        self.proj_in = plain_conv_norm(channels, mid_channels, norm_cfg)
        sizes = dict(large=kernel_size)
        if small_kernel is not None:
            if small_kernel > kernel_size:
                raise ValueError(
                    f'small_kernel={small_kernel} must not be larger than the large '
                    f'kernel of {kernel_size}'
                )
            sizes['small'] = small_kernel
        kernels = {n: DepthwiseConv2d(mid_channels, size, bias=False) for n, size in sizes.items()}
        self.mixer = ParallelKernels(kernels, norm_cfg)
        self.proj_out = plain_conv_norm(mid_channels, channels, norm_cfg)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        y = F.relu(self.mixer(F.relu(self.proj_in(self.norm(x)))))
        return x + self.drop_path(self.proj_out(y))


class PointwiseConvFFN(nn.Module):
    """Norm, 1x1, GELU, 1x1 inside a residual connection.

    Args:
        channels: Channels C.
        hidden_channels: Channels between the 1x1 convolutions.
        drop_path: Drop-path rate.
        norm_cfg: Batch normalisation.
    """

    def __init__(
        self, channels: int, hidden_channels: int, drop_path: float, norm_cfg: NormCfg
    ) -> None:
        super().__init__()
        self.norm = build_norm(norm_cfg, channels)
        self.fc1 = plain_conv_norm(channels, hidden_channels, norm_cfg)
        self.fc2 = plain_conv_norm(hidden_channels, channels, norm_cfg)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return x + self.drop_path(self.fc2(F.gelu(self.fc1(self.norm(x)))))


class ReLUs(nn.Sequential):
    """Modules in turn, each followed by ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W)."""
        for module in self:
            x = F.relu(module(x))
        return x


@dataclass(frozen=True, kw_only=True)
class RepLKArch(Arch):
    """Variant of a RepLKNet."""

    other_names: ClassVar = {'large_kernel_sizes': 'kernel_sizes', 'layers': 'depths'}

    kernel_sizes: StageKernels  # sizes of the large kernels
    depths: StageSizes  # pairs of a large kernel and a feed-forward network
    channels: StageSizes  # channels of the maps
    small_kernel: Size | None  # size of the kernel parallel to the large one, or None
    dw_ratio: Ratio  # width of the large kernels to the channels

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check that the small kernel has a centre as well."""
        super().check(owner, name)
        odd(owner, **{f'{name}.small_kernel': self.small_kernel})


def _arch(
    kernel_sizes: tuple[int, ...],
    channels: int | tuple[int, ...],
    small_kernel: int | None = 5,
    dw_ratio: float = 1.0,
) -> RepLKArch:
    if isinstance(channels, int):
        channels = (channels, 2 * channels, 4 * channels, 8 * channels)
    return RepLKArch(
        kernel_sizes=kernel_sizes,
        depths=(2, 2, 18, 2),
        channels=channels,
        small_kernel=small_kernel,
        dw_ratio=dw_ratio,
    )


@MODELS.register_module()
class RepLKNet(BaseBackbone):
    """RepLKNet.

    Maps of any image size from 32 x 32 up, also smaller than the kernels: a map has
    ceil(H / stride) rows.

    Args:
        arch: '31b', '13' (31b with kernels of 13), '31l' or 'xl', '31t' (31b with the channels of
            VAN-B2, which the LSKA paper compares with), or a dict with the fields of
            :class:`RepLKArch`.
        ffn_ratio: Width of the feed-forward networks as a multiple of a stage's channels.
        norm_outputs: Batch norms on the returned maps: 'none' (31B and 31L in dense prediction),
            'all' (XL), or 'last' (classifiers).
        norm_cfg: Batch normalisation: ``dict(type='BN')``, the default, or ``dict(type='SyncBN')``.
        deploy: Build the network as :meth:`switch_to_deploy` leaves it.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`; a large kernel and the
            feed-forward network after it have one drop-path rate.

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

    traces_any_size = True
    arch_class = RepLKArch
    arch_zoo: ClassVar = {
        '31b': _arch((31, 29, 27, 13), 128),
        '13': _arch((13, 13, 13, 13), 128),
        '31l': _arch((31, 29, 27, 13), 192),
        '31t': _arch((31, 29, 27, 13), (64, 128, 320, 512)),
        'xl': _arch((27, 27, 27, 13), 256, small_kernel=None, dw_ratio=1.5),
    }
    other_names: ClassVar = {
        'small_kernel_merged': 'deploy',
        'norm_intermediate_features': lambda on: {'norm_outputs': 'all' if on else 'none'},
    }

    arch: RepLKArch

    def __init__(
        self,
        arch: str | Mapping | RepLKArch = '31b',
        *,
        ffn_ratio: float = 4.0,
        norm_outputs: str = 'none',
        norm_cfg: NormCfg | None = None,
        deploy: bool = False,
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        one_of(self, ('none', 'all', 'last'), norm_outputs=norm_outputs)
        positive(self, ffn_ratio=ffn_ratio)
        self.stage_channels = list(self.arch.channels)
        self.depths = [2 * depth for depth in self.arch.depths]  # every block has a feed-forward
        self.ffn_ratio, self.norm_outputs, self.deploy = ffn_ratio, norm_outputs, deploy
        self.norm_cfg = dict(norm_cfg or BATCH_NORM)
        self.build()

    def make_stem(self) -> nn.Module:
        """Dense, depthwise, 1x1 and depthwise convolution; the first and last have stride 2."""
        width, cfg = self.stage_channels[0], self.norm_cfg
        return ReLUs(
            plain_conv_norm(self.in_channels, width, cfg, 3, 2),
            plain_conv_norm(width, width, cfg, 3, depthwise=True),
            plain_conv_norm(width, width, cfg),
            plain_conv_norm(width, width, cfg, 3, 2, depthwise=True),
        )

    def make_stage(self, stage: int) -> nn.Module:
        """Down-sampling unless it is the first, pairs of blocks, norm of the returned map."""
        arch, cfg, channels = self.arch, self.norm_cfg, self.stage_channels[stage]
        downsample = ReLUs()
        if stage:
            downsample = ReLUs(
                plain_conv_norm(self.stage_channels[stage - 1], channels, cfg),
                plain_conv_norm(channels, channels, cfg, 3, 2, depthwise=True),
            )
        mid, kernel = int(channels * arch.dw_ratio), arch.kernel_sizes[stage]
        hidden = int(self.ffn_ratio * channels)
        positive(self, **{'arch.dw_ratio * channels': mid, 'ffn_ratio * channels': hidden})
        rates = drop_path_schedule(self.drop_path_rate, self.arch.depths)
        blocks: list[nn.Module] = []
        for rate in rates[stage]:
            blocks += [
                RepLKBlock(channels, mid, kernel, arch.small_kernel, rate, cfg),
                PointwiseConvFFN(channels, hidden, rate, cfg),
            ]
        last = stage == len(self.depths) - 1
        normed = dict(none=False, all=self.returns(stage), last=last)[self.norm_outputs]
        norm = build_norm(cfg, channels) if normed else nn.Identity()
        return Stage(blocks, self.with_cp, {'downsample': downsample}, norm=norm)

    def reset_parameters(self) -> None:
        """Merge kernels if asked for; weights keep the values of their layers."""
        if self.deploy:
            self.switch_to_deploy()

    def returned_map(self, stage: int, state: Tensor) -> Tensor:
        """The map of a stage after its norm, if it has one."""
        return self.stages[stage].norm(state)

    def switch_to_deploy(self) -> None:
        """Merge norms and small kernels into the large kernels, for inference."""
        merge_kernels(self)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter for layer-wise learning-rate decay, as the authors count.

        With L = 12 for the variants of the paper: 0 the stem; 1 and 2 the first two stages; 3 + j
        // 4 block j of the third, where large kernels and feed-forward networks both count; L the
        fourth; a down-sampling belongs to the last layer of the stage before it. L + 1 are the
        norms of the returned maps and everything after the backbone.

        Args:
            param_name: Full name of the parameter.
            prefix: Name of this backbone in the model, with the final dot.

        Returns:
            The layer id, and the number of layers L + 2.
        """
        last = 3 + math.ceil(self.depths[2] / _BLOCKS_PER_LAYER)
        pattern = re.escape(prefix) + r'(?:(stem)|stages\.(\d+)\.(?:(downsample)|blocks\.(\d+)))'
        found = re.match(pattern, param_name)
        if found is None:
            return last + 1, last + 2
        stem, stage, downsample, block = found.groups()
        if stem:
            return 0, last + 2
        third = 3 + int(block or 0) // _BLOCKS_PER_LAYER
        layers = (0, 1, 2, last - 1) if downsample else (1, 2, third, last)
        return layers[int(stage)], last + 2

    def may_lack_norm(self, stage: int) -> bool:
        """Any."""
        return True

    def initial_values(self, state: StateDict) -> StateDict:
        """Norms of the returned maps, where the file has none."""
        return self.norms_of_maps()
