"""Depthwise convolution with shared taps in one pass over every map, in C."""

import ctypes

import torch
from torch import Tensor

from hybrid_mm.ops import native
from hybrid_mm.ops.grid_convolution.axes import GridAxis, c_axis
from hybrid_mm.ops.precision import accurate_dtype


def is_available(x: Tensor) -> bool:
    """Whether the compiled kernel can run: a CPU, and a compiler at hand."""
    dtype = accurate_dtype(x.dtype)
    return x.device.type == 'cpu' and native.load('grid_convolution', dtype) is not None


def _call(function: str, x: Tensor, other: Tensor, out: Tensor, *axes: GridAxis) -> Tensor:
    library = native.load('grid_convolution', x.dtype) if x.device.type == 'cpu' else None
    if library is None:
        raise RuntimeError(
            "impl='fused' needs a C compiler and float32 or float64 numbers on a CPU, got "
            f"{x.dtype} on {x.device}: use impl='auto', which takes what there is"
        )
    if x.stride(3) != 1:
        x = x.contiguous()
    n, channels, height, width = (ctypes.c_long(size) for size in x.shape)
    done = getattr(library, function)(
        *(ctypes.c_void_p(t.data_ptr()) for t in (x, other, out)),
        n,
        channels,
        height,
        width,
        (ctypes.c_long * 3)(*x.stride()[:3]),
        *(ctypes.byref(c_axis(axis)) for axis in axes),
        torch.get_num_threads(),
    )
    if not done:
        raise MemoryError('grid_convolution: no memory for the working space of a thread')
    return out


def forward(x: Tensor, weight: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    """Convolve maps (N, C, H, W) with weights (C, row groups, column groups)."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    return _call('forward', x, weight.contiguous(), out, rows, columns)


def weight_gradient(x: Tensor, grad: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    """Gradient (C, row groups, column groups) from maps and the gradient of the result."""
    out = x.new_empty(x.shape[1], len(rows.groups), len(columns.groups))
    return _call('weight_gradient', x, grad.contiguous(), out, rows, columns)
