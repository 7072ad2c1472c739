"""Depthwise convolution whose taps share weights over the boxes of a grid.

With groups of one tap only it is a plain depthwise convolution, and with large kernels the fastest
one here; with groups that grow outwards it is the peripheral convolution of PeLK (arXiv
2403.07589), section 3.1.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops import autotune
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.dispatch import chosen_impl
from hybrid_mm.ops.export import exporting
from hybrid_mm.ops.grid_convolution.algorithms import FORWARD, WEIGHT_GRADIENT
from hybrid_mm.ops.grid_convolution.axes import GridAxis, check_widths, expand, grid_axis
from hybrid_mm.ops.grid_convolution.fused import has_fused
from hybrid_mm.ops.precision import no_autocast

_DENSE = 4  # taps per weight up to which a dense convolution is among what 'auto' tries,
_TAPS = 300  # and taps, on a CPU: larger kernels take it minutes
_PROBE = 16  # channels that are measured on a CPU
_SMALL = 32**2  # pixels up to which box sums beat the Fourier transform on a CPU


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
    Computed in float32 (float64 for such x), whatever the type of x and under autocast.

    Args:
        x: (N, C, H, W), of any strides, also smaller than the kernel.
        weight: (C, len(rows), len(columns)).
        rows: Heights of the groups of taps; they add up to the odd height of the kernel.
        columns: Widths of the groups, by default ``rows``.
        impl: 'bmm' (sums by doubling and a batched product), 'fft', 'fused' (a kernel in C,
            compiled at its first use; CPU only), 'reference' (expanded weights and
            ``conv2d``), or 'auto', the fastest of these for a shape, measured at its first call.

    Returns:
        (N, C, H, W) in the type of x.

    Raises:
        ValueError: Shapes that do not fit, an even kernel, or an unknown impl.
        RuntimeError: 'fused' without a compiler or away from the CPU.
    """
    rows = check_widths(rows, 'rows')
    columns = rows if columns is None else check_widths(columns, 'columns')
    impl = chosen_impl(impl, 'grid_convolution')
    if x.ndim != 4 or weight.shape != (x.shape[1], len(rows), len(columns)):
        raise ValueError(
            f'a grid of {len(rows)} x {len(columns)} groups and x of shape {tuple(x.shape)} need '
            f'weight (C, {len(rows)}, {len(columns)}) and x (N, C, H, W), got weight '
            f'{tuple(weight.shape)}'
        )
    accurate = torch.float64 if x.dtype == torch.float64 else torch.float32
    weight = weight.to(accurate)
    if exporting():
        impl = 'reference'
    if impl == 'auto' and not torch.compiler.is_compiling():
        impl = _choose(x, weight, rows, columns)
    return _run(impl, rows, columns)(x, weight)


def _fast(x: Tensor) -> list[str]:
    """Algorithms for large kernels, the likely best first: the choice without measuring."""
    names = ['bmm', 'fft']
    if x.device.type == 'cpu' and x.shape[2] * x.shape[3] > _SMALL:
        names.reverse()
    return ['fused', *names] if has_fused(x) else names


def _choose(x: Tensor, weight: Tensor, rows: tuple[int, ...], columns: tuple[int, ...]) -> str:
    """The fastest algorithm, measured once for sizes within half an octave."""
    if not x.is_cuda:  # the time is proportional to images and channels: a few tell enough
        x, weight = x[:1, :_PROBE], weight[:_PROBE]
    sizes = tuple(round(2 * math.log2(size)) for size in x.shape)
    kinds = tuple(kind[-2:] for kind in autotune.describe(x, weight))
    candidates = _candidates(x, rows, columns)
    key = sizes, kinds, rows, columns
    return autotune.choose('grid_convolution', key, candidates, (x, weight))


def _candidates(x: Tensor, rows: tuple[int, ...], columns: tuple[int, ...]) -> dict:
    """What 'auto' measures."""
    names, taps = _fast(x), sum(rows) * sum(columns)
    if taps <= _DENSE * len(rows) * len(columns) and (x.is_cuda or taps <= _TAPS):
        names.append('reference')
    return {name: _run(name, rows, columns) for name in names}


def _run(
    impl: str, rows: tuple[int, ...], columns: tuple[int, ...]
) -> Callable[[Tensor, Tensor], Tensor]:
    if impl == 'reference':
        return partial(_reference, rows=rows, columns=columns)
    return partial(_grid_convolution, rows=rows, columns=columns, impl=impl)


def _reference(
    x: Tensor, weight: Tensor, rows: tuple[int, ...], columns: tuple[int, ...]
) -> Tensor:
    padding = sum(rows) // 2, sum(columns) // 2
    dense = expand(weight, rows, columns).unsqueeze(1)
    with no_autocast(x):
        out = F.conv2d(x.to(weight.dtype), dense, None, 1, padding, groups=len(dense))
    return out.to(x.dtype)


def _axes(x: Tensor, rows: list[int], columns: list[int]) -> tuple[GridAxis, GridAxis]:
    return grid_axis(tuple(rows), x.shape[2]), grid_axis(tuple(columns), x.shape[3])


@custom_op('hybrid_mm::grid_convolution')
def _grid_convolution(
    x: Tensor, weight: Tensor, rows: Sequence[int], columns: Sequence[int], impl: str
) -> Tensor:
    axes = _axes(x, rows, columns)
    impl = _fast(x)[0] if impl == 'auto' else impl  # in compiled graphs, which measure nothing
    weight = weight[:, axes[0].part, axes[1].part]
    with torch.autocast(x.device.type, enabled=False):
        return FORWARD[impl](x.to(weight.dtype), weight, *axes).to(x.dtype)


@_grid_convolution.register_fake
def _(x, weight, rows, columns, impl):
    return x.new_empty(x.shape)


@custom_op('hybrid_mm::grid_convolution_weight')
def _weight_gradient(
    x: Tensor, grad: Tensor, weight: Tensor, rows: Sequence[int], columns: Sequence[int], impl: str
) -> Tensor:
    axes = _axes(x, rows, columns)
    impl = _fast(x)[0] if impl == 'auto' else impl
    found = torch.zeros_like(weight)
    with torch.autocast(x.device.type, enabled=False):
        x, grad = x.to(weight.dtype), grad.to(weight.dtype)
        found[:, axes[0].part, axes[1].part] = WEIGHT_GRADIENT[impl](x, grad, *axes)
    return found


@_weight_gradient.register_fake
def _(x, grad, weight, rows, columns, impl):
    return torch.empty_like(weight)


def _setup_context(ctx, inputs, output) -> None:
    x, weight, ctx.rows, ctx.columns, ctx.impl = inputs
    ctx.save_for_backward(x, weight)


def _differentiate(ctx, grad):
    x, weight = ctx.saved_tensors
    grad_x = grad_weight = None
    if ctx.needs_input_grad[0]:
        mirrored = weight.flip(1, 2)
        grad_x = _grid_convolution(grad, mirrored, ctx.rows[::-1], ctx.columns[::-1], ctx.impl)
    if ctx.needs_input_grad[1]:
        grad_weight = _weight_gradient(x, grad, weight, ctx.rows, ctx.columns, ctx.impl)
    return grad_x, grad_weight, None, None, None


_grid_convolution.register_autograd(_differentiate, setup_context=_setup_context)
