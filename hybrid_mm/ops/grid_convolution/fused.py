"""Depthwise convolution in C, with taps that share weights or with single ones."""

import ctypes
import functools

import torch
from torch import Tensor

from hybrid_mm.ops import native
from hybrid_mm.ops.grid_convolution.axes import GridAxis, c_axis
from hybrid_mm.ops.precision import accurate_dtype


class _Taps(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_long) for name in ('number', 'first', 'step'))


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_long) for name in ('images', 'channels', 'height', 'width')),
        *((name, ctypes.c_long) for name in ('image', 'channel', 'row')),
        *((name, _Taps) for name in ('rows', 'columns')),
    )


def is_available(x: Tensor) -> bool:
    """Whether the compiled kernel can run: a CPU, and a compiler at hand."""
    dtype = accurate_dtype(x.dtype)
    return x.device.type == 'cpu' and native.load('grid_convolution', dtype) is not None


@functools.lru_cache(4096)
def _single_taps(axis: GridAxis) -> _Taps | None:
    """The axis as offsets at equal distances, if each has a weight of its own."""
    if any(len(group) > 1 or group[0].level for group in axis.groups):
        return None
    offsets = [block.offset for (block,) in axis.groups]
    return _Taps(len(offsets), offsets[0], offsets[1] - offsets[0] if len(offsets) > 1 else 1)


def _call(function: str, x: Tensor, other: Tensor, out: Tensor, *axes: GridAxis) -> Tensor:
    taps = [_single_taps(axis) for axis in axes]
    name = 'grid_convolution' if None in taps else 'depthwise_convolution'
    library = native.load(name, x.dtype) if x.device.type == 'cpu' else None
    if library is None:
        raise RuntimeError(
            "impl='fused' needs a C compiler and float32 or float64 numbers on a CPU, got "
            f"{x.dtype} on {x.device}: use impl='auto', which takes what there is"
        )
    if x.stride(3) != 1:
        x = x.contiguous()
    pointers = [ctypes.c_void_p(t.data_ptr()) for t in (x, other, out)]
    if None in taps:
        sizes = (ctypes.c_long(size) for size in x.shape)
        strides = (ctypes.c_long * 3)(*x.stride()[:3])
        arguments = *pointers, *sizes, strides, *(ctypes.byref(c_axis(axis)) for axis in axes)
    else:
        problem = _Problem(*x.shape, *x.stride()[:3], *taps)
        arguments = ctypes.byref(problem), *pointers
    native.call(library, function, 'grid_convolution', *arguments)
    return out


def forward(x: Tensor, weight: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    """Convolve maps (N, C, H, W) with weights (C, row groups, column groups)."""
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    return _call('forward', x, weight.contiguous(), out, rows, columns)


def weight_gradient(x: Tensor, grad: Tensor, rows: GridAxis, columns: GridAxis) -> Tensor:
    """Gradient (C, row groups, column groups) from maps and the gradient of the result."""
    out = x.new_empty(x.shape[1], len(rows.groups), len(columns.groups))
    return _call('weight_gradient', x, grad.contiguous(), out, rows, columns)
