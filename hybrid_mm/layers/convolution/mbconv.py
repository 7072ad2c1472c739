"""Inverted bottleneck with a channel gate and pre-activation, as MaxViT and CoAtNet have it.

Sources: "MaxViT: Multi-Axis Vision Transformer" (arXiv 2204.01697), section 3.3 and its code;
"CoAtNet: Marrying Convolution and Attention for All Data Sizes" (arXiv 2106.04803), section 2.2;
the variants trained by timm.
"""

import functools
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.channel_gate import SqueezeExcite
from hybrid_mm.layers.drop import DropPath
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.arguments import fraction, not_negative, positive
from hybrid_mm.ops.export import has_symbols
from hybrid_mm.ops.windows import missing

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    'gelu': F.gelu,
    'gelu_tanh': functools.partial(F.gelu, approximate='tanh'),
    'silu': F.silu,
    'relu': F.relu,
}


def choice(name: str, value: str, known: tuple[str, ...] | dict) -> str:
    """A value that must be one of those known.

    Raises:
        ValueError: It is not.
    """
    if value not in known:
        raise ValueError(f'{name} must be one of {", ".join(known)}, got {value!r}')
    return value


def halve(x: Tensor) -> Tensor:
    """Mean of 2 x 2 pixels, (N, C, H, W) to (N, C, ceil(H / 2), ceil(W / 2)).

    Where a side is odd, the last mean is over the pixels that there are, as in TensorFlow.
    """
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


# means and maxima of 2 x 2 or 3 x 3 pixels, to the same size as halve
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    'avg2': halve,
    'avg3': functools.partial(
        F.avg_pool2d, kernel_size=3, stride=2, padding=1, count_include_pad=False
    ),
    'max2': functools.partial(F.max_pool2d, kernel_size=2, ceil_mode=True),
    'max3': functools.partial(F.max_pool2d, kernel_size=3, stride=2, padding=1),
}


class Conv3x3(nn.Conv2d):
    """3x3 convolution to ceil(H / stride) rows.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: Stride.
        padding: 'same' as in TensorFlow, one pixel more at the right and bottom than at the other
            sides where the number is odd, or 'symmetric', one pixel at every side. They differ for
            even sides and stride 2.
        groups: Groups of channels.
        bias: Whether to add a bias.
    """

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        padding: str = 'same',
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        choice('padding', padding, ('same', 'symmetric'))
        super().__init__(in_channels, channels, 3, stride, 1, groups=groups, bias=bias)
        self.shifted = padding == 'same' and stride == 2

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / stride), ceil(W / stride))."""
        if not self.shifted:
            return super().forward(x)
        odd_h, odd_w = (missing(side, 2) for side in x.shape[2:])
        if not has_symbols(x.shape[2:]) and odd_h and odd_w:
            return super().forward(x)
        x = F.pad(x, (odd_w, 1, odd_h, 1))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, 1, self.groups)


class MBConv(nn.Module):
    """Norm, 1x1 convolution to more channels, depthwise 3x3, gate, 1x1 back; a shortcut around it.

    Keeps about 7 maps of the expanded channels for the backward pass.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        stride: 1 or 2; with 2 the output has ceil(H / 2) rows.
        expansion: Expanded channels as a multiple of ``expand_from``.
        expand_from: 'output' or 'input' channels.
        act: Activation, 'gelu', 'gelu_tanh', 'silu' or 'relu'.
        padding: 'same' or 'symmetric', see :class:`Conv3x3`.
        stride_in: Where the branch has its stride: 'conv', the depthwise convolution, 'expansion',
            the 1x1 convolution before it, or 'pool', a mean of 2 x 2 pixels before that.
        pool: How the shortcut gets the stride, one of :data:`POOLS`.
        pre_act: Activation after the first norm, too.
        gate_ratio: Hidden channels of the gate as a part of the output channels with
            ``expand_from='output'``, else of the expanded ones; rounded down.
        gate_act: Activation of the gate's hidden layer.
        gate_early: The gate before the second norm instead of after its activation.
        bias: Bias of the last convolution and of the shortcut's.
        drop_path: Drop-path rate of the branch.
        norm: Makes a batch norm of a number of channels.

    Raises:
        ValueError: A name that is not known, a stride other than 1 and 2, a gate without channels.
    """

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        *,
        expansion: float = 4.0,
        expand_from: str = 'output',
        act: str = 'gelu',
        padding: str = 'same',
        stride_in: str = 'conv',
        pool: str = 'avg2',
        pre_act: bool = False,
        gate_ratio: float = 0.25,
        gate_act: str = 'silu',
        gate_early: bool = False,
        bias: bool = True,
        drop_path: float = 0.0,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        if stride not in (1, 2):
            raise ValueError(f'stride of an MBConv must be 1 or 2, got {stride}')
        positive(self, expansion=expansion)
        not_negative(self, gate_ratio=gate_ratio)
        fraction(self, drop_path=drop_path)
        choice('expand_from', expand_from, ('output', 'input'))
        choice('stride_in', stride_in, ('conv', 'expansion', 'pool'))
        self.act = ACTIVATIONS[choice('act', act, ACTIVATIONS)]
        hidden = int(expansion * (channels if expand_from == 'output' else in_channels))
        gate = int(gate_ratio * (channels if expand_from == 'output' else hidden))
        if gate < 1:
            raise ValueError(f'gate_ratio {gate_ratio} leaves no channel to the gate')
        self.pool = POOLS[choice('pool', pool, POOLS)] if stride == 2 else None
        self.pool_branch = stride == 2 and stride_in == 'pool'
        self.pre_act, self.gate_early = pre_act, gate_early
        self.pre_norm = norm(in_channels)
        stride_of_conv1 = stride if stride_in == 'expansion' else 1
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, stride_of_conv1, bias=False)
        self.norm1 = norm(hidden)
        self.conv2 = Conv3x3(
            hidden, hidden, stride if stride_in == 'conv' else 1, padding, hidden, bias=False
        )
        self.norm2 = norm(hidden)
        act_of_gate = ACTIVATIONS[choice('gate_act', gate_act, ACTIVATIONS)]
        self.gate = SqueezeExcite(hidden, hidden_channels=gate, act=act_of_gate)
        self.conv3 = nn.Conv2d(hidden, channels, 1, bias=bias)
        self.drop_path = DropPath(drop_path)
        same = in_channels == channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, channels, ceil(H / stride), ceil(W / stride))."""
        shortcut = self.shortcut(self.pool(x) if self.pool else x)
        x = self.pre_norm(x)
        if self.pre_act:
            x = self.act(x)
        if self.pool_branch:
            x = halve(x)
        x = self.conv2(self.act(self.norm1(self.conv1(x))))
        if self.gate_early:
            x = self.act(self.norm2(self.gate(x)))
        else:
            x = self.gate(self.act(self.norm2(x)))
        return shortcut + self.drop_path(self.conv3(x))
