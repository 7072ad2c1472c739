"""Coordinate attention.

Source: "Coordinate Attention for Efficient Mobile Network Design" (arXiv 2103.02907),
equations 4 to 8.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.ops.arguments import positive
from hybrid_mm.plugins.base import Plugin
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class CoordinateAttention(Plugin):
    """x * gate(row) * gate(column), the gates from means over rows and columns.

    Args:
        in_channels: Number of channels C.
        ratio: The hidden width is C // ratio.
        min_channels: Smallest hidden width.
        norm_cfg: Norm of the hidden layer.
        norm_eval: See :class:`~hybrid_mm.plugins.base.Plugin`.
        init_identity: See :class:`~hybrid_mm.plugins.base.Plugin`.

    Raises:
        ValueError: The ratio or the minimum is not positive.
    """

    _abbr_ = 'coord_att'

    def __init__(
        self,
        in_channels: int,
        ratio: int = 32,
        min_channels: int = 8,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        init_identity: bool = False,
    ) -> None:
        super().__init__(norm_cfg, norm_eval, init_identity)
        positive(self, ratio=ratio, min_channels=min_channels)
        hidden = max(min_channels, in_channels // ratio)
        self.conv1 = nn.Conv2d(in_channels, hidden, 1)
        self.norm = self.build_norm(hidden)
        self.conv_h = nn.Conv2d(hidden, in_channels, 1)
        self.conv_w = nn.Conv2d(hidden, in_channels, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Torch's initial values; zeros in the last layers with ``init_identity``."""
        super().reset_parameters()
        if self.init_identity:
            for parameter in (*self.conv_h.parameters(), *self.conv_w.parameters()):
                nn.init.zeros_(parameter)

    def attend(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        h, w = x.shape[2:]
        rows = x.mean(3, keepdim=True)
        columns = x.mean(2, keepdim=True).transpose(2, 3)
        y = F.hardswish(self.norm(self.conv1(torch.cat((rows, columns), dim=2))))
        rows, columns = y.split((h, w), dim=2)
        gate_h = self.gain * torch.sigmoid(self.conv_h(rows))
        gate_w = self.gain * torch.sigmoid(self.conv_w(columns.transpose(2, 3)))
        return x * gate_h * gate_w
