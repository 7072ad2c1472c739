"""Core of the networks that put a large kernel into ConvNeXt: SLaK and PeLK.

Source: "A ConvNet for the 2020s" (arXiv 2201.03545), section 2, as the official code of SLaK
(arXiv 2207.03620) uses it.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybrid_mm.backbones.base import build_norm
from hybrid_mm.backbones.token_pyramid import MLP, TokenPyramid, TokenStage
from hybrid_mm.layers import DropPath, drop_path_schedule
from hybrid_mm.layers.peripheral_convolution import PeripheralConv2d

_EPS = 1e-6


class PatchEmbed(nn.Module):
    """Convolution of patches without overlap, with a layer norm before or behind it.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the result.
        size: Height and width of a patch; what is left at the border is cut away.
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


class ConvNorm(nn.Module):
    """Convolution with a batch norm behind it, if any."""

    def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm

    def forward(self, x: Tensor, *arguments: Tensor | None) -> Tensor:
        """Convolve (N, C, H, W); the convolution gets further arguments."""
        return self.norm(self.conv(x, *arguments))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale (C, 1, 1, 1) and bias (C) of the norm in eval mode."""
        norm, channels = self.norm, len(self.conv.weight)
        if isinstance(norm, nn.Identity):
            weight = self.conv.weight
            return weight.new_ones(channels, 1, 1, 1), weight.new_zeros(channels)
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        return scale[:, None, None, None], norm.bias - norm.running_mean * scale


class ParallelKernels(nn.Module):
    """Depthwise convolutions side by side, each with a norm: re-parameterised large kernels.

    Source: "Scaling Up Your Kernels to 31x31" (arXiv 2203.06717), section 3.2; SLaK, section 3.

    Args:
        kernels: Convolutions without bias by name, the largest first, ``DepthwiseConv2d`` or
            ``PeripheralConv2d``. One named ``small`` is merged into the first at deployment.
        norm_cfg: ``dict(type='BN')``, ``dict(type='SyncBN')``, or None for no norms.
    """

    def __init__(self, kernels: dict[str, nn.Module], norm_cfg: dict | None) -> None:
        super().__init__()
        self.names = list(kernels)
        for name, conv in kernels.items():
            norm = build_norm(norm_cfg, len(conv.weight)) if norm_cfg else nn.Identity()
            self.add_module(name, ConvNorm(conv, norm))

    def forward(self, x: Tensor, *arguments: Tensor | None) -> Tensor:
        """Map (N, C, H, W) to the same shape; the first convolution gets further arguments."""
        first, *others = self.names
        y = getattr(self, first)(x, *arguments)
        for name in others:
            y = y + getattr(self, name)(x)
        return y

    @torch.no_grad()
    def switch_to_deploy(self, pos_embed: Tensor | None = None) -> None:
        """Merge the norms into the kernels and the small kernel into the first, for inference.

        Args:
            pos_embed: The position embedding that comes with every call, if one does.

        Raises:
            ValueError: The small kernel does not fit into the centre of a sharing grid.
        """
        first = getattr(self, self.names[0])
        if first.conv.bias is not None:
            return
        branches = {name: getattr(self, name) for name in self.names}
        affine = {name: branch.affine() for name, branch in branches.items()}
        if 'small' in branches and isinstance(first.conv, PeripheralConv2d):
            first.conv.check_center(branches['small'].conv.kernel_size[0])
        for name, branch in branches.items():
            branch.conv.weight.mul_(affine[name][0])
        bias = sum(bias for _, bias in affine.values())
        if isinstance(first.conv, PeripheralConv2d):
            bias = bias + first.conv.fold_pos_embed(pos_embed)
        if 'small' in branches:
            add_to_center(first.conv.weight, branches['small'].conv.weight)
            del self.small
            self.names.remove('small')
        for name in self.names:
            branches[name].norm = nn.Identity()
        first.conv.bias = nn.Parameter(bias)


def add_to_center(weight: Tensor, small: Tensor) -> None:
    """Add a small kernel to the centre of a larger one, in place; both (C, 1, H, W)."""
    top, left = ((a - b) // 2 for a, b in zip(weight.shape[2:], small.shape[2:], strict=True))
    weight[..., top : top + small.shape[2], left : left + small.shape[3]] += small


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


class ConvNeXtFrame(TokenPyramid):
    """Stem, stages and norms around blocks whose mixing a subclass makes.

    A map has floor(H / stride) rows. ``arch_zoo`` has ``depths`` and ``dims``.

    Args:
        arch: Name of a variant or a dict.
        width_factor: What the numbers of channels are multiplied by, rounded down.
        in_channels: Channels of the input image.
        out_indices: Stages whose maps are returned.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0.
        layer_scale: Initial value of the layer scales, or 0 for none.
        pooled: Average the last map before its norm and return it as (N, C, 1, 1), as the
            classifiers do.
        deploy: Build the network as :meth:`switch_to_deploy` leaves it.
        frozen_stages: See :class:`~hybrid_mm.backbones.base.Pyramid`.
        norm_eval: See :class:`~hybrid_mm.backbones.base.Pyramid`.
        with_cp: See :class:`~hybrid_mm.backbones.base.Pyramid`.
        init_cfg: See :class:`~hybrid_mm.backbones.base.Pyramid`.
    """

    def __init__(
        self,
        arch: str | dict,
        width_factor: float = 1.0,
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        drop_path_rate: float = 0.0,
        layer_scale: float = 1e-6,
        pooled: bool = False,
        deploy: bool = False,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_channels, out_indices, frozen_stages, norm_eval, with_cp, init_cfg)
        settings = self.resolve_arch(arch)
        self.pooled = pooled
        self.depths = settings['depths']
        self.stage_channels = [int(width * width_factor) for width in settings['dims']]
        rates = drop_path_schedule(drop_path_rate, self.depths)
        self.stages = nn.ModuleList()
        before = in_channels
        for i, channels in enumerate(self.stage_channels):
            embed = PatchEmbed(before, channels, 2 if i else 4, norm_first=i > 0)
            blocks = [
                ConvNeXtBlock(self.make_mixer(i, channels), channels, rate, layer_scale)
                for rate in rates[i]
            ]
            down = 'downsample' if i else 'embed', embed
            norm = self.make_norm(i, channels)
            self.stages.append(self.make_stage(i, channels, down, blocks, norm, with_cp))
            before = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if deploy:
            self.switch_to_deploy()
        self.finish()

    def make_mixer(self, stage: int, channels: int) -> nn.Module:
        """Module that mixes pixels in a block of a stage, (N, C, H, W) to the same shape."""
        raise NotImplementedError

    def make_stage(self, stage: int, channels: int, *arguments) -> nn.Module:
        """Stage of the arguments of :class:`~hybrid_mm.backbones.token_pyramid.TokenStage`."""
        return TokenStage(*arguments)

    def make_norm(self, stage: int, channels: int) -> nn.Module:
        """Norm of a stage's map, where that is returned."""
        norm = super().make_norm(stage, channels)
        return nn.LayerNorm(channels, eps=_EPS) if isinstance(norm, nn.LayerNorm) else norm

    def returned_map(self, stage: int, x: Tensor) -> Tensor:
        """The map of a stage as it is returned."""
        if self.pooled and stage == len(self.stages) - 1:
            x = x.mean((1, 2), keepdim=True)
        return super().returned_map(stage, x)

    def switch_to_deploy(self) -> None:
        """Merge norms and small kernels into the large ones, for inference."""
        for stage in self.stages:
            for module in stage.modules():
                if isinstance(module, ParallelKernels):
                    module.switch_to_deploy(getattr(stage, 'pos_embed', None))

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter for layer-wise learning-rate decay, as ConvNeXt counts.

        With L = 6, or 12 if the third stage has more than 9 blocks: 0 the stem; 1 the first stage;
        2 the second with its down-sampling; 3 the down-sampling before the third, whose block j is
        layer 3 + j // 3; L the fourth with its down-sampling; L + 1 the norms of the returned maps
        and everything behind the backbone.

        Args:
            param_name: Full name of the parameter.
            prefix: Name of this backbone in the model, with the final dot.

        Returns:
            The layer id, and the number of layers L + 2.
        """
        last = 12 if self.depths[2] > 9 else 6
        found = re.match(
            re.escape(prefix) + r'stages\.(\d+)\.(?!norm\.)(\w+)(?:\.(\d+))?', param_name
        )
        if found is None:
            return last + 1, last + 2
        stage, part, block = int(found[1]), found[2], int(found[3] or 0)
        layer = (0 if part == 'embed' else 1, 2, min(3 + block // 3, last), last)[stage]
        return layer, last + 2

    def get_stage_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Layer of a parameter where the learning rate decays by stages, as ConvNeXt counts.

        0 the stem and all down-samplings, s + 1 the rest of stage s (from 0), and the last layer,
        L + 1 (see :meth:`get_layer_depth`), everything else.
        """
        last = 12 if self.depths[2] > 9 else 6
        found = re.match(re.escape(prefix) + r'stages\.(\d+)\.(\w+)', param_name)
        if found is None or found[2] == 'norm':
            return last + 1, last + 2
        down = found[2] in ('embed', 'downsample')
        return (0 if down else int(found[1]) + 1), last + 2
