"""The attention stem of stand-alone self-attention for the ResNets of OpenMMLab.

Source: "Stand-Alone Self-Attention in Vision Models" (arXiv 1906.05909), section 3.2.
"""

from torch import Tensor

from hybrid_mm.layers import PooledAttentionStem
from hybrid_mm.plugins.base import ResNetModule
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class SASAStem(ResNetModule):
    """Attention within blocks of an image, norm, ReLU, and max pooling of each block.

    ``backbone=dict(type='hybrid_mm.AttentionResNet', stem=dict(type='hybrid_mm.SASAStem'), ...)``
    puts it in place of the 7x7 convolution and the pooling of a ResNet. Its values depend on
    the position in a block, see :class:`~hybrid_mm.layers.AttentionStem`.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of the output, 64 in a ResNet.
        block: Pixels of a block on each side, and stride of the stem.
        heads: Number of heads.
        mixtures: Number of value transforms.
        norm_cfg: Norm, by default batch norm.
        impl: Algorithm, see :mod:`hybrid_mm.ops.local_attention`.

    Raises:
        ValueError: Heads that do not divide ``out_channels``.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 64,
        block: int = 4,
        heads: int = 4,
        mixtures: int = 4,
        norm_cfg: dict | None = None,
        impl: str = 'auto',
    ) -> None:
        super().__init__(norm_cfg)
        layers = PooledAttentionStem(
            in_channels,
            self.build_norm(out_channels),
            out_channels=out_channels,
            block=block,
            heads=heads,
            mixtures=mixtures,
            impl=impl,
        )
        for name, layer in layers.named_children():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / block), ceil(W / block))."""
        for layer in self.children():
            x = layer(x)
        return x
