"""ELSA's attention in C, for CPUs: weights stay in registers and in the nearest cache."""

import ctypes

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops import native
from hybrid_mm.ops.precision import accurate_dtype


class _Map(ctypes.Structure):
    _fields_ = (
        ('data', ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ('image', 'channel', 'row', 'column')),
    )


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_long) for name in ('images', 'channels', 'hidden', 'heads', 'kernel')),
        *((name, ctypes.c_long) for name in ('dilation', 'height', 'width', 'high', 'wide')),
        ('band', ctypes.c_long),
        *((name, ctypes.c_void_p) for name in ('weight', 'bias')),
        ('active', _Map),
        ('values', ctypes.c_void_p),
        ('grad', _Map),
    )


class _Gradients(ctypes.Structure):
    _fields_ = (
        ('active', _Map),
        *((name, ctypes.c_void_p) for name in ('values', 'weight', 'bias')),
    )


@torch.compiler.assume_constant_result  # compiled graphs need not trace how this is found out
def is_available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is a kernel for tensors of this device and type."""
    return (
        device.type == 'cpu' and native.load('ghost_attention', accurate_dtype(dtype)) is not None
    )


def forward(
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    heads: int,
    kernel_size: int,
    dilation: int,
) -> Tensor:
    """Attention (N, C, H, W), channels last in memory; W is dense, (heads * k^2, D).

    Raises:
        MemoryError: No memory for the working space.
    """
    call = _Call(v, weight, bias, heads, kernel_size, dilation)
    active = F.gelu(hidden.to(call.dtype))
    call.problem.active = _map(active)
    out = torch.empty_like(v, dtype=call.dtype, memory_format=torch.channels_last)
    call.run('forward', _map(out))
    return out.to(v.dtype)


def backward(
    grad: Tensor,
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    heads: int,
    kernel_size: int,
    dilation: int,
) -> list[Tensor]:
    """Gradients of the first four arguments of :func:`forward` from that of the output."""
    call = _Call(v, weight, bias, heads, kernel_size, dilation)
    # torch 2.1 is wrong where the strides of a gelu's input and gradient differ
    raw = hidden.to(call.dtype).contiguous(memory_format=torch.channels_last)
    grad, active = grad.to(call.dtype), F.gelu(raw)
    call.problem.active, call.problem.grad = _map(active), _map(grad)
    of_active = torch.empty_like(raw)
    of_values, of_weight, of_bias = (
        torch.zeros_like(x) for x in (call.values, call.weight, call.bias)
    )
    pointers = (x.data_ptr() for x in (of_values, of_weight, of_bias))
    call.run('backward', _Gradients(_map(of_active), *pointers))
    of_hidden = torch.ops.aten.gelu_backward(of_active, raw)
    of_v = call.inner(of_values).to(v.dtype)
    return [
        of_hidden.to(hidden.dtype).contiguous(memory_format=torch.channels_last),
        of_v.contiguous(memory_format=torch.channels_last),
        of_weight[:, : weight.shape[1]].to(weight.dtype).contiguous(),
        of_bias.to(bias.dtype),
    ]


class _Call:
    """Arguments of the kernel that both passes have."""

    def __init__(
        self, v: Tensor, weight: Tensor, bias: Tensor, heads: int, kernel_size: int, dilation: int
    ) -> None:
        self.dtype = accurate_dtype(v.dtype)
        library = native.load('ghost_attention', self.dtype)
        assert library is not None
        self.library = library
        images, channels, height, width = v.shape
        lanes = library.lanes()
        reach = kernel_size // 2 * dilation
        high, wide = height + 2 * reach, -(-width // lanes) * lanes + 2 * reach
        self.inside = slice(reach, reach + height), slice(reach, reach + width)
        self.values = v.new_zeros(images, channels, high, wide, dtype=self.dtype)
        self.inner(self.values).copy_(v)
        hidden = weight.shape[1]
        deep = -(-hidden // lanes) * lanes
        self.weight = F.pad(weight.to(self.dtype), (0, deep - hidden)).contiguous()
        self.bias = bias.to(self.dtype).contiguous()
        sizes = images, channels, hidden, heads, kernel_size, dilation, height, width, high, wide
        # bands two apart see no value in common
        pointers = self.weight.data_ptr(), self.bias.data_ptr()
        self.problem = _Problem(*sizes, max(4, 2 * reach), *pointers)
        self.problem.values = self.values.data_ptr()

    def inner(self, padded: Tensor) -> Tensor:
        """The map within its border."""
        return padded[:, :, self.inside[0], self.inside[1]]

    def run(self, name: str, target: ctypes.Structure) -> None:
        """Call the kernel's function of that name."""
        native.call(
            self.library, name, 'ghost_attention', ctypes.byref(self.problem), ctypes.byref(target)
        )


def _map(x: Tensor) -> _Map:
    return _Map(x.data_ptr(), *x.stride())
