"""Large kernel attention (LKA) and its separable form (LSKA).

Sources: "Visual Attention Network" (arXiv 2202.09741), section 3.1 and eq. 2 to 4; "Large
Separable Kernel Attention" (arXiv 2309.01439), section 3.

All operators compute an attention map A from x with depthwise convolutions and one 1x1
convolution, and return the product of A and x. There is no softmax, sigmoid or normalisation:
under float16 the product can overflow, so prefer bfloat16.
"""

from torch import Tensor, nn

from hybrid_mm.layers.convolution.depthwise import DepthwiseConv2d, DilatedDepthwiseConv2d
from hybrid_mm.ops.argument_types import sized_arguments

# kernel size k -> dilation d of the papers. The local kernel is 2d-1 wide, the dilated one
# floor(k/d) (the VAN paper writes ceil; all published models and the LSKA paper use floor).
DILATIONS = {7: 2, 11: 2, 23: 3, 35: 3, 41: 3, 53: 3, 65: 3}
_SMALL = 7  # taps on an axis up to which torch's depthwise convolution is fast on GPUs


def decompose_kernel(kernel_size: int, dilation: int | None = None) -> tuple[int, int, int]:
    """Split a large kernel into a local and a dilated one.

    Args:
        kernel_size: Nominal kernel size k.
        dilation: Dilation d; by default the papers' choice for k.

    Returns:
        Width a = 2d-1 of the local kernel, width b = floor(k/d) of the dilated kernel, and d. The
        receptive field of the pair is a + d(b-1).

    Raises:
        ValueError: k has no default dilation, or a kernel of even width would result.
    """
    if dilation is None:
        if kernel_size not in DILATIONS:
            raise ValueError(
                f'kernel_size={kernel_size} has no default dilation: use one of '
                f'{sorted(DILATIONS)}, or give dilation=d with an odd floor(kernel_size / d)'
            )
        dilation = DILATIONS[kernel_size]
    if dilation < 1:
        raise ValueError(f'dilation must be at least 1, got {dilation}')
    local, dilated = 2 * dilation - 1, kernel_size // dilation
    if dilated % 2 == 0:
        raise ValueError(
            f'kernel_size={kernel_size} with dilation={dilation} gives a dilated kernel of even '
            f'width {dilated}, which cannot be centred: choose another kernel_size or dilation'
        )
    return local, dilated, dilation


def _depthwise(channels: int, kernel: tuple[int, int], dilation: int = 1) -> nn.Conv2d:
    """Depthwise convolution with bias that keeps height and width."""
    if dilation == 1 and max(kernel) > _SMALL:
        return DepthwiseConv2d(channels, kernel)
    height, width = (dilation if taps > 1 else 1 for taps in kernel)
    return DilatedDepthwiseConv2d(channels, kernel, (height, width))


