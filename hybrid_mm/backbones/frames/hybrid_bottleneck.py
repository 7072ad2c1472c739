"""Parts of HaloNet, BoTNet and their hybrids: stems, and bottlenecks around any operator.

Source: the block layouts that timm trained them with (RegNetZ, ResNeXt-26t and the like): stems,
channel gates, grouped convolutions.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from hybrid_mm.backbones.frames.blocks import NormCfg, build_norm, conv2d_he
from hybrid_mm.backbones.frames.resnet import ConvSlot
from hybrid_mm.layers import DropPath
from hybrid_mm.layers.channel_gate import EfficientChannelGate, SqueezeExcite

__all__ = ['HybridBottleneck', 'Stem']

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    'relu': partial(nn.ReLU, inplace=True),
    'silu': nn.SiLU,
}


GATES: dict[str, Callable[..., nn.Module]] = {'se': SqueezeExcite, 'eca': EfficientChannelGate}


# kernel size and, for n channels after the stem, channels and strides of its convolutions
STEMS: dict[str, tuple[int, Callable[[int, bool], list[tuple[int, int]]]]] = {
    '7x7': (7, lambda n, pool: [(n, 2)]),
    '3x3': (3, lambda n, pool: [(n, 2)]),
    'tiered': (3, lambda n, pool: [(3 * n // 8, 2), (n // 2, 1), (n, 1 if pool else 2)]),
    'deep': (3, lambda n, pool: [(n, 2), (n, 1), (n, 1 if pool else 2)]),
    'quad': (
        3,
        lambda n, pool: [
            (round(n / 8), 2),
            (round(n / 4), 1),
            (round(n / 2), 1),
            (n, 1 if pool else 2),
        ],
    ),
}


def stem_stride(kind: str, pool: bool) -> int:
    """Stride of a :class:`Stem` of one of the kinds in ``STEMS``."""
    return math.prod(stride for _, stride in STEMS[kind][1](8, pool)) * (2 if pool else 1)


def named_conv_norm(
    in_channels: int,
    channels: int,
    kernel_size: int,
    norm_cfg: NormCfg,
    stride: int = 1,
    act: str | None = None,
) -> nn.Sequential:
    """Convolution, norm and activation if any, as ``conv``, ``norm`` and ``act``."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv=conv2d_he(in_channels, channels, kernel_size, stride)
    )
    layers['norm'] = build_norm(norm_cfg, channels)
    if act:
        layers['act'] = ACTIVATIONS[act]()
    return nn.Sequential(layers)


class Stem(nn.Module):
    """One convolution of stride 2, or several, and 3x3 max pooling of stride 2 if asked.

    Args:
        in_channels: Channels of the image.
        channels: Channels of the output.
        kind: '7x7' or '3x3', or several 3x3 convolutions, of which the last has stride 2 if there
            is no pooling: 'tiered' with 3/8, 1/2 and all channels, 'deep' three with all of them,
            'quad' with 1/8, 1/4, 1/2 and all.
        pool: With the pooling.
        act: Activation, 'relu' or 'silu'.
        norm_cfg: Batch normalisation.
    """

    def __init__(
        self, in_channels: int, channels: int, kind: str, pool: bool, act: str, norm_cfg: NormCfg
    ) -> None:
        super().__init__()
        kernel_size, plan = STEMS[kind]
        self.layers = nn.ModuleList()
        for width, stride in plan(channels, pool):
            self.layers.append(
                named_conv_norm(in_channels, width, kernel_size, norm_cfg, stride, act)
            )
            in_channels = width
        self.pool = nn.MaxPool2d(3, stride=2, padding=1) if pool else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, H / 2 or H / 4, W likewise), rounded up."""
        for layer in self.layers:
            x = layer(x)
        return self.pool(x)


class HybridBottleneck(nn.Module):
    """1x1 convolution, 3x3 convolution or attention, 1x1 convolution, and the shortcut.

    Each is followed by a batch norm, the first two by the activation as well.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        slot: Place, widths and stride of the middle.
        spatial: Operator in the middle.
        norm_cfg: Batch normalisation.
        act: Activation, 'relu' or 'silu'.
        gate: Channel gate, or None.
        gate_place: 'mid' after the middle, 'out' after the last norm.
        linear_out: No activation after the sum.
        shortcut: Where stride or channels change, a 1x1 convolution takes the place of the
            shortcut; without, such a block has none at all.
        shortcut_act: Activation after that convolution.
        drop_path: Drop-path rate of the branch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        slot: ConvSlot,
        spatial: nn.Module,
        norm_cfg: NormCfg,
        act: str = 'relu',
        gate: nn.Module | None = None,
        gate_place: str = 'mid',
        linear_out: bool = False,
        shortcut: bool = True,
        shortcut_act: bool = False,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv1 = conv2d_he(in_channels, slot.in_channels, 1)
        self.norm1 = build_norm(norm_cfg, slot.in_channels)
        self.conv2 = spatial
        self.norm2 = build_norm(norm_cfg, slot.channels)
        self.conv3 = conv2d_he(slot.channels, out_channels, 1)
        self.norm3 = build_norm(norm_cfg, out_channels)
        self.gate, self.gate_place = gate, gate_place
        self.act = ACTIVATIONS[act]()
        self.out_act = nn.Identity() if linear_out else ACTIVATIONS[act]()
        self.drop_path = DropPath(drop_path)
        self.shortcut: nn.Module | None = nn.Identity()
        if slot.stride != 1 or in_channels != out_channels:
            self.shortcut = None
            if shortcut:
                name = act if shortcut_act else None
                self.shortcut = named_conv_norm(
                    in_channels, out_channels, 1, norm_cfg, slot.stride, name
                )

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        y = self.act(self.norm1(self.conv1(x)))
        y = self.act(self.norm2(self.conv2(y)))
        if self.gate is not None and self.gate_place == 'mid':
            y = self.gate(y)
        y = self.norm3(self.conv3(y))
        if self.gate is not None and self.gate_place == 'out':
            y = self.gate(y)
        y = self.drop_path(y)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.out_act(y)
