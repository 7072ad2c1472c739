"""Attention within windows or grids of a map, with a bias by relative position.

Source: "MaxViT: Multi-Axis Vision Transformer" (arXiv 2204.01697), section 3.2.
"""

from torch import Tensor, nn

from hybrid_mm.layers.relative_position import LogRelativeBias2d, RelativeBias2d
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.local_attention import partition_attention


class PartitionAttention(nn.Module):
    """Attention of each pixel to those of its window or of its grid.

    A window has P x Q pixels side by side. A grid has P x Q pixels too, ceil(H / P) rows and
    ceil(W / Q) columns apart, spread over the whole map. On maps that they do not divide, those at
    the right and bottom have fewer pixels; that is the same as zeros there that no pixel attends
    to.

    H W P Q multiplications per channel for the logits and as many for the result. For windows of
    more than 14 x 14 pixels the backward pass needs queries, keys and values only; for smaller ones
    the weights, P Q per pixel and head, are kept, which is faster there.

    Args:
        in_channels: Channels of the input.
        window: Pixels of a window on each side, (P, Q).
        head_width: Channels of a head.
        kind: 'block' for windows, 'grid' for grids.
        channels: Channels of the output, by default those of the input.
        hidden_channels: Channels of all values, by default those of the output.
        relative: 'table' of numbers, or 'log', a network of logarithmic offsets.
        relative_channels: Width of that network.
        impl: Algorithm, see :func:`~hybrid_mm.ops.local_attention.partition_attention`.

    Raises:
        ValueError: Heads that do not fill the channels, an empty window, an unknown kind,
            relative or impl.
    """

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        window: tuple[int, int],
        head_width: int = 32,
        kind: str = 'block',
        channels: int | None = None,
        hidden_channels: int | None = None,
        relative: str = 'table',
        relative_channels: int = 512,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        check_impl(impl, 'partition_attention')
        channels = channels or in_channels
        hidden = hidden_channels or channels
        if head_width < 1 or hidden % head_width:
            raise ValueError(
                f'head_width must divide the {hidden} channels of the attention, got {head_width}'
            )
        if kind not in ('block', 'grid') or relative not in ('table', 'log'):
            raise ValueError(
                "kind must be 'block' or 'grid' and relative 'table' or 'log', "
                f'got {kind!r} and {relative!r}'
            )
        self.grid = kind == 'grid'
        self.window = window[0], window[1]
        self.width, self.impl = head_width, impl
        self.heads = hidden // head_width
        self.qkv = nn.Linear(in_channels, 3 * hidden)
        self.relative_bias: RelativeBias2d | LogRelativeBias2d
        if relative == 'table':
            self.relative_bias = RelativeBias2d(self.window, self.heads)
        else:
            self.relative_bias = LogRelativeBias2d(self.heads, relative_channels)
        self.proj = nn.Linear(hidden, channels)

    def window_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a window on a map of height x width pixels."""
        return self.window

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, in_channels) to (N, H, W, channels)."""
        window = self.window_of(*x.shape[1:3])
        maps = self.qkv(x).unflatten(3, (3, self.heads, self.width))
        q, k, v = (x.permute(0, 3, 1, 2, 4) for x in maps.unbind(3))
        bias = self.relative_bias(*window)
        out = partition_attention(q, k, v, window, grid=self.grid, bias=bias, impl=self.impl)
        return self.proj(out.permute(0, 2, 3, 1, 4).flatten(3))
