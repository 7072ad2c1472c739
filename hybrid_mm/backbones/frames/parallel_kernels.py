"""Depthwise kernels side by side in training, which are one kernel at deployment."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_mm.backbones.frames.blocks import NormCfg, build_norm
from hybrid_mm.layers.convolution.depthwise import DepthwiseConv2d
from hybrid_mm.layers.convolution.peripheral_convolution import PeripheralConv2d
from hybrid_mm.ops.fusing import require_plain

__all__ = ['ConvNorm', 'ParallelKernels', 'add_to_center', 'merge_kernels']


class ConvNorm(nn.Module):
    """Convolution, then batch norm, if any.

    Args:
        conv: Convolution without a bias.
        norm: Batch norm, or ``nn.Identity`` for none.
    """

    conv: Any  # it has a weight and no bias
    norm: Any

    def __init__(self, conv: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm

    def forward(self, x: Tensor, *arguments: Tensor | None) -> Tensor:
        """Convolve (N, C, H, W); the convolution gets further arguments."""
        return self.norm(self.conv(x, *arguments))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale (C, 1, 1, 1) and bias (C) of the norm in eval mode."""
        own = DepthwiseConv2d, PeripheralConv2d, nn.Identity
        require_plain('switch_to_deploy', own, conv=self.conv, norm=self.norm)
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

    def __init__(self, kernels: Mapping[str, nn.Module], norm_cfg: NormCfg | None) -> None:
        super().__init__()
        self.names = list(kernels)
        for name, conv in kernels.items():
            norm = (
                build_norm(norm_cfg, len(conv.get_parameter('weight')))
                if norm_cfg
                else nn.Identity()
            )
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
    """Add a small kernel to the centre of a larger one, in place; both (C, 1, H, W).

    Args:
        weight: Larger kernel, (C, 1, H, W), changed in place.
        small: Smaller kernel, (C, 1, h, w).
    """
    top, left = ((a - b) // 2 for a, b in zip(weight.shape[2:], small.shape[2:], strict=True))
    weight[..., top : top + small.shape[2], left : left + small.shape[3]] += small


def merge_kernels(net: nn.Module, pos_embed: Tensor | None = None) -> None:
    """Call :meth:`ParallelKernels.switch_to_deploy` of all of a network, or of a stage.

    Args:
        net: Network or stage, changed in place.
        pos_embed: Position embedding that the kernels of a stage share, or None.
    """
    for module in net.modules():
        if isinstance(module, ParallelKernels):
            module.switch_to_deploy(pos_embed)
