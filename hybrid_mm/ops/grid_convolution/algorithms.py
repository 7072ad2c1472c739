"""Exact algorithms for depthwise convolutions with shared taps, and the operator made of them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from hybrid_mm.ops import kernels
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.grid_convolution import bmm, fft, fused, launches
from hybrid_mm.ops.grid_convolution.axes import GridAxis, grid_axis
from hybrid_mm.ops.precision import accurate_dtype

_SMALL = 32**2  # pixels up to which box sums beat the Fourier transform on a CPU
_DIRECT = 64**2  # taps from which on it beats a multiplication for each on a GPU

Function = Callable[[Tensor, Tensor, GridAxis, GridAxis], Tensor]


class Algorithm(NamedTuple):
    """Functions of maps and weights, and of maps and gradients, all of one accurate type."""

    forward: Function
    weight_gradient: Function


ALGORITHMS = {
    'bmm': Algorithm(bmm.forward, bmm.weight_gradient),
    'fft': Algorithm(fft.forward, fft.weight_gradient),
    'fused': Algorithm(fused.forward, fused.weight_gradient),
}


def fast(x: Tensor, rows: Sequence[int], columns: Sequence[int]) -> list[str]:
    """Algorithms for large kernels that can run, the likely best first."""
    if x.is_cuda:  # box sums start thousands of kernels there
        if not kernels.available('grid_convolution', x):
            return ['fft']
        products = launches.on_tensor_cores(x) or sum(rows) * sum(columns) <= _DIRECT
        return ['triton', 'fft'] if products else ['fft', 'triton']
    names = ['bmm', 'fft']
    if x.device.type == 'cpu' and x.shape[2] * x.shape[3] > _SMALL:
        names.reverse()
    return ['fused', *names] if fused.is_available(x) else names


def _chosen(impl: str, x: Tensor, rows: Sequence[int], columns: Sequence[int]) -> str:
    """The algorithm; 'auto' comes from compiled graphs, which measure nothing."""
    return fast(x, rows, columns)[0] if impl == 'auto' else impl


def _axes(x: Tensor, rows: Sequence[int], columns: Sequence[int]) -> tuple[GridAxis, GridAxis]:
    return grid_axis(tuple(rows), x.shape[2]), grid_axis(tuple(columns), x.shape[3])


def _empty_result(x: Tensor, impl: str) -> Tensor:
    """Empty maps as the operator returns them: on GPUs of the strides of x, else contiguous."""
    return torch.empty_like(x) if impl == 'triton' or x.is_cuda else x.new_empty(x.shape)


def _as_result(found: Tensor, x: Tensor) -> Tensor:
    """Contiguous maps as the operator returns them for x, see :func:`_empty_result`."""
    return torch.empty_like(x).copy_(found) if x.is_cuda else found


def _convolve(
    x: Tensor, weight: Tensor, rows: Sequence[int], columns: Sequence[int], impl: str
) -> Tensor:
    axes, dtype = _axes(x, rows, columns), accurate_dtype(x.dtype)
    weight = weight[:, axes[0].part, axes[1].part].to(dtype)
    return ALGORITHMS[impl].forward(x.to(dtype), weight, *axes).to(x.dtype)


def _backward(
    grad: Tensor,
    needs: list[bool],
    x: Tensor,
    weight: Tensor,
    rows: Sequence[int],
    columns: Sequence[int],
    impl: str,
) -> list[Tensor]:
    impl = _chosen(impl, x, rows, columns)
    if impl == 'triton':
        return kernels.launched(
            'grid_convolution',
            partial(_triton_backward, grad, needs, x, weight, rows, columns),
            partial(_backward, grad, needs, x, weight, rows, columns, 'fft'),
        )
    found = []
    if needs[0]:  # the convolution with the mirrored kernel
        mirrored = _convolve(grad, weight.flip(1, 2), rows[::-1], columns[::-1], impl)
        found.append(_as_result(mirrored, x))
    if needs[1]:
        axes, dtype = _axes(x, rows, columns), accurate_dtype(x.dtype)
        grad_weight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
        grad_weight[:, axes[0].part, axes[1].part] = ALGORITHMS[impl].weight_gradient(
            x.to(dtype), grad.to(dtype), *axes
        )
        found.append(grad_weight)
    return found


def _triton_backward(
    grad: Tensor,
    needs: list[bool],
    x: Tensor,
    weight: Tensor,
    rows: Sequence[int],
    columns: Sequence[int],
) -> list[Tensor]:
    found = (torch.empty_like(x), weight.new_empty(weight.shape))
    wanted = [t if need else None for t, need in zip(found, needs, strict=True)]
    launches.backward(grad, x, weight, rows, columns, *wanted)
    return [t for t in wanted if t is not None]


def _backward_fake(
    grad: Tensor,
    needs: list[bool],
    x: Tensor,
    weight: Tensor,
    rows: Sequence[int],
    columns: Sequence[int],
    impl: str,
) -> list[Tensor]:
    found = [_empty_result(x, impl)] if needs[0] else []
    return [*found, weight.new_empty(weight.shape)] if needs[1] else found


@custom_op(
    'hybrid_mm::grid_convolution',
    fake=lambda x, weight, rows, columns, impl: _empty_result(x, impl),
    backward=_backward,
    backward_fake=_backward_fake,
)
def convolve(
    x: Tensor, weight: Tensor, rows: Sequence[int], columns: Sequence[int], impl: str
) -> Tensor:
    """Convolve maps (N, C, H, W) with weights (C, row groups, column groups), in the type of x."""
    if impl == 'triton':
        kernels.check_available('grid_convolution', x, weight)
    impl = _chosen(impl, x, rows, columns)
    if impl == 'triton':
        return kernels.launched(
            'grid_convolution',
            lambda: launches.forward(x, weight, rows, columns, torch.empty_like(x)),
            lambda: _as_result(_convolve(x, weight, rows, columns, 'fft'), x),
        )
    return _as_result(_convolve(x, weight, rows, columns, impl), x)
