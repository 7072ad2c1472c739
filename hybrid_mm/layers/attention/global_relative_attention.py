"""Attention over a whole map with a bias by relative position.

Source: "CoAtNet: Marrying Convolution and Attention for All Data Sizes" (arXiv 2106.04803),
equation 3.
"""

from hybrid_mm.layers.attention.partition_attention import PartitionAttention
from hybrid_mm.ops.argument_types import sized_arguments


class GlobalRelativeAttention(PartitionAttention):
    """Attention of each pixel to all, the logits with a number per head and offset.

    (H W)^2 multiplications per channel for the logits and as many for the result. On maps of more
    than 14 x 14 pixels the backward pass needs queries, keys, values and the table only, and the
    bias of all pairs is not formed. On smaller maps the weights are kept, (H W)^2 per head, which
    is faster there.

    Args:
        in_channels: Channels of the input.
        size: Rows and columns of the map that the table is made for; for others it is interpolated.
        head_width: Channels of a head.
        channels: Channels of the output, by default those of the input.
        hidden_channels: Channels of all values, by default those of the output.
        relative: 'table' of numbers, or 'log', a network of logarithmic offsets.
        relative_channels: Width of that network.
        impl: Algorithm, see :func:`~hybrid_mm.ops.local_attention.partition_attention`.

    Raises:
        ValueError: Heads that do not fill the channels, an empty map, an unknown relative or impl.
    """

    @sized_arguments
    def __init__(
        self,
        in_channels: int,
        size: tuple[int, int],
        head_width: int = 32,
        channels: int | None = None,
        hidden_channels: int | None = None,
        relative: str = 'table',
        relative_channels: int = 512,
        impl: str = 'auto',
    ) -> None:
        super().__init__(
            in_channels,
            size,
            head_width,
            'block',
            channels,
            hidden_channels,
            relative,
            relative_channels,
            impl,
        )

    def window_of(self, height: int, width: int) -> tuple[int, int]:
        """The whole map."""
        return height, width
