"""Export of graphs: while one is traced, operators use torch's own operators only."""

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch.fx.experimental.proxy_tensor import get_proxy_mode

from hybrid_mm.compat.torch_api import exports

__all__ = ['exporting', 'has_symbols', 'once_per_graph', 'parts', 'require_fixed_size']

Arguments = ParamSpec('Arguments')
Result = TypeVar('Result')


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


def once_per_graph(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Let the layers of a graph that ``torch.export`` traces share tables.

    With symbolic sizes, to trace an operator takes tens of milliseconds, even on a table of ten
    numbers. Everywhere else the function is called anew.

    Args:
        function: Function of numbers, sizes, types and devices, that changes nothing.
    """
    graphs: WeakKeyDictionary[Any, dict[Hashable, Result]] = WeakKeyDictionary()

    @functools.wraps(function)
    def shared(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        graph = get_proxy_mode()
        if graph is None:
            return function(*args, **kwargs)
        known = graphs.setdefault(graph, {})
        key = tuple(x.node.expr if isinstance(x, torch.SymInt) else x for x in args)
        key = key, tuple(sorted(kwargs.items()))
        if key not in known:
            known[key] = function(*args, **kwargs)
        return known[key]

    return shared


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
