"""The convolution path of ACmix as a module."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.ops.dispatch import check_impl, is_reference
from hybrid_mm.ops.export import exporting
from hybrid_mm.ops.mixed_shift import _by_channel, _mix_and_shift, _mixed

_MOST = 8  # outputs per group up to which products beat a grouped convolution


class MixedShift(nn.Module):
    """Mix the maps of all heads by a light FC, shift them and add up.

    ``y[j, n] = sum_p shift_p(sum_m fc[p, m] x[m, j])`` at the start; the shifts are k x k kernels
    ``dep_conv`` of their own per channel j, output n and input p, which are trained further:
    k^2 M + k^4 n multiplications per channel and pixel.

    With stride 1 and few outputs it runs as matrix products with all k^2 taps side by side, whose
    results are shifted and added, in bands of rows that stay in the cache; kept for the backward
    pass are the maps x only. With more than 8 outputs a grouped convolution is as fast. With stride
    2 the products would compute what nobody needs: there it is a grouped convolution too, in
    training with the product of both weights where that is cheaper, as it also spares the k^2 d
    maps between them.

    Args:
        maps: Number of maps M that are mixed: queries, keys and values of all heads.
        dim: Width d of a head.
        out_per_group: Outputs n for each of the d channels.
        kernel_size: Kernel k of the convolution, odd.
        stride: Stride.
        bias: Bias of the FC.
        impl: 'tiled' (and 'auto') as above, or 'reference', a 1x1 and a grouped convolution.

    Raises:
        ValueError: An even kernel, or an unknown impl.
    """

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
        n, maps, dim, height, width = x.shape
        conv, weight = self.dep_conv, self.dep_conv.weight * rate
        fc, bias = self.fc.weight.flatten(1), self.fc.bias
        alone = (
            not is_reference(self.impl, 'mixed_shift') and not exporting() and conv.stride == (1, 1)
        )
        if alone and self.out_per_group <= _MOST:
            weight = weight.unflatten(0, (dim, -1)).to(x.dtype)
            bias = None if bias is None else bias.to(x.dtype)
            return _mix_and_shift(x, fc.to(x.dtype), bias, weight)
        if alone:
            x = torch.stack([_mixed(_by_channel(image), fc, bias) for image in x])
        elif self._fuses():
            x, weight = x.transpose(1, 2), torch.einsum('opyx,pm->omyx', weight, fc)
        else:
            x = self.fc(x.transpose(1, 2).reshape(n * dim, maps, height, width))
        x = x.reshape(n, -1, height, width)
        return F.conv2d(x, weight, None, conv.stride, conv.padding, groups=dim)

    def _fuses(self) -> bool:
        """Whether one convolution with the product of both weights is cheaper."""
        taps, size = self.fc.out_channels, self.dep_conv.kernel_size[0] ** 2
        cheaper = size * self.maps <= taps * size + taps * self.maps / self.out_per_group
        trains = not is_reference(self.impl, 'mixed_shift') and torch.is_grad_enabled()
        return trains and cheaper and self.fc.bias is None
