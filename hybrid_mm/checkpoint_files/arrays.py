"""Arrays that other libraries store, as tensors."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

# types that NumPy has only with the package ml_dtypes
_OTHERS = {
    name: getattr(torch, name)
    for name in ['bfloat16', 'float8_e4m3fn', 'float8_e4m3fnuz', 'float8_e5m2', 'float8_e5m2fnuz']
    if hasattr(torch, name)  # torch < 2.2 lacks two
}
_NUMBERS = 'biufc'  # kinds of NumPy's types: booleans, integers, floating-point, complex


def tensor_of(
    data: bytes | bytearray | memoryview, dtype: str, shape: Sequence[int], order: str = 'C'
) -> Any:
    """Make a tensor of the bytes of an array.

    Args:
        data: The numbers.
        dtype: NumPy's name or code of their type ('float32', '<f4', '|b1'), or 'bfloat16' and the
            types of 8 bits that JAX knows.
        shape: Shape of the array.
        order: 'C', or 'F' if the first index runs fastest.

    Returns:
        A tensor with memory of its own; (nested lists of) strings for arrays of strings.

    Raises:
        ValueError: The type is none of numbers or strings, or the bytes are more or fewer than the
            shape has.
    """
    shape = tuple(shape)
    if not all(isinstance(n, int) and n >= 0 for n in shape) or len(shape) > 32:
        raise ValueError(f'an array has the shape {shape}')
    other = _OTHERS.get(dtype.lstrip('<=|'))
    try:
        known = np.dtype(np.uint8 if other else dtype)
    except TypeError as error:
        raise ValueError(f'an array has the type {dtype!r}, which is not known') from error
    if known.kind not in _NUMBERS + 'US' or known.subdtype:
        raise ValueError(f'an array has the type {dtype!r}; expected numbers')
    itemsize = other.itemsize if other else known.itemsize
    if math.prod(shape) * itemsize != len(data):
        raise ValueError(f'an array of {dtype} {shape} has {len(data)} bytes')
    if other:
        values = (
            torch.frombuffer(bytearray(data), dtype=other) if data else torch.empty(0).to(other)
        )
        return _shaped(values, shape, order)
    array = np.frombuffer(data, known) if data else np.empty(0, known)
    if known.kind in 'US':
        return array.reshape(shape, order='F' if order == 'F' else 'C').tolist()
    return _shaped(from_numpy(array), shape, order)


def _shaped(values: Tensor, shape: tuple[int, ...], order: str) -> Tensor:
    if order != 'F':
        return values.reshape(shape)
    return values.reshape(shape[::-1]).permute(*reversed(range(len(shape)))).contiguous()


def from_numpy(array: np.ndarray) -> Tensor:
    """Copy an array of numbers, of any byte order, to a tensor.

    Raises:
        ValueError: torch has no such type.
    """
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder('='), copy=True))
    except TypeError as error:
        raise ValueError(f'an array has the type {array.dtype}, which torch lacks') from error


def replaced(tree: Any, replace: Callable[[Any], Any]) -> Any:
    """Copy nested dicts, lists and tuples with every other value replaced.

    A container that is at several places, as a malicious file may have it at billions of them, is
    copied once.

    Raises:
        ValueError: A container is within itself.
    """
    done: dict[int, Any] = {}
    inside: set[int] = set()

    def visit(node: Any) -> Any:
        if not isinstance(node, dict | list | tuple):
            return replace(node)
        if id(node) in done:
            return done[id(node)]
        if id(node) in inside:
            raise ValueError('a container is within itself')
        inside.add(id(node))
        if isinstance(node, dict):
            new: Any = {key: visit(value) for key, value in node.items()}
        else:
            new = [visit(value) for value in node]
            new = tuple(new) if isinstance(node, tuple) else new
        inside.discard(id(node))
        done[id(node)] = new
        return new

    return visit(tree)
