"""Core of the networks that change the mixing of ConvNeXt: SLaK, PeLK and HorNet.

Source: "A ConvNet for the 2020s" (arXiv 2201.03545), section 2, as the official code of SLaK
(arXiv 2207.03620) uses it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.arch import Arch, StageSizes
from hybrid_mm.backbones.frames.base import SharedArguments
from hybrid_mm.backbones.frames.blocks import Stage
from hybrid_mm.backbones.frames.parallel_kernels import merge_kernels
from hybrid_mm.backbones.frames.token_pyramid import MLP, TokenPyramid, init_linear
from hybrid_mm.layers import DropPath
from hybrid_mm.ops.arguments import not_negative, positive

__all__ = [
    'ConvNeXtArch',
    'ConvNeXtArguments',
    'ConvNeXtBlock',
    'ConvNeXtFrame',
    'CroppedPatchEmbed',
]

_EPS = 1e-6


class CroppedPatchEmbed(nn.Module):
    """Convolution of patches without overlap, with a layer norm before or after it.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the result.
        size: Height and width of a patch; an incomplete one at the border is cropped.
        norm_first: Whether the norm comes first and the input is a map (N, H, W, C), as between
            stages; else the input is an image (N, C, H, W).
    """

    def __init__(self, in_channels: int, channels: int, size: int, norm_first: bool) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.norm = nn.LayerNorm(in_channels if norm_first else channels, eps=_EPS)
        self.conv = nn.Conv2d(in_channels, channels, size, size)

    def forward(self, x: Tensor) -> Tensor:
        """Map the input to (N, H // size, W // size, channels)."""
        if self.norm_first:
            return self.conv(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.norm(self.conv(x).permute(0, 2, 3, 1))


class ConvNeXtBlock(nn.Module):
    """Spatial mixing, layer norm, MLP and layer scale inside a residual connection.

    Args:
        mixer: Module from (N, C, H, W) to the same shape.
        channels: Channels C.
        drop_path: Drop-path rate.
        layer_scale: Initial value of the layer scale, or 0 for none.
    """

    def __init__(
        self, mixer: nn.Module, channels: int, drop_path: float, layer_scale: float
    ) -> None:
        super().__init__()
        self.mixer = mixer
        self.norm = nn.LayerNorm(channels, eps=_EPS)
        self.mlp = MLP(channels, 4 * channels)
        self.gamma = None
        if layer_scale > 0:
            self.gamma = nn.Parameter(torch.full((channels,), float(layer_scale)))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, *arguments: Tensor | None) -> Tensor:
        """Map (N, H, W, C) to the same shape; the mixer gets further arguments."""
        mixed = self.mixer(x.permute(0, 3, 1, 2), *arguments).permute(0, 2, 3, 1)
        branch = self.mlp(self.norm(mixed))
        return x + self.drop_path(branch if self.gamma is None else self.gamma * branch)


@dataclass(frozen=True, kw_only=True)
class ConvNeXtArch(Arch):
    """Variant of a ConvNeXt."""

    depths: StageSizes  # number of blocks
    dims: StageSizes  # channels, before they are multiplied by ``width_factor``


class ConvNeXtArguments(SharedArguments, total=False):
    """Arguments that all of these networks take, by keyword; see :class:`ConvNeXtFrame`."""

    width_factor: float
    layer_scale: float
    pooled: bool
    deploy: bool


class ConvNeXtFrame(TokenPyramid):
    """Stem, stages and norms around blocks whose mixing a subclass makes.

    A map has floor(H / stride) rows. Layer-wise decay takes ``blocks_per_layer`` blocks of the
    third stage for one layer.

    Args:
        arch: Name of a variant, or a dict with the fields of its ``arch_class``.
        width_factor: What the numbers of channels are multiplied by, rounded down.
        layer_scale: Initial value of the layer scales, or 0 for none.
        pooled: Average the last map before its norm and return it as (N, C, 1, 1), as the
            classifiers do.
        deploy: Build the network as :meth:`switch_to_deploy` leaves it.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.base.BaseBackbone`.
    """

    arch_class: ClassVar[type[ConvNeXtArch]] = ConvNeXtArch
    other_names: ClassVar = {
        'gap_before_final_norm': 'pooled',
        'layer_scale_init_value': 'layer_scale',
    }
    blocks_per_layer = 3
    norm_eps = _EPS
    arch: ConvNeXtArch

    def __init__(
        self,
        arch: str | Mapping | ConvNeXtArch,
        width_factor: float = 1.0,
        layer_scale: float = 1e-6,
        pooled: bool = False,
        deploy: bool = False,
        **kwargs: Unpack[SharedArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        positive(self, width_factor=width_factor)
        not_negative(self, layer_scale=layer_scale)
        self.depths = list(self.arch.depths)
        self.stage_channels = [int(width * width_factor) for width in self.arch.dims]
        positive(self, **{'width_factor * arch.dims': self.stage_channels})
        self.layer_scale, self.pooled, self.deploy = layer_scale, pooled, deploy

    def make_stage(self, stage: int) -> nn.Module:
        """Patch embedding with a norm, then blocks."""
        channels = self.stage_channels[stage]
        if stage:
            before = self.stage_channels[stage - 1]
            embed = {'downsample': CroppedPatchEmbed(before, channels, 2, norm_first=True)}
        else:
            embed = {'embed': CroppedPatchEmbed(self.in_channels, channels, 4, norm_first=False)}
        blocks = [self.make_block(stage, channels, rate) for rate in self.drop_path_rates[stage]]
        norm = self.make_norm(stage, channels)
        return self.new_stage(stage, channels, blocks, self.with_cp, embed, norm=norm)

    def new_stage(self, stage: int, channels: int, *args: Any, **kwargs: Any) -> Stage:
        """Make a stage with the arguments of :class:`~hybrid_mm.backbones.frames.blocks.Stage`."""
        return Stage(*args, **kwargs)

    def make_block(self, stage: int, channels: int, drop_path: float) -> nn.Module:
        """Block of a stage, (N, H, W, C) to the same shape."""
        mixer = self.make_mixer(stage, channels)
        return ConvNeXtBlock(mixer, channels, drop_path, self.layer_scale)

    def make_mixer(self, stage: int, channels: int) -> nn.Module:
        """Module that mixes pixels in a block; what a subclass has to define.

        Args:
            stage: Index of the stage, from 0.
            channels: Channels C of its map.

        Returns:
            Module that maps (N, C, H, W) to the same shape.
        """
        raise NotImplementedError(f'{type(self).__name__} needs the method make_mixer')

    def reset_parameters(self) -> None:
        """Draw weights from N(0, 0.02), cut at 2; biases are 0. Then merge kernels if asked for."""
        init_linear(self, convolutions=True)
        if self.deploy:
            self.switch_to_deploy()

    def returned_map(self, stage: int, state: Tensor) -> Tensor:
        """The map of a stage as it is returned."""
        if self.pooled and stage == len(self.depths) - 1:
            state = state.mean((1, 2), keepdim=True)
        return super().returned_map(stage, state)

    def switch_to_deploy(self) -> None:
        """Merge norms and small kernels into the large ones, for inference."""
        merge_kernels(self)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter for layer-wise learning-rate decay, as ConvNeXt counts.

        With L = 6, or 12 if the third stage has more than 9 blocks: 0 the stem; 1 the first stage;
        2 the second with its down-sampling; 3 the down-sampling before the third, whose block j is
        layer 3 + j // 3 (HorNet: j // 2), at most L - 1; L the fourth with its down-sampling; L + 1
        the norms of the returned maps and everything after the backbone.

        Args:
            param_name: Full name of the parameter.
            prefix: Name of this backbone in the model, with the final dot.

        Returns:
            The layer id, and the number of layers L + 2.
        """
        last, stage, part, block = self._place(param_name, prefix)
        if stage is None:
            return last + 1, last + 2
        third = min(3 + block // self.blocks_per_layer, last - 1)
        return (0 if part == 'embed' else 1, 2, third, last)[stage], last + 2

    def get_stage_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter where the learning rate decays by stages, as ConvNeXt counts.

        0 the stem and all down-samplings, s + 1 the rest of stage s (from 0), and the last layer,
        L + 1 (see :meth:`get_layer_depth`), everything else.
        """
        last, stage, part, _ = self._place(param_name, prefix)
        if stage is None:
            return last + 1, last + 2
        return (0 if part in ('embed', 'downsample') else stage + 1), last + 2

    def _place(self, param_name: str, prefix: str) -> tuple[int, int | None, str, int]:
        """L, and of a parameter within a stage but its norm: stage, part and block."""
        last = 12 if self.depths[2] > 9 else 6
        found = re.match(
            re.escape(prefix) + r'stages\.(\d+)\.(?!norm\.)(\w+)(?:\.(\d+))?', param_name
        )
        if found is None:
            return last, None, '', 0
        return last, int(found[1]), found[2], int(found[3] or 0)
