"""The convolution path of ACmix as a module."""

import torch
from torch import Tensor, nn

from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.fusing import is_plain
from hybrid_mm.ops.mixed_shift import mixed_shift


class MixedShift(nn.Module):
    """Mix the maps of all heads by a light FC, shift them and add up.

    ``y[j, n] = sum_p shift_p(sum_m fc[p, m] x[m, j])`` at the start; the shifts are k x k kernels
    ``dep_conv`` of their own per channel j, output n and input p, which are trained further:
    k^2 M + k^4 n multiplications per channel and pixel. See :mod:`hybrid_mm.ops.mixed_shift`.

    Args:
        maps: Number of maps M that are mixed: queries, keys and values of all heads.
        dim: Width d of a head.
        out_per_group: Outputs n for each of the d channels.
        kernel_size: Kernel k of the convolution, odd.
        stride: Stride.
        bias: Bias of the FC.
        impl: Algorithm, see :func:`~hybrid_mm.ops.mixed_shift.mixed_shift`.

    Raises:
        ValueError: An even kernel, or an unknown impl.
    """

    @sized_arguments
    def __init__(
        self,
        maps: int,
        dim: int,
        out_per_group: int,
        kernel_size: int = 3,
        stride: int = 1,
        bias: bool = False,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f'the kernel of the convolution path must be odd, got {kernel_size}')
        check_impl(impl, 'mixed_shift')
        self.maps, self.dim, self.out_per_group, self.impl = maps, dim, out_per_group, impl
        taps, outputs = kernel_size**2, out_per_group * dim
        self.fc = nn.Conv2d(maps, taps, 1, bias=bias)
        self.dep_conv = nn.Conv2d(
            taps * dim, outputs, kernel_size, stride, kernel_size // 2, groups=dim, bias=False
        )
        self.reset_shift()

    def reset_shift(self) -> None:
        """Let kernel p be the shift to tap p, so that the path is a k x k convolution."""
        taps = self.dep_conv.in_channels // self.dim
        size = self.dep_conv.kernel_size
        with torch.no_grad():
            self.dep_conv.weight.copy_(torch.eye(taps).view(taps, *size))

    def forward(self, x: Tensor, rate: Tensor | float = 1.0) -> Tensor:
        """Mix maps (N, maps, dim, H, W) to ``rate`` times (N, dim * out_per_group, H', W').

        Output channel j * out_per_group + n is output n of channel j of the heads; H' is
        ceil(H / stride).
        """
        conv, fc = self.dep_conv, self.fc
        if not is_plain(conv, fc):
            mixed = fc(x.transpose(1, 2).flatten(0, 1))
            y = conv(mixed.unflatten(0, (x.shape[0], x.shape[2])).flatten(1, 2))
            return y * (rate.to(y.dtype) if isinstance(rate, Tensor) else rate)
        weight, stride = conv.weight * rate, conv.stride[0]
        return mixed_shift(x, fc.weight.flatten(1), fc.bias, weight, stride=stride, impl=self.impl)
