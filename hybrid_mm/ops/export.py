"""Export of graphs: while one is traced, operators use torch's own operators only."""

from collections.abc import Sequence

import torch

from hybrid_mm.compat.torch_api import exports

__all__ = ['exporting', 'has_symbols', 'parts', 'require_fixed_size']


def exporting() -> bool:
    """Whether ``torch.export`` or an ONNX exporter traces the network.

    An exported graph runs without this package: our own operators, kernels in C and complex
    numbers stay out of it.
    """
    return torch.onnx.is_in_onnx_export() or exports()


def has_symbols(size: Sequence[int]) -> bool:
    """Whether the graph that is traced leaves the height or width of a map open.

    Args:
        size: Height and width.
    """
    return any(isinstance(n, torch.SymInt) for n in size)


def parts(length: int, size: int) -> int:
    """Number of parts of a length, the last of which may be shorter, in exported graphs as well.

    The ONNX exporter of torch rounds quotients of symbolic sizes towards zero, so that the common
    ``-(-length // size)`` is one too few there.

    Args:
        length: The length, which may be symbolic.
        size: Length of a part.
    """
    return (length + size - 1) // size


def require_fixed_size(size: Sequence[int], operator: str) -> None:
    """Check that the size of a map is known if the network is being exported.

    Args:
        size: Height and width.
        operator: What needs to know it, for the message.

    Raises:
        ValueError: One of them is dynamic.
    """
    if exporting() and has_symbols(size):
        raise ValueError(
            f'{operator} is laid out for one size of the map; export it for a fixed height and '
            'width'
        )
