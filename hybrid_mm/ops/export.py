"""Export of graphs: while one is traced, operators use torch's own operators only."""

import functools
import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hybrid_mm.compat.torch_api import exports, tracer

__all__ = [
    'ceil_div',
    'example_length',
    'exporting',
    'for_one_size',
    'has_symbols',
    'known',
    'moved_on',
    'numbers',
    'once_per_graph',
    'require_fixed_size',
    'with_our_operators',
]

Arguments = ParamSpec('Arguments')
Result = TypeVar('Result')
_SHAPE = Tensor.shape.__get__  # type: ignore[attr-defined]
_our_operators = False


def exporting() -> bool:
    """Whether ``torch.export``, ``torch.jit.trace`` or an ONNX exporter traces the network.

    A traced graph runs without this package: our own operators, kernels in C and complex numbers
    stay out of it.
    """
    traced = torch.jit.is_tracing() and not _our_operators
    return traced or torch.onnx.is_in_onnx_export() or exports()


@contextmanager
def with_our_operators() -> Iterator[None]:
    """Let ``torch.jit.trace`` record our operators as they are, for what counts operators."""
    global _our_operators
    before, _our_operators = _our_operators, True
    try:
        yield
    finally:
        _our_operators = before


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


def moved_on(rows: Tensor, number: int, length: int) -> Tensor:
    """Rows of which each is further right than the one before: a band of a matrix.

    In memory whose rows are shorter than these, each row begins where the one before has not ended.

    Args:
        rows: (N, G, T * number, L), with zeros at the end of each.
        number: How many rows make a band.
        length: Of the band in memory, at most number * L: in rows of length / number, each row is
            L - length / number further right than the one before.

    Returns:
        (N, G, T, length).
    """
    return rows.unflatten(2, (-1, number)).flatten(3, 4)[..., :length]


class _Numbers(TorchFunctionMode):
    """Sizes of tensors are numbers, but for the first, which counts the images.

    Axes are divided by ``reshape``: after ``unflatten``, the older ONNX exporter takes the number
    of images for that of the example.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func in (Tensor.unflatten, torch.unflatten):
            return _divided(*args, **kwargs or {})
        found = func(*args, **kwargs or {})
        if func in (_SHAPE, Tensor.size) and isinstance(found, tuple):
            return torch.Size([*found[:1], *numbers(found[1:])])
        if func == Tensor.size:
            (dim,) = *args[1:], *(kwargs or {}).values()
            return found if dim in (0, -args[0].ndim) else numbers([found])[0]
        return found


def _divided(x: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """``Tensor.unflatten`` by ``reshape``; see :class:`_Numbers`."""
    before, dim = [*x.shape[:1], *numbers(x.shape[1:])], dim % x.ndim
    return x.reshape(*before[:dim], *sizes, *before[dim + 1 :])


def for_one_size(function: Callable[[Tensor], Result], x: Tensor) -> Result:
    """Call a function of images while ``torch.jit.trace`` records it, for images of this size.

    The sizes of tensors, which would be tensors, are numbers, so that index tables can be made, and
    exporters do not divide them in their own way. The graph takes any number of images; given
    another height or width, it raises an error.

    Args:
        function: Function of the images.
        x: Images (N, C, H, W).

    Returns:
        What the function returns.
    """
    with _Numbers():
        return function(x.expand(-1, *x.shape[1:]))


def has_symbols(size: Sequence[int]) -> bool:
    """Whether the graph that is traced leaves the height or width of a map open.

    Args:
        size: Height and width.
    """
    return any(isinstance(n, torch.SymInt) for n in size)


def ceil_div(length: int, step: int) -> int:
    """A length divided by a step, rounded up.

    The usual ``-(-length // step)`` is wrong in ONNX files: there, quotients of negative numbers
    are rounded towards zero.

    Args:
        length: At least 1; may be symbolic.
        step: At least 1.
    """
    return (length + step - 1) // step


def known(number: int) -> int | None:
    """A number that may be symbolic: its value if that is the same for all sizes, else None.

    Args:
        number: The number.
    """
    return number.node.maybe_as_int() if isinstance(number, torch.SymInt) else number


def example_length(length: int) -> int:
    """A length that may be symbolic, at the example that is traced.

    What depends on it must be right for any length.

    Args:
        length: The length.
    """
    return int(length.node.hint if isinstance(length, torch.SymInt) else length)


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
        graph = tracer()
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
