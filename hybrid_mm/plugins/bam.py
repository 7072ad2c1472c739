"""Bottleneck attention module (BAM).

Source: "BAM: Bottleneck Attention Module" (arXiv 1807.06514) and its official code, which
multiplies the two branches.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.ops.arguments import positive
from hybrid_mm.plugins.base import Plugin, apply_norm
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class BAM(Plugin):
    """x * (1 + sigmoid(channel branch * spatial branch)); in the paper after stages 1 to 3.

    Insert it with ``stage_plugins`` of :class:`~hybrid_mm.plugins.AttentionResNet`.
    The channel branch pools over all positions (the official code over a square window, which is
    the same for square maps) and normalises over the images of a batch. A single image is
    normalised by the running statistics; for small batches use SyncBN or ``norm_eval=True``.

    Args:
        in_channels: Number of channels C.
        ratio: The hidden width is C // ratio.
        channel_layers: Hidden layers of the channel branch.
        spatial_layers: Dilated 3x3 convolutions of the spatial branch.
        dilation: Dilation of the 3x3 convolutions.
        norm_cfg: Norm of the hidden layers.
        norm_eval: See :class:`~hybrid_mm.plugins.base.Plugin`.
        init_identity: Use x * 2 sigmoid(.) instead, with zeros at the end of the channel branch.

    Raises:
        ValueError: The ratio exceeds C, or there is no hidden layer.
    """

    _abbr_ = 'bam'

    def __init__(
        self,
        in_channels: int,
        ratio: int = 16,
        channel_layers: int = 1,
        spatial_layers: int = 2,
        dilation: int = 4,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        init_identity: bool = False,
    ) -> None:
        super().__init__(norm_cfg, norm_eval, init_identity)
        positive(self, ratio=ratio, channel_layers=channel_layers, dilation=dilation)
        hidden = in_channels // ratio
        positive(self, **{'in_channels // ratio': hidden})
        widths = [in_channels] + [hidden] * channel_layers
        self.channel_fcs = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.channel_norms = nn.ModuleList(
            self.build_norm(hidden, pooled=True) for _ in range(channel_layers)
        )
        self.channel_out = nn.Linear(hidden, in_channels)
        convs = [nn.Conv2d(in_channels, hidden, 1)]
        convs += [
            nn.Conv2d(hidden, hidden, 3, padding=dilation, dilation=dilation)
            for _ in range(spatial_layers)
        ]
        self.spatial_convs = nn.ModuleList(convs)
        self.spatial_norms = nn.ModuleList(self.build_norm(hidden) for _ in convs)
        self.spatial_out = nn.Conv2d(hidden, 1, 1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Torch's initial values; with ``init_identity`` the channel branch ends with zeros."""
        super().reset_parameters()
        if self.init_identity:
            # in one branch only: with zeros in both factors there would be no gradient
            nn.init.zeros_(self.channel_out.weight)
            nn.init.zeros_(self.channel_out.bias)

    def attend(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        c = x.mean((2, 3))
        for fc, norm in zip(self.channel_fcs, self.channel_norms, strict=True):
            c = F.relu(apply_norm(norm, fc(c)))
        s = x
        for conv, norm in zip(self.spatial_convs, self.spatial_norms, strict=True):
            s = F.relu(apply_norm(norm, conv(s)))
        a = torch.sigmoid(self.channel_out(c)[:, :, None, None] * self.spatial_out(s))
        return x * (2 * a if self.init_identity else 1 + a)
