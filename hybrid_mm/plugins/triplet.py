"""Triplet attention.

Source: "Rotate to Attend: Convolutional Triplet Attention Module" (arXiv 2010.03045), equation 3.
"""

from torch import Tensor, nn

from hybrid_mm.ops.arguments import odd
from hybrid_mm.plugins.base import Plugin
from hybrid_mm.plugins.spatial_gate import SpatialGate
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class TripletAttention(Plugin):
    """Mean of three gatings of x: over (C, W), over (H, C) and over (H, W).

    Each gate pools the remaining axis by maximum and mean. The gates over (C, W) and (H, C) cost
    2 k**2 C (H + W) multiplications per map; the rotated maps are views, not copies.

    Args:
        in_channels: Number of channels; the parameters do not depend on it.
        spatial: Whether to use the gate over (H, W).
        kernel_size: Kernel size k of the gates, odd.
        norm_cfg: Norm of the gates; by default batch norm with momentum 0.01.
        norm_eval: See :class:`~hybrid_mm.plugins.base.Plugin`.
        init_identity: See :class:`~hybrid_mm.plugins.base.Plugin`.

    Raises:
        ValueError: The kernel size is even.
    """

    _abbr_ = 'triplet_attention'

    def __init__(
        self,
        in_channels: int,
        spatial: bool = True,
        kernel_size: int = 7,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        init_identity: bool = False,
    ) -> None:
        norm_cfg = norm_cfg or dict(type='BN', momentum=0.01)
        super().__init__(norm_cfg, norm_eval, init_identity)
        self.in_channels = in_channels
        odd(self, kernel_size=kernel_size)
        self.cw = SpatialGate(kernel_size, self.build_norm(1), self.gain)
        self.hc = SpatialGate(kernel_size, self.build_norm(1), self.gain)
        self.hw = SpatialGate(kernel_size, self.build_norm(1), self.gain) if spatial else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Torch's initial values; the norms' weights are 0 with ``init_identity``."""
        super().reset_parameters()
        if self.init_identity:
            for gate in filter(None, (self.cw, self.hc, self.hw)):
                nn.init.zeros_(gate.norm.weight)

    def attend(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        # the sum of the gates times x, not the sum of three gated maps: two maps less to keep
        cw = self.cw(x.transpose(1, 2)).transpose(1, 2)  # (N, C, 1, W)
        hc = self.hc(x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1)  # (N, C, H, 1)
        if self.hw is None:
            return x * ((cw + hc) / 2)
        return x * ((cw + hc + self.hw(x)) / 3)
