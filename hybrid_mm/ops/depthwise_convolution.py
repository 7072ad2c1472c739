"""Depthwise convolution with a small or a dilated kernel, as in large kernel attention.

On CPUs torch computes dilated depthwise convolutions, and the gradients of most others, without its
fast library. Offsets of taps are free in our kernel in C, so that it takes those. Which one takes
the others was decided in whole networks: alone, torch's time for a 3 x 3 kernel varies up to 10
times from one process to the next.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.dispatch import resolve
from hybrid_mm.ops.export import numbers
from hybrid_mm.ops.grid_convolution import fused
from hybrid_mm.ops.grid_convolution.axes import Block, GridAxis
from hybrid_mm.ops.precision import accurate_dtype, cast_as_autocast

__all__ = ['depthwise_convolution']

_TAPS = 25  # from which on the gradients of a kernel without dilation are faster in C
_PIXELS = 40**2  # of a map from which on smaller kernels are, forward as well


def depthwise_convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: Sequence[int] = (1, 1),
    impl: str = 'auto',
) -> Tensor:
    """Depthwise convolution with stride 1 and zero padding that keeps height and width.

    What is ``F.conv2d(x, weight, bias, 1, padding, dilation, C)``. Kept for the backward pass are x
    and the weights. In half precision the kernel in C sums up in float32.

    Args:
        x: (N, C, H, W), of any strides, also smaller than the kernel.
        weight: (C, 1, height, width) with odd height and width.
        bias: (C,), or None.
        dilation: Distances of neighbouring taps along columns and rows.
        impl: 'fused' (CPU only: a kernel in C, compiled at its first use, for what it is faster
            at: kernels that are dilated along rows, smaller ones on maps of 40 x 40 pixels and
            more, and the gradients of all that are dilated or have at least 25 taps; torch's own
            for everything else), 'reference' (torch's own), or 'auto', which is 'fused' where there
            is a CPU and a compiler.

    Returns:
        (N, C, H, W) with the strides that ``torch.empty_like(x)`` has.

    Raises:
        ValueError: Shapes that do not fit, an even kernel, or an unknown impl.
        RuntimeError: 'fused' without a compiler or away from the CPU.
    """
    dilation = tuple(int(d) for d in dilation)
    channels, one, height, width = numbers(weight.shape) if weight.ndim == 4 else (0,) * 4
    if x.ndim != 4 or (channels, one) != (x.shape[1], 1) or height * width % 2 == 0:
        raise ValueError(
            'a depthwise convolution takes x (N, C, H, W) and weight (C, 1, height, width) with '
            f'odd height and width, got x {tuple(x.shape)} and weight {tuple(weight.shape)}'
        )
    if len(dilation) != 2 or min(dilation) < 1:
        raise ValueError(f'dilation must be two numbers of at least 1, got {dilation}')
    impl = resolve(impl, 'depthwise_convolution', lambda: _fastest(x))
    if impl == 'fused' and not fused.is_available(x):
        raise RuntimeError(
            "impl='fused' of depthwise_convolution needs a CPU and a C compiler, got x on "
            f"{x.device}: use impl='auto', which takes what there is"
        )
    small = min(height, width) > 1 and height * width < _TAPS
    forward = dilation[1] > 1 < width or (small and x.shape[2] * x.shape[3] >= _PIXELS)
    in_c = forward
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        in_c |= dilation[0] > 1 < height or height * width >= _TAPS
    if impl == 'reference' or not in_c:
        return _convolve(x, weight, bias, dilation)
    x, weight = cast_as_autocast(x, weight)
    return _operator(x, weight, None if bias is None else bias.to(x.dtype), dilation, forward)


def _fastest(x: Tensor) -> str:
    return 'auto' if x.device.type == 'cpu' else 'reference'  # the operator looks for a compiler


def _padding(weight: Tensor, dilation: Sequence[int]) -> list[int]:
    return [d * (k // 2) for d, k in zip(dilation, weight.shape[2:], strict=True)]


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: Sequence[int]) -> Tensor:
    """Torch's own."""
    padding = _padding(weight, dilation)
    return F.conv2d(x, weight, bias, 1, padding, list(dilation), len(weight))


@lru_cache(4096)
def _axis(taps: int, dilation: int, size: int) -> GridAxis:
    """Offsets of a kernel on an axis, without those that leave a map of a size from everywhere."""
    offsets = [dilation * (i - taps // 2) for i in range(taps)]
    groups = tuple((Block(0, offset),) for offset in offsets if abs(offset) < size)
    return GridAxis((taps - len(groups)) // 2, groups)


def _axes(x: Tensor, weight: Tensor, dilation: Sequence[int]) -> tuple[GridAxis, GridAxis]:
    rows, columns = (
        _axis(*sizes) for sizes in zip(weight.shape[2:], dilation, x.shape[2:], strict=True)
    )
    return rows, columns


def _in_c(x: Tensor, weight: Tensor, dilation: Sequence[int]) -> Tensor:
    """Convolve by the kernel in C."""
    dtype, (rows, columns) = accurate_dtype(x.dtype), _axes(x, weight, dilation)
    weight = weight[:, 0, rows.part, columns.part].to(dtype)
    return fused.forward(x.to(dtype), weight, rows, columns).to(x.dtype)


def _backward(
    grad: Tensor,
    needs: list[bool],
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dilation: Sequence[int],
    forward_in_c: bool,
) -> list[Tensor]:
    found = (_backward_in_c if fused.is_available(x) else _backward_by_torch)(
        grad, needs[:2], x, weight, dilation
    )
    return [*found, grad.sum((0, 2, 3))] if needs[2] else found


def _backward_in_c(
    grad: Tensor, needs: list[bool], x: Tensor, weight: Tensor, dilation: Sequence[int]
) -> list[Tensor]:
    found = []
    if needs[0]:  # the convolution with the mirrored kernel
        found.append(_in_c(grad, weight.flip(2, 3), dilation))
    if needs[1]:
        dtype, (rows, columns) = accurate_dtype(x.dtype), _axes(x, weight, dilation)
        grad_weight = torch.zeros_like(weight, memory_format=torch.contiguous_format)
        grad_weight[:, 0, rows.part, columns.part] = fused.weight_gradient(
            x.to(dtype), grad.to(dtype), rows, columns
        ).to(weight.dtype)
        found.append(grad_weight)
    return found


def _backward_by_torch(
    grad: Tensor, needs: list[bool], x: Tensor, weight: Tensor, dilation: Sequence[int]
) -> list[Tensor]:
    padding = _padding(weight, dilation)
    found = torch.ops.aten.convolution_backward(
        grad,
        x,
        weight,
        None,
        (1, 1),
        padding,
        dilation,
        False,
        (0, 0),
        len(weight),
        (*needs, False),
    )
    return [g.contiguous() for g, need in zip(found, needs, strict=False) if need]


@custom_op(
    'hybrid_mm::depthwise_convolution',
    fake=lambda x, *_: torch.empty_like(x),
    backward=_backward,
)
def _operator(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilation: Sequence[int], forward_in_c: bool
) -> Tensor:
    """Convolve maps in their type."""
    if not (forward_in_c and fused.is_available(x)):
        out = _convolve(x, weight, bias, dilation)
    else:
        out = _in_c(x, weight, dilation)
        if bias is not None:
            out += bias[:, None, None]
    return out if out.stride() == torch.empty_like(x).stride() else torch.empty_like(x).copy_(out)
