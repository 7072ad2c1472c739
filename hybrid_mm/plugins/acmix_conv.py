"""ACmix instead of a 3x3 convolution in the ResNets of MMDetection and MMSegmentation."""

from torch import Tensor, nn

from hybrid_mm.layers.attention.acmix import ACmix2d
from hybrid_mm.plugins.base import SpatialOperator
from hybrid_mm.registry import MODELS


@MODELS.register_module()
class ACmix(SpatialOperator):
    """ACmix, see :class:`~hybrid_mm.layers.attention.acmix.ACmix2d`.

    ``backbone=dict(type='hybrid_mm.AttentionResNet', conv2=dict(cfg=dict(type='hybrid_mm.ACmix')),
    depth=50, ...)`` replaces all 3x3 convolutions, or those that ``stages`` and ``blocks`` select.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output; by default the same.
        kernel_size: 3, of the replaced convolution and of ACmix's convolution path.
        stride: Stride.
        padding: Padding of the replaced convolution.
        dilation: Dilation of the attention's window.
        groups: Must be 1.
        bias: Must be False.
        kernel_att: Window of the attention, odd.
        heads: Number of heads.
        shift_init: Initialise the convolution path with the shifts of a plain convolution.
        impl: Algorithm, see :mod:`hybrid_mm.ops.dispatch`.

    Raises:
        ValueError: Channels are not a multiple of the heads, the window is even, or there are
            groups.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int | None = None,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        *,
        kernel_att: int = 7,
        heads: int = 4,
        shift_init: bool = True,
        impl: str = 'auto',
    ) -> None:
        super().__init__(kernel_size, padding, dilation, bias)
        self.must_be('groups', groups, 1)
        self.shift_init = shift_init
        self.operator = ACmix2d(
            in_channels,
            out_channels or in_channels,
            kernel_att,
            heads,
            kernel_size,
            stride,
            dilation,
            impl,
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation, shifts, and rates of 1/2."""
        super().reset_parameters()
        self.operator.mix.reset_shift()
        self.operator.he_init(self.shift_init)
        for rate in (self.operator.rate1, self.operator.rate2):
            nn.init.constant_(rate, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        return self.operator(x)
