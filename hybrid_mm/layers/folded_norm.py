"""Linear layers and convolutions followed by a batch norm, which they absorb in eval mode.

In training mode layer and norm run one after the other. In eval mode, which ``norm_eval`` and
frozen stages keep during training, scale and shift of the norm go into weight and bias at every
call where the map has more positions than an output channel has weights: that saves a pass over
the map, and the backward pass keeps a weight in place of its input. Gradients still reach the
weight and the norm. A network with an :class:`~hybrid_mm.ops.inference_cache.InferenceCache` keeps
the merged weights for the next image. A layer or norm that was replaced or has hooks is called.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.export import exporting
from hybrid_mm.ops.fusing import is_plain, require_plain
from hybrid_mm.ops.inference_cache import from_weights, keeps
from hybrid_mm.ops.packed_linear import PackedLinear
from hybrid_mm.ops.precision import accurate


class _FoldedNorm(nn.Module):
    """A layer without bias and its norm.

    Attributes:
        layer: Name of the attribute that holds the layer.
        norm: A batch norm; ``nn.Identity`` once it is merged.
    """

    layer: str
    norm: Any

    def __init__(self, module: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.add_module(self.layer, module)
        self.norm = norm

    def _layer(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        raise NotImplementedError

    def _prepare(self, weight: Tensor, bias: Tensor) -> Callable[..., Tensor]:
        """The layer with this weight and bias, for many calls."""
        return lambda x: self._layer(x, weight, bias)

    def _positions(self, x: Tensor) -> int:
        """Positions of the output."""
        raise NotImplementedError

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the one layer that equals layer and norm in eval mode."""
        module, norm = getattr(self, self.layer), self.norm
        weight = module.weight
        if isinstance(norm, nn.Identity):  # merged for good
            return weight, module.bias
        scale = norm.weight * torch.rsqrt(accurate(norm.running_var) + norm.eps)
        bias = norm.bias - norm.running_mean * scale
        folded = weight * scale.view(-1, *(1,) * (weight.ndim - 1))
        return folded.to(weight.dtype), bias.to(weight.dtype)

    def kept(self) -> Callable[..., Tensor] | None:
        """Layer and norm in one, kept for inference; None where that is not possible."""
        if not keeps(self):
            return None
        module, norm = getattr(self, self.layer), self.norm
        if not (keeps(module) and keeps(norm)):  # put in later
            return None
        merged = type(norm) is nn.Identity  # which switch_to_deploy leaves
        if not is_plain(module, None if merged else norm) or (norm.training and not merged):
            return None
        key = module, norm, None if merged else norm.eps
        return from_weights(self, key, lambda: self._prepare(*self.folded()))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer and the norm."""
        kept = self.kept()
        if kept is not None:
            return kept(x)
        module = getattr(self, self.layer)
        if (
            self.norm.training
            or not isinstance(self.norm, _BatchNorm)
            or not is_plain(module, self.norm)
            # a graph would be of this number of images
            or (not exporting() and self._positions(x) <= module.weight[0].numel())
        ):
            return self.norm(module(x))
        return self._layer(x, *self.folded())

    @torch.no_grad()
    def switch_to_deploy(self) -> None:
        """Merge the norm into the layer for good, for inference."""
        if isinstance(self.norm, nn.Identity):
            return
        module = getattr(self, self.layer)
        require_plain(type(self).__name__, **{self.layer: module, 'norm': self.norm})
        weight, bias = self.folded()
        module.weight.copy_(weight)
        module.bias, self.norm = nn.Parameter(bias), nn.Identity()


class LinearNorm(_FoldedNorm):
    """Linear layer without bias, then batch norm over all positions of (..., C).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        norm_weight: Initial scale of the norm.
    """

    layer = 'linear'

    @sized_arguments
    def __init__(self, in_channels: int, out_channels: int, norm_weight: float = 1.0) -> None:
        norm = nn.BatchNorm1d(out_channels)
        nn.init.constant_(norm.weight, norm_weight)
        super().__init__(nn.Linear(in_channels, out_channels, bias=False), norm)

    def forward(self, x: Tensor, act: str = 'none') -> Tensor:
        """Map (..., C) to (..., C').

        Args:
            x: Maps or tokens.
            act: What comes next, 'none' or 'hardswish'.
        """
        kept = self.kept()
        if kept is not None:
            return kept(x, act)
        # one matrix: of maps with other strides, torch would make a product per row of pixels
        y = super().forward(x.reshape(-1, x.shape[-1])).unflatten(0, x.shape[:-1])
        return F.hardswish(y) if act == 'hardswish' else y

    def _prepare(self, weight: Tensor, bias: Tensor) -> Callable[..., Tensor]:
        return PackedLinear(weight, bias)

    def _layer(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.linear(x, weight, bias)

    def _positions(self, x: Tensor) -> int:
        return len(x)


class Conv2dNorm(_FoldedNorm):
    """Convolution without bias, zero padding of half its kernel, then batch norm.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Odd size of the kernel.
        stride: Distance of the outputs in pixels.
        groups: Groups of channels.
    """

    layer = 'conv'
    conv: nn.Conv2d

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            kernel_size // 2,
            groups=groups,
            bias=False,
        )
        super().__init__(conv, nn.BatchNorm2d(out_channels))

    def _layer(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        conv = self.conv
        padding = conv.kernel_size[0] // 2
        return F.conv2d(x, weight, bias, conv.stride, padding, groups=conv.groups)

    def _positions(self, x: Tensor) -> int:
        return len(x) * math.prod(x.shape[2:]) // math.prod(self.conv.stride)


def fold_norms(net: nn.Module) -> None:
    """Merge the norms of all such layers of a network into them, for inference.

    Args:
        net: The network, changed in place.
    """
    for module in net.modules():
        if isinstance(module, _FoldedNorm):
            module.switch_to_deploy()
