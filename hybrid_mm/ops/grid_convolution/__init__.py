"""Depthwise convolution whose taps share weights over the boxes of a grid.

With groups of one tap only it is a plain depthwise convolution, and with large kernels the fastest
one here; with groups that grow outwards it is the peripheral convolution of PeLK (arXiv
2403.07589), section 3.1.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from hybrid_mm.compat.torch_api import is_compiling
from hybrid_mm.ops import autotune
from hybrid_mm.ops.dispatch import resolve
from hybrid_mm.ops.export import exporting
from hybrid_mm.ops.grid_convolution import exported, reference
from hybrid_mm.ops.grid_convolution.algorithms import convolve, fast
from hybrid_mm.ops.grid_convolution.axes import check_widths
from hybrid_mm.ops.precision import accurate_dtype, cast_as_autocast

__all__ = ['grid_convolution']

_DENSE = 4  # taps per weight up to which 'auto' tries a dense convolution,
_TAPS = 300  # and, on a CPU, taps: it takes minutes for larger kernels
_PROBE = 16  # channels that are measured on a CPU
_SMALL = 7  # taps on an axis up to which cuDNN's depthwise convolution is near the memory's rate


def grid_convolution(
    x: Tensor,
    weight: Tensor,
    rows: Sequence[int],
    columns: Sequence[int] | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Depthwise convolution with stride 1, zero padding and shared taps.

    ``y[c, p] = sum_ab weight[c, a, b] * (sum of x[c] over box (a, b) around p)``: one product per
    shared weight and pixel, not one per tap. Kept for the backward pass are x and the weights.
    On a CPU it is computed in float32 (float64 for such x), whatever the type of x and under
    autocast. On a GPU it is a convolution as any other: autocast rounds x, weights are rounded to
    the type of x, and sums are made in float32; gradients of float32 weights are float32.

    Args:
        x: (N, C, H, W), of any strides, also smaller than the kernel.
        weight: (C, len(rows), len(columns)).
        rows: Heights of the groups of taps; they add up to the odd height of the kernel.
        columns: Widths of the groups, by default ``rows``.
        impl: 'bmm' (sums by doubling and a batched product), 'fft', 'fused' (a kernel in C,
            compiled at its first use; CPU only), 'triton' (GPU only), 'reference' (expanded weights
            and ``conv2d``), or 'auto'. On a CPU that is the fastest of these for a shape, measured
            at its first call; on a GPU 'reference' up to 7 x 7 taps and 'triton' above, but 'fft'
            for the largest kernels in float32 proper.

    Returns:
        (N, C, H, W) in the type of x, which is that of autocast on a GPU; channels-last there for
        such x.

    Raises:
        ValueError: Shapes that do not fit, an even kernel, or an unknown impl.
        RuntimeError: 'fused' without a compiler or away from the CPU, 'triton' away from a GPU.
    """
    rows = check_widths(rows, 'rows')
    columns = rows if columns is None else check_widths(columns, 'columns')
    if x.ndim != 4 or weight.shape != (x.shape[1], len(rows), len(columns)):
        raise ValueError(
            f'a grid of {len(rows)} x {len(columns)} groups and x of shape {tuple(x.shape)} need '
            f'weight (C, {len(rows)}, {len(columns)}) and x (N, C, H, W), got weight '
            f'{tuple(weight.shape)}'
        )
    if x.is_cuda:
        (x,) = cast_as_autocast(x)
    else:
        weight = weight.to(accurate_dtype(x.dtype))
    if exporting():
        return exported.convolve(x, weight, rows, columns)
    impl = resolve(impl, 'grid_convolution', lambda: _fastest(x, weight, rows, columns))
    if impl == 'fused' and x.device.type not in ('cpu', 'meta'):
        raise RuntimeError(f"impl='fused' of grid_convolution runs on CPUs, got x on {x.device}")
    return _function(impl, rows, columns)(x, weight)


def _fastest(x: Tensor, weight: Tensor, rows: tuple[int, ...], columns: tuple[int, ...]) -> str:
    """What 'auto' means; it stays 'auto' while torch compiles: the operator chooses then."""
    if x.is_cuda and sum(rows) == len(rows) <= _SMALL and sum(columns) == len(columns) <= _SMALL:
        return 'reference'
    if is_compiling():
        return 'auto'
    names = fast(x, rows, columns)
    return (
        names[0]
        if 'triton' in names or not x.numel()
        else _measured(names, x, weight, rows, columns)
    )


def _measured(
    names: list[str],
    x: Tensor,
    weight: Tensor,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
) -> str:
    """The fastest algorithm, measured once for sizes within half an octave."""
    if not x.is_cuda:  # the time is proportional to images and channels: a few tell enough
        x, weight = x[:1, :_PROBE], weight[:_PROBE]
    taps = sum(rows) * sum(columns)
    if taps <= _DENSE * len(rows) * len(columns) and (x.is_cuda or taps <= _TAPS):
        names.append('reference')
    sizes = tuple(round(2 * math.log2(size)) for size in x.shape)
    types = tuple(description[-2:] for description in autotune.describe(x, weight))
    key = sizes, types, rows, columns
    candidates = {name: _function(name, rows, columns) for name in names}
    return autotune.choose('grid_convolution', key, candidates, (x, weight))


def _function(
    impl: str, rows: tuple[int, ...], columns: tuple[int, ...]
) -> Callable[[Tensor, Tensor], Tensor]:
    """An algorithm as a function of maps and weights."""
    if impl == 'reference':
        return partial(reference.convolve, rows=rows, columns=columns)
    return partial(convolve, rows=rows, columns=columns, impl=impl)
