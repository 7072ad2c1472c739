"""Core of the networks whose blocks work on maps (N, H, W, C) with layer norms."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.backbones.frames.base import BaseBackbone
from hybrid_mm.convert.core import StateDict

__all__ = ['MLP', 'TokenPyramid', 'init_linear']


def init_linear(net: nn.Module, convolutions: bool = False) -> None:
    """Draw the weights of linear layers from N(0, 0.02), cut at 2; biases are 0.

    Args:
        net: Network with the layers.
        convolutions: Those of convolutions as well.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear) or (convolutions and isinstance(module, nn.Conv2d)):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class MLP(nn.Module):
    """Linear, GELU, linear.

    Args:
        channels: Channels C.
        hidden_channels: Channels in between.
        approximate: 'tanh' for the approximation of GELU that JAX takes, or 'none'.
        out_channels: Channels of the output, by default C.
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        approximate: str = 'none',
        out_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.approximate = approximate
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.fc2 = nn.Linear(hidden_channels, out_channels or channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., out_channels)."""
        return self.fc2(F.gelu(self.fc1(x), approximate=self.approximate))


class TokenPyramid(BaseBackbone):
    """Backbone of stages of maps (N, H, W, C); every returned map has a layer norm of its own."""

    norm_eps: ClassVar[float] = 1e-5  # epsilon of these layer norms

    def make_norm(self, stage: int, channels: int) -> nn.Module:
        """Norm of a stage's map, an identity where that is not returned."""
        return nn.LayerNorm(channels, self.norm_eps) if self.returns(stage) else nn.Identity()

    def reset_parameters(self) -> None:
        """Draw the weights of linear layers from N(0, 0.02), cut at 2; biases are 0."""
        init_linear(self)

    def returned_map(self, stage: int, state: Tensor) -> Tensor:
        """The map (N, H, W, C) of a stage as it is returned, (N, C, H, W)."""
        return self.stages[stage].norm(state).permute(0, 3, 1, 2)

    def may_lack_norm(self, stage: int) -> bool:
        """The last one, that of a classifier."""
        return stage == len(self.depths) - 1

    def initial_values(self, state: StateDict) -> StateDict:
        """A classifier has the norm of the last stage only."""
        norms = self.norms_of_maps(*range(len(self.depths) - 1))
        return {} if norms.keys() & state.keys() else norms
