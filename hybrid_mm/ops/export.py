"""Export of graphs: while one is traced, operators use torch's own operators only."""

from collections.abc import Sequence

import torch

from hybrid_mm.compat.torch_api import exports

__all__ = ['ceil_div', 'exporting', 'has_symbols', 'known', 'require_fixed_size']


def exporting() -> bool:
    """Whether ``torch.export`` or an ONNX exporter traces the network.

    An exported graph runs without this package: our own operators, kernels in C and complex
    numbers stay out of it.
    """
    return torch.onnx.is_in_onnx_export() or exports()


def ceil_div(length: int, step: int) -> int:
    """A length divided by a step, rounded up.

    The usual ``-(-length // step)`` is wrong in ONNX files: there, quotients of negative numbers
    are rounded towards zero.

    Args:
        length: At least 1; may be symbolic.
        step: At least 1.
    """
    return (length + step - 1) // step


def has_symbols(size: Sequence[int]) -> bool:
    """Whether the graph that is traced leaves the height or width of a map open.

    Args:
        size: Height and width.
    """
    return any(isinstance(n, torch.SymInt) for n in size)


def known(number: int) -> int | None:
    """A number that may be symbolic: its value if that is the same for all sizes, else None.

    Args:
        number: The number.
    """
    return number.node.maybe_as_int() if isinstance(number, torch.SymInt) else number


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