class _LargeKernelAttention(nn.Module):
    """Base of the four: depthwise convolutions, a 1x1 convolution, product with the input."""

    def __init__(self, channels: int, **depthwise: nn.Conv2d) -> None:
        super().__init__()
        self._chain = tuple(depthwise)
        for name, conv in depthwise.items():
            self.add_module(name, conv)
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W), any H and W from 1, to the same shape."""
        attention = x
        for name in self._chain:
            attention = getattr(self, name)(attention)
        return self.pointwise(attention) * x


class LKA(_LargeKernelAttention):
    """Large kernel attention: an a x a and a dilated b x b depthwise convolution, then 1x1.

    Source: "Visual Attention Network", eq. 2 to 4. Cost: C(a^2 + b^2 + C) multiplications per
    position; saves 4 maps for the backward pass.

    Args:
        channels: Number of channels C.
        kernel_size: Nominal kernel size k; 23 is VAN's operator (the VAN paper calls it 21).
        dilation: Dilation d, see :func:`decompose_kernel`, which names the errors.
    """

    @sized_arguments
    def __init__(self, channels: int, kernel_size: int = 23, dilation: int | None = None) -> None:
        a, b, d = decompose_kernel(kernel_size, dilation)
        super().__init__(
            channels,
            local=_depthwise(channels, (a, a)),
            dilated=_depthwise(channels, (b, b), d),
        )


class LSKA(_LargeKernelAttention):
    """Large separable kernel attention: the two kernels of LKA as rows and columns.

    Source: "Large Separable Kernel Attention", section 3. Rows run before columns, the local pair
    before the dilated pair; with zero borders and biases the order matters. Cost:
    C(2a + 2b + C) multiplications per position; saves 6 maps for the backward pass.

    Args:
        channels: Channels C.
        kernel_size: Odd nominal size k of the kernel that is decomposed.
        dilation: Dilation d of the second pair of kernels; see :func:`decompose_kernel`, which
            names the errors.
    """

    @sized_arguments
    def __init__(self, channels: int, kernel_size: int = 23, dilation: int | None = None) -> None:
        a, b, d = decompose_kernel(kernel_size, dilation)
        super().__init__(
            channels,
            local_h=_depthwise(channels, (1, a)),
            local_v=_depthwise(channels, (a, 1)),
            dilated_h=_depthwise(channels, (1, b), d),
            dilated_v=_depthwise(channels, (b, 1), d),
        )


def _check_odd(kernel_size: int) -> None:
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f'kernel_size must be odd and positive, got {kernel_size}')


class LKATrivial(_LargeKernelAttention):
    """One k x k depthwise convolution, then 1x1 ("LKA-trivial" of the LSKA paper).

    Cost: C(k^2 + C) multiplications per position; saves 3 maps for the backward pass.

    Args:
        channels: Number of channels C.
        kernel_size: Odd kernel size k; ValueError otherwise.
    """

    @sized_arguments
    def __init__(self, channels: int, kernel_size: int = 23) -> None:
        _check_odd(kernel_size)
        super().__init__(channels, full=_depthwise(channels, (kernel_size, kernel_size)))


class LSKATrivial(_LargeKernelAttention):
    """A 1 x k and a k x 1 depthwise convolution, then 1x1 ("LSKA-trivial" of the LSKA paper).

    Cost: C(2k + C) multiplications per position; saves 4 maps for the backward pass.

    Args:
        channels: Channels C.
        kernel_size: Odd size k of the kernel.
    """

    @sized_arguments
    def __init__(self, channels: int, kernel_size: int = 23) -> None:
        _check_odd(kernel_size)
        super().__init__(
            channels,
            full_h=_depthwise(channels, (1, kernel_size)),
            full_v=_depthwise(channels, (kernel_size, 1)),
        )


class DecomposedLKA(nn.Module):
    """A k x n, an n x k and, if n < k, an n x n depthwise convolution side by side, then 1x1.

    Sources: the decomposed kernels of "SLaK" (arXiv 2207.03620), section 3, with which figure 3 of
    the LSKA paper compares inside of VAN. It gives no code: as in its other operators, and unlike
    in SLaK, the convolutions have biases and no norms. Cost: C(2nk + n^2 + C) multiplications per
    position; saves 3 maps for the backward pass.

    Args:
        channels: Number of channels C.
        kernel_size: Odd kernel size k; ValueError otherwise.
        width: Odd width n of the stripes.
    """

    @sized_arguments
    def __init__(self, channels: int, kernel_size: int = 23, width: int = 5) -> None:
        super().__init__()
        _check_odd(kernel_size)
        _check_odd(width)
        self.tall = _depthwise(channels, (kernel_size, width))
        self.wide = _depthwise(channels, (width, kernel_size))
        self.small = _depthwise(channels, (width, width)) if width < kernel_size else None
        self.pointwise = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W), any H and W from 1, to the same shape."""
        attention = self.tall(x) + self.wide(x)
        if self.small is not None:
            attention = attention + self.small(x)
        return self.pointwise(attention) * x


OPERATORS = {
    'lka': LKA,
    'lka_trivial': LKATrivial,
    'lska': LSKA,
    'lska_trivial': LSKATrivial,
    'slak': DecomposedLKA,
}


def build_large_kernel_attention(
    name: str, channels: int, kernel_size: int, dilation: int | None = None
) -> nn.Module:
    """Build one of the operators by its name.

    Args:
        name: 'lka', 'lska', 'lka_trivial', 'lska_trivial' or 'slak' (:class:`DecomposedLKA`).
        channels: Channels C.
        kernel_size: Odd nominal size of the kernel.
        dilation: Dilation of the decomposed kernels, or None for its default.

    Raises:
        ValueError: Unknown name, dilation given to an undilated operator, or a bad kernel size.
    """
    if name not in OPERATORS:
        raise ValueError(f'unknown attention {name!r}: choose one of {sorted(OPERATORS)}')
    if name not in ('lka', 'lska'):
        if dilation is not None:
            raise ValueError(f'attention {name!r} has no dilated kernel: leave out dilation')
        return OPERATORS[name](channels, kernel_size)
    return OPERATORS[name](channels, kernel_size, dilation)
