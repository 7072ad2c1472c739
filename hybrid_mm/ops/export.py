"""Export of graphs: while one is traced, operators use torch's own operators only."""

import warnings
from collections.abc import Sequence

import torch

from hybrid_mm.compat.torch_api import exports

__all__ = ['exporting', 'numbers', 'require_fixed_size']


def exporting() -> bool:
    """Whether ``torch.export``, ``torch.jit.trace`` or an ONNX exporter traces the network.

    A traced graph runs without this package: our own operators, kernels in C and complex numbers
    stay out of it.
    """
    return torch.jit.is_tracing() or torch.onnx.is_in_onnx_export() or exports()


def numbers(size: Sequence[int]) -> tuple[int, ...]:
    """Sizes that a traced graph is laid out for, as numbers of Python.

    While ``torch.jit.trace`` runs, sizes of tensors are tensors, of which no table can be made.
    Sizes that ``torch.export`` leaves open stay so.

    Args:
        size: Some of the sizes of a tensor, not the number of images, which a graph leaves open.
    """
    if not torch.jit.is_tracing():
        return tuple(size)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        return tuple(int(n) for n in size)


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
