"""The convolution path of ACmix: maps are mixed, shifted and added up.

Source: "On the Integration of Self-Attention and Convolution" (arXiv 2111.14556), sections 3.1 and
4.1 to 4.3.
"""

from torch import Tensor

from hybrid_mm.ops.dispatch import resolve
from hybrid_mm.ops.export import exporting
from hybrid_mm.ops.mixed_shift import convolution, exported, reference, tiled

__all__ = ['mixed_shift']


def mixed_shift(
    x: Tensor,
    fc: Tensor,
    bias: Tensor | None,
    weight: Tensor,
    *,
    stride: int = 1,
    impl: str = 'auto',
) -> Tensor:
    """Mix the maps of all heads, shift them and add up.

    ``y[j, o] = sum_p weight[j, o, p] * (sum_m fc[p, m] x[m, j] + bias[p])`` with j a channel of a
    head, o one of its n outputs, p one of P mixed maps, and ``*`` a k x k convolution: P M +
    k^2 P n multiplications per channel and pixel.

    'tiled' keeps the maps x only for the backward pass. On a CPU with a C compiler that is a kernel
    which mixes a band of rows at a time into the cache. Without, stride 1 and few outputs run as
    matrix products with all k^2 taps side by side, whose results are shifted and added, some rows
    at a time; with more than 8 outputs a grouped convolution is as fast (in C on maps of fewer than
    100 pixels), and with stride 2 the products would compute what nobody needs: there it is
    'convolution'.

    'convolution', which 'auto' takes on a GPU, is a 1x1 and a grouped convolution, or in training
    one with the product of both weights where that is cheaper, as it also spares the mixed maps.

    Args:
        x: (N, M, d, H, W), of any strides.
        fc: (P, M).
        bias: (P,) or None.
        weight: (d * n, P, k, k), n filters for every channel, k odd.
        stride: Stride of the convolution.
        impl: 'tiled', 'convolution' or 'reference', always a 1x1 and a grouped convolution.

    Returns:
        (N, d * n, ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: An unknown impl.
    """
    if exporting():
        return exported.mix(x, fc, bias, weight, stride)
    impl = resolve(impl, 'mixed_shift', lambda: 'convolution' if x.is_cuda else 'tiled')
    algorithms = {'reference': reference, 'tiled': tiled, 'convolution': convolution}
    return algorithms[impl].mix(x, fc, bias, weight, stride)
