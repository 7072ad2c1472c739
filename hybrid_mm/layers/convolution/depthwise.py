"""Depthwise convolutions: with large kernels, and with small or dilated ones."""

from torch import Tensor, nn

from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.depthwise_convolution import depthwise_convolution
from hybrid_mm.ops.dispatch import check_impl, resolve
from hybrid_mm.ops.grid_convolution import grid_convolution
from hybrid_mm.ops.grid_convolution.axes import check_widths


class DepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with stride 1 that keeps height and width, also with large kernels.

    Its state dict is that of ``nn.Conv2d``. It differs in time and memory: the kernels of torch
    need 4 to 20 times as long to train on a CPU.

    Args:
        channels: Channels.
        kernel_size: Odd height and width.
        bias: Whether to add a bias.
        impl: Algorithm, see :func:`grid_convolution`.

    Raises:
        ValueError: An even kernel, or an unknown impl.
    """

    @sized_arguments
    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        bias: bool = True,
        impl: str = 'auto',
    ) -> None:
        check_impl(impl, 'grid_convolution')
        if isinstance(kernel_size, int):
            kernel_size = kernel_size, kernel_size
        height, width = kernel_size
        self.rows = check_widths([1] * height, 'rows')
        self.columns = check_widths([1] * width, 'columns')
        padding = height // 2, width // 2
        super().__init__(
            channels, channels, (height, width), 1, padding, groups=channels, bias=bias
        )
        self.impl = impl

    def forward(self, x: Tensor, factor: float = 1.0) -> Tensor:
        """Convolve (N, C, H, W); the result is multiplied by ``factor``, as the weights are."""
        weight, bias = self.weight.squeeze(1), self.bias
        if factor != 1:
            weight, bias = weight * factor, None if bias is None else bias * factor
        x = grid_convolution(x, weight, self.rows, self.columns, self.impl)
        return x if bias is None else x + bias[:, None, None].to(x.dtype)


class DilatedDepthwiseConv2d(nn.Conv2d):
    """Depthwise convolution with stride 1 that keeps height and width, dilated or small.

    Its state dict is that of ``nn.Conv2d``. On a CPU, torch's own needs 4 to 9 times as long to
    train with 7 x 7 taps and dilation 3, and 1.2 to 5 times with 5 x 5 taps.

    Args:
        channels: Channels.
        kernel_size: Odd height and width.
        dilation: Distances of neighbouring taps along columns and rows.
        bias: Whether to add a bias.
        impl: Algorithm, see :func:`depthwise_convolution`.

    Raises:
        ValueError: An even kernel, or an unknown impl.
    """

    @sized_arguments
    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        dilation: int | tuple[int, int] = 1,
        bias: bool = True,
        impl: str = 'auto',
    ) -> None:
        check_impl(impl, 'depthwise_convolution')
        height, width = (kernel_size,) * 2 if isinstance(kernel_size, int) else kernel_size
        steps = (dilation,) * 2 if isinstance(dilation, int) else dilation
        if height * width % 2 == 0:
            raise ValueError(f'kernel_size must be odd, got {(height, width)}')
        padding = steps[0] * (height // 2), steps[1] * (width // 2)
        super().__init__(
            channels,
            channels,
            (height, width),
            padding=padding,
            dilation=steps,
            groups=channels,
            bias=bias,
        )
        self.impl = impl

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (N, C, H, W)."""
        if resolve(self.impl, 'depthwise_convolution', lambda: 'auto') == 'reference':
            return super().forward(x)
        return depthwise_convolution(x, self.weight, self.bias, self.dilation, self.impl)
