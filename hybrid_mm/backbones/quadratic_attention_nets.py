"""Networks of quadratic attention: the paper's encoder for small images, and a ResNet with it.

Status: operator checked number by number against the official code, encoder by its parameters; the
ResNet is ours, the paper has no network for dense prediction.

Source: "On the Relationship between Self-Attention and Convolutional Layers" (arXiv 1911.03584).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import Unpack

from hybrid_mm.backbones.frames.blocks import run_blocks
from hybrid_mm.backbones.frames.resnet import ConvSlot, ResNet, ResNetArch, ResNetArguments
from hybrid_mm.layers import QuadraticAttention2d
from hybrid_mm.ops.arguments import positive
from hybrid_mm.registry import MODELS


class EncoderLayer(nn.Module):
    """BERT's layer on a map: attention and feed-forward network, each added and then normed.

    Args:
        channels: Number of channels C.
        hidden_channels: Width of the feed-forward network.
        heads: Heads of the attention.
        ln_eps: Epsilon of the layer norms.
        dropout: Dropout after the linear layers.
        attention: Further arguments of :class:`~hybrid_mm.layers.QuadraticAttention2d`.
    """

    def __init__(
        self,
        channels: int,
        hidden_channels: int,
        heads: int,
        ln_eps: float = 1e-12,
        dropout: float = 0.0,
        **attention: Any,
    ) -> None:
        super().__init__()
        self.attn = QuadraticAttention2d(channels, channels, heads, **attention)
        self.proj = nn.Linear(channels, channels)
        self.norm1 = nn.LayerNorm(channels, ln_eps)
        self.fc1 = nn.Linear(channels, hidden_channels)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_channels, channels)
        self.norm2 = nn.LayerNorm(channels, ln_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to the same shape."""
        mixed = self.attn(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = self.norm1(x + self.dropout(self.proj(mixed)))
        return self.norm2(x + self.dropout(self.fc2(self.act(self.fc1(x)))))


@MODELS.register_module()
class QuadraticAttentionEncoder(BaseModule):
    """The paper's encoder for CIFAR-10: a map at one stride, for a classifier.

    The image is cut into patches, which a linear layer maps to C channels; layers of attention by
    relative position follow. There is no class token: the classifier takes the mean of the map.

    Args:
        mode: See :class:`~hybrid_mm.layers.QuadraticAttention2d`: 'isotropic' (the paper's
            quadratic attention), 'full' (generalised), 'learned' or 'learned_content'.
        channels: Number of channels C.
        depth: Number of layers.
        heads: Heads of every layer, each C wide.
        hidden_channels: Width of the feed-forward networks.
        patch_size: Pixels of a patch on each side; the last patches are filled with zeros.
        in_channels: Channels of the input image.
        positions: See :class:`~hybrid_mm.layers.QuadraticAttention2d`.
        position_channels: See :class:`~hybrid_mm.layers.QuadraticAttention2d`.
        ln_eps: Epsilon of the layer norms.
        dropout: Dropout after the linear layers (0.1 in the official defaults).
        attn_drop: Dropout of the attention probabilities (0.1 in the official defaults).
        with_cp: Recompute each layer in the backward pass instead of keeping its activations.
        init_cfg: MMEngine's; ``dict(type='Pretrained', checkpoint=FILE)`` loads weights.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import QuadraticAttentionEncoder
        >>> encoder = QuadraticAttentionEncoder(channels=20, depth=2, heads=3).eval()
        >>> [tuple(m.shape) for m in encoder(torch.rand(1, 3, 33, 32))]
        [(1, 20, 17, 16)]
    """

    def __init__(
        self,
        mode: str = 'isotropic',
        channels: int = 400,
        depth: int = 6,
        heads: int = 9,
        hidden_channels: int = 512,
        patch_size: int = 2,
        in_channels: int = 3,
        positions: int = 16,
        position_channels: int | None = None,
        ln_eps: float = 1e-12,
        dropout: float = 0.0,
        attn_drop: float = 0.0,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.out_channels, self.patch_size, self.with_cp = (channels,), patch_size, with_cp
        self.embed = nn.Conv2d(in_channels, channels, patch_size, patch_size)
        layers = [
            EncoderLayer(
                channels,
                hidden_channels,
                heads,
                ln_eps,
                dropout,
                mode=mode,
                positions=positions,
                position_channels=position_channels,
                attn_drop=attn_drop,
            )
            for _ in range(depth)
        ]
        self.blocks = nn.ModuleList(layers)
        for layer in layers:
            for linear in (layer.proj, layer.fc1, layer.fc2):
                nn.init.normal_(linear.weight, std=0.02)
                nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Map (N, in_channels, H, W) to one map (N, C, ceil(H / patch), ceil(W / patch))."""
        height, width = x.shape[2:]
        x = F.pad(x, (0, -width % self.patch_size, 0, -height % self.patch_size))
        x = self.embed(x).permute(0, 2, 3, 1)
        return (run_blocks(self.blocks, x, self.with_cp).permute(0, 3, 1, 2).contiguous(),)


@MODELS.register_module()
class QuadraticAttentionResNet(ResNet):
    """ResNet whose 3x3 convolutions are isotropic quadratic attention with nine heads.

    Every attention starts as an approximation of the convolution in its place: the heads' centres
    are the taps, ``alpha`` is their sharpness, the mixing has the convolution's weights. The
    paper has no such network; it has the theorem that makes it possible.

    Args:
        arch: See :class:`~hybrid_mm.backbones.frames.resnet.ResNet`.
        alpha: Initial sharpness, see :meth:`~hybrid_mm.layers.QuadraticAttention2d.from_conv`. At
            0.5 the spreads are 1, as the paper's encoder starts; a sharp attention passes hardly
            any gradient to its centres.
        attention: For every stage, whether it has attention; others keep their convolutions.
        **kwargs: See :class:`~hybrid_mm.backbones.frames.resnet.ResNet`.

    Example:
        >>> import torch
        >>> from hybrid_mm.backbones import QuadraticAttentionResNet
        >>> maps = QuadraticAttentionResNet('r18').eval()(torch.rand(1, 3, 97, 131))
        >>> [tuple(m.shape) for m in maps]
        [(1, 64, 25, 33), (1, 128, 13, 17), (1, 256, 7, 9), (1, 512, 4, 5)]
    """

    traces_any_size = True

    def __init__(
        self,
        arch: str | Mapping | ResNetArch = 'r50',
        alpha: float = 0.5,
        attention: bool | Sequence[bool] = True,
        **kwargs: Unpack[ResNetArguments],
    ) -> None:
        super().__init__(arch, **kwargs)
        positive(self, alpha=alpha)
        self.alpha, self.attention = alpha, self.per_stage(attention=attention)
        self.build()

    def make_spatial(self, slot: ConvSlot) -> nn.Module:
        """Attention that starts as the convolution."""
        if not self.attention[slot.stage]:
            return super().make_spatial(slot)
        return QuadraticAttention2d.from_conv(self.make_conv(slot), self.alpha)
