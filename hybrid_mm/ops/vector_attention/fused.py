"""The weighted sum of taps in C, for windows of stride 1."""

import ctypes

import torch
from torch import Tensor

from hybrid_mm.ops import native
from hybrid_mm.ops.precision import accurate_dtype


def is_available(x: Tensor, stride: int) -> bool:
    """Whether the compiled kernel can run, in the accurate type of x: a CPU, and a compiler."""
    return stride == 1 and x.device.type == 'cpu' and _library(x) is not None


def _library(x: Tensor) -> ctypes.CDLL | None:
    return native.load('aggregate_taps', accurate_dtype(x.dtype))


def _call(function: str, weights: Tensor, values: Tensor, dilation: int, *tensors: Tensor) -> None:
    """Call a function of the kernel with tensors and the sizes of weights and values."""
    library = _library(tensors[0])
    assert library is not None
    images, groups, taps, height, width = weights.shape
    _, channels, high, wide = values.shape
    kernel = round(taps**0.5)
    numbers = images, channels, groups, height, width, kernel, dilation, high, wide
    sizes = (ctypes.c_long * 9)(*numbers)
    pointers = (ctypes.c_void_p(t.data_ptr()) for t in tensors)
    getattr(library, function)(*pointers, sizes, torch.get_num_threads())


def forward(weights: Tensor, values: Tensor, dilation: int) -> Tensor:
    """Sums (N, C, H', W') of values (N, C, H, W), by weights (N, G, k^2, H', W')."""
    weights, values = weights.contiguous(), values.contiguous()
    out = values.new_empty(*values.shape[:2], *weights.shape[3:])
    _call('forward', weights, values, dilation, values, weights, out)
    return out


def backward(grad: Tensor, weights: Tensor, values: Tensor, dilation: int) -> tuple[Tensor, Tensor]:
    """Gradients of weights and values."""
    grad, weights, values = (x.contiguous() for x in (grad, weights, values))
    of_weights, of_values = torch.empty_like(weights), torch.zeros_like(values)
    _call('weight_gradient', weights, values, dilation, values, grad, of_weights)
    _call('value_gradient', weights, values, dilation, weights, grad, of_values)
    return of_weights, of_values
