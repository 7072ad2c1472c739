"""Export of graphs: while one is traced, operators use torch's own operators only."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hybrid_mm.compat.torch_api import exports

__all__ = ['exporting', 'for_one_size', 'require_fixed_size']

R = TypeVar('R')
_SHAPE = Tensor.shape.__get__


def exporting() -> bool:
    """Whether ``torch.export``, ``torch.jit.trace`` or an ONNX exporter traces the network.

    A traced graph runs without this package: our own operators, kernels in C and complex numbers
    stay out of it.
    """
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or exports()


class _Numbers(TorchFunctionMode):
    """Sizes of tensors are numbers, but for the first, which counts the images.

    While ``torch.jit.trace`` runs they are tensors, of which no table can be made, and which no
    exporter divides as Python does.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        found = func(*args, **kwargs or {})
        if func == _SHAPE or (func == Tensor.size and isinstance(found, tuple)):
            return torch.Size([*found[:1], *map(_number, found[1:])])
        if func == Tensor.size and {*args[1:], *(kwargs or {}).values()}.isdisjoint({0, -args[0].ndim}):
            return _number(found)
        return found


def _number(size: int | Tensor) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        return int(size)


def for_one_size(function: Callable[[Tensor], R], x: Tensor) -> R:
    """Call a function of images while ``torch.jit.trace`` records it, for images of this size.

    The graph takes any number of images. Given another height or width it raises an error.

    Args:
        function: Function of the images.
        x: Images (N, C, H, W).

    Returns:
        What the function returns.
    """
    with _Numbers():
        return function(x.expand(-1, *x.shape[1:]))


def require_fixed_size(size: Sequence[int], operator: str) -> None:
    """Check that the size of a map is known if the network is being exported.

    Args:
        size: Height and width.
        operator: What needs to know it, for the message.

    Raises:
        ValueError: One of them is dynamic.
    """
    if exporting() and any(isinstance(n, torch.SymInt) for n in size):
        raise ValueError(
            f'{operator} is laid out for one size of the map; export it for a fixed height and '
            'width'
        )
