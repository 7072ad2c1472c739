"""Types of numbers: sections that stay accurate, and what autocast makes of tensors."""

import contextlib

import torch
from torch import Tensor

from hybrid_mm.compat.torch_api import get_autocast_dtype, is_autocast_enabled

__all__ = [
    'accurate',
    'accurate_dtype',
    'cast_as_autocast',
    'multiplies_accurately',
    'no_autocast',
    'no_wider',
]


def no_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Context without autocast for the device of a tensor.

    Args:
        x: A tensor on that device.
    """
    if x.device.type == 'meta':  # shapes alone, as complexity is counted, have no autocast
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def accurate_dtype(dtype: torch.dtype) -> torch.dtype:
    """Type to sum up in: float32, or float64 for float64.

    Args:
        dtype: Type of floating-point numbers.
    """
    return torch.float64 if dtype == torch.float64 else torch.float32


def accurate(x: Tensor) -> Tensor:
    """The tensor in :func:`accurate_dtype` of its type.

    Args:
        x: Tensor of floating-point numbers.
    """
    return x.to(accurate_dtype(x.dtype))


def no_wider(x: Tensor, parameter: Tensor) -> Tensor:
    """The tensor, rounded to the type of a parameter if that is narrower.

    Under autocast parameters have float32: numbers stay as they are. In a network that is all in
    half precision, layers take no float32.

    Args:
        x: The tensor.
        parameter: A parameter of the layer that takes it.
    """
    return x.to(parameter.dtype) if parameter.element_size() < x.element_size() else x


def multiplies_accurately(x: Tensor) -> bool:
    """Whether ``torch.bmm`` of such tensors takes ``out_dtype=torch.float32``.

    Tensor cores sum up products of half-precision numbers in float32; the result then neither
    overflows nor is rounded, and nothing has to be cast to float32 before.

    Args:
        x: One of the factors.
    """
    # torch 2.8 or newer
    known = torch.version.hip is None and 'dtype' in torch.ops.aten.bmm.overloads()
    return x.is_cuda and x.dtype in (torch.float16, torch.bfloat16) and known


def cast_as_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors as autocast, where it is on, hands them to a matrix product.

    As there, float64 stays.

    Args:
        *tensors: Tensors on one device.
    """
    device = tensors[0].device.type
    if device == 'meta' or not is_autocast_enabled(device):
        return tensors
    dtype = get_autocast_dtype(device)
    eligible = (x.is_floating_point() and x.dtype != torch.float64 for x in tensors)
    return tuple(x.to(dtype) if cast else x for x, cast in zip(tensors, eligible, strict=True))
