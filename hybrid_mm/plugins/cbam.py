"""Convolutional block attention module (CBAM).

Source: "CBAM: Convolutional Block Attention Module" (arXiv 1807.06521), equations 2 and 3.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.ops.arguments import odd, one_of, positive
from hybrid_mm.plugins.base import Plugin
from hybrid_mm.plugins.spatial_gate import SpatialGate
from hybrid_mm.registry import MODELS

# (N, C, H, W) to (N, C); 'lp' and 'lse' are further options of the official code
_POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    'avg': lambda x: x.mean((2, 3)),
    'max': lambda x: x.amax((2, 3)),
    'lp': lambda x: F.lp_pool2d(x, 2, x.shape[2:]).flatten(1),
    'lse': lambda x: x.flatten(2).logsumexp(2),
}


class ChannelGate(nn.Module):
    """Channel gate (N, C, 1, 1): sigmoid of the sum of one MLP applied to several poolings.

    Args:
        channels: Number of channels C.
        hidden: Hidden width.
        pools: Names of the poolings.
        gain: Factor of the gate.
    """

    def __init__(self, channels: int, hidden: int, pools: Sequence[str], gain: float) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.fc2 = nn.Linear(hidden, channels)
        self.pools = [_POOLS[name] for name in pools]
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, 1, 1)."""
        s = sum(self.fc2(F.relu(self.fc1(pool(x)))) for pool in self.pools)
        return self.gain * torch.sigmoid(s)[:, :, None, None]


@MODELS.register_module()
class CBAM(Plugin):
    """Channel gate from mean and maximum, then a gate over positions.

    Args:
        in_channels: Number of channels C.
        ratio: The hidden width of the channel gate is C // ratio.
        pools: Poolings of the channel gate: 'avg', 'max', 'lp' and 'lse'.
        spatial: Whether to use the gate over positions.
        kernel_size: Kernel size of that gate, odd.
        norm_cfg: Norm of that gate; by default batch norm with momentum 0.01.
        norm_eval: See :class:`~hybrid_mm.plugins.base.Plugin`.
        init_identity: See :class:`~hybrid_mm.plugins.base.Plugin`.

    Raises:
        ValueError: Unknown or no poolings, an even kernel size, or a ratio above C.
    """

    _abbr_ = 'cbam'

    def __init__(
        self,
        in_channels: int,
        ratio: int = 16,
        pools: Sequence[str] = ('avg', 'max'),
        spatial: bool = True,
        kernel_size: int = 7,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        init_identity: bool = False,
    ) -> None:
        norm_cfg = norm_cfg or dict(type='BN', momentum=0.01)
        super().__init__(norm_cfg, norm_eval, init_identity)
        positive(self, ratio=ratio)
        hidden = in_channels // ratio
        positive(self, **{'in_channels // ratio': hidden, 'number of pools': len(pools)})
        for pool in pools:
            one_of(self, _POOLS, pools=pool)
        self.channel_gate = ChannelGate(in_channels, hidden, pools, self.gain)
        self.spatial_gate = None
        if spatial:
            odd(self, kernel_size=kernel_size)
            self.spatial_gate = SpatialGate(kernel_size, self.build_norm(1), self.gain)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As in the official ResNets the norm's weight is 0: the second gate starts constant."""
        super().reset_parameters()
        if self.spatial_gate is not None:
            nn.init.kaiming_normal_(self.spatial_gate.conv.weight, mode='fan_out')
            nn.init.zeros_(self.spatial_gate.norm.weight)
        if self.init_identity:
            nn.init.zeros_(self.channel_gate.fc2.weight)
            nn.init.zeros_(self.channel_gate.fc2.bias)

    def attend(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        x = x * self.channel_gate(x)
        return x if self.spatial_gate is None else x * self.spatial_gate(x)
