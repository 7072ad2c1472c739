"""The convolution path of ACmix in C, for CPUs: mixed maps stay in the cache."""

import ctypes

import torch
from torch import Tensor

from hybrid_mm.ops import native
from hybrid_mm.ops.precision import accurate_dtype

_BAND = 2**17  # bytes of mixed maps that a thread works on at once


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_long) for name in ('images', 'maps', 'dim', 'outputs', 'mixed')),
        *((name, ctypes.c_long) for name in ('kernel', 'stride', 'height', 'width')),
        *((name, ctypes.c_long) for name in ('rows', 'columns', 'band')),
        *((name, ctypes.c_void_p) for name in ('x', 'fc', 'bias', 'weight', 'grad')),
    )


class _Gradients(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ('x', 'fc', 'bias', 'weight'))


@torch.compiler.assume_constant_result  # compiled graphs need not trace how this is found out
def is_available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is a kernel for tensors of this device and type."""
    return device.type == 'cpu' and native.load('mixed_shift', accurate_dtype(dtype)) is not None


def forward(x: Tensor, fc: Tensor, bias: Tensor | None, weight: Tensor, stride: int) -> Tensor:
    """Outputs (N, d * n, H', W') of :func:`~.tiled.mix_and_shift`.

    Args:
        x: (N, M, d, H, W), of any strides.
        fc: (P, M).
        bias: (P,) or None.
        weight: (d, n, P, k, k).
        stride: Distance of the outputs in pixels.

    Raises:
        MemoryError: No memory for the working space.
    """
    call = _Call(x, fc, bias, weight, stride)
    out = call.x.new_empty(len(x), x.shape[2] * weight.shape[1], *call.size)
    call.run('forward', ctypes.c_void_p(out.data_ptr()))
    return out.to(x.dtype)


def backward(
    grad: Tensor, x: Tensor, fc: Tensor, bias: Tensor | None, weight: Tensor, stride: int
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Gradients of x, contiguous, fc, bias and weight, from that of the output."""
    call = _Call(x, fc, bias, weight, stride)
    grad = grad.to(call.x.dtype).contiguous()
    call.problem.grad = grad.data_ptr()
    of_x = torch.empty_like(call.x)
    of_fc, of_weight = torch.zeros_like(call.fc), torch.zeros_like(call.weight)
    of_bias = None if call.bias is None else torch.zeros_like(call.bias)
    pointers = map(_address, (of_x, of_fc, of_bias, of_weight))
    call.run('backward', ctypes.byref(_Gradients(*pointers)))
    if of_bias is not None and bias is not None:
        of_bias = of_bias.to(bias.dtype)
    return of_x.to(x.dtype), of_fc.to(fc.dtype), of_bias, of_weight.to(weight.dtype)


class _Call:
    """Arguments of the kernel that both passes have."""

    def __init__(
        self, x: Tensor, fc: Tensor, bias: Tensor | None, weight: Tensor, stride: int
    ) -> None:
        dtype = accurate_dtype(x.dtype)
        library = native.load('mixed_shift', dtype)
        assert library is not None
        self.library = library
        images, maps, dim, height, width = x.shape
        self.x = _planes(x.to(dtype))
        self.fc, self.weight = (t.to(dtype).contiguous() for t in (fc, weight))
        self.bias = None if bias is None else bias.to(dtype).contiguous()
        outputs, mixed, kernel = weight.shape[1:4]
        self.size = tuple(-(-length // stride) for length in (height, width))
        band = max(4, _BAND // (mixed * stride * (width + kernel) * dtype.itemsize))
        tensors = self.x, self.fc, self.bias, self.weight, None
        sizes = images, maps, dim, outputs, mixed, kernel, stride, height, width, *self.size, band
        self.problem = _Problem(*sizes, *map(_address, tensors))

    def run(self, name: str, target: object) -> None:
        """Call the kernel's function of that name."""
        native.call(self.library, name, 'mixed_shift', ctypes.byref(self.problem), target)


def _planes(x: Tensor) -> Tensor:
    """Maps (N, M, d, H, W) as planes that lie side by side."""
    if x.stride(4) == 1 or x.shape[4] == 1:
        return x.contiguous()
    images, maps, dim, height, width = x.shape
    # tokens: plain transpositions are the fastest way
    tokens = x.permute(0, 3, 4, 1, 2).reshape(images, height * width, maps * dim)
    return tokens.transpose(1, 2).contiguous().view(x.shape)


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
