"""Exact algorithms for depthwise convolutions with shared taps, and the operator made of them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.grid_convolution import bmm, fft, fused
from hybrid_mm.ops.grid_convolution.axes import GridAxis, grid_axis

_SMALL = 32**2  # pixels up to which box sums beat the Fourier transform on a CPU

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


def fast(x: Tensor) -> list[str]:
    """Algorithms for large kernels that can run, the likely best first."""
    names = ['bmm', 'fft']
    if x.device.type == 'cpu' and x.shape[2] * x.shape[3] > _SMALL:
        names.reverse()
    return ['fused', *names] if fused.is_available(x) else names


def _chosen(impl: str, x: Tensor) -> Algorithm:
    """The algorithm; 'auto' comes from compiled graphs, which measure nothing."""
    return ALGORITHMS[fast(x)[0] if impl == 'auto' else impl]


def _axes(x: Tensor, rows: Sequence[int], columns: Sequence[int]) -> tuple[GridAxis, GridAxis]:
    return grid_axis(tuple(rows), x.shape[2]), grid_axis(tuple(columns), x.shape[3])


def _convolve(
    x: Tensor, weight: Tensor, rows: Sequence[int], columns: Sequence[int], impl: str
) -> Tensor:
    axes = _axes(x, rows, columns)
    weight = weight[:, axes[0].part, axes[1].part]
    return _chosen(impl, x).forward(x.to(weight.dtype), weight, *axes).to(x.dtype)


def _backward(
    grad: Tensor,
    needs: list[bool],
    x: Tensor,
    weight: Tensor,
    rows: Sequence[int],
    columns: Sequence[int],
    impl: str,
) -> list[Tensor]:
    found = []
    if needs[0]:  # the convolution with the mirrored kernel
        found.append(_convolve(grad, weight.flip(1, 2), rows[::-1], columns[::-1], impl))
    if needs[1]:
        axes = _axes(x, rows, columns)
        grad_weight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
        grad_weight[:, axes[0].part, axes[1].part] = _chosen(impl, x).weight_gradient(
            x.to(weight.dtype), grad.to(weight.dtype), *axes
        )
        found.append(grad_weight)
    return found


@custom_op(
    'hybrid_mm::grid_convolution', fake=lambda x, *_: x.new_empty(x.shape), backward=_backward
)
def convolve(
    x: Tensor, weight: Tensor, rows: Sequence[int], columns: Sequence[int], impl: str
) -> Tensor:
    """Convolve maps (N, C, H, W) with weights (C, row groups, column groups), in their type."""
    return _convolve(x, weight, rows, columns, impl)
