"""Operators on the meta device, which has no values, computed once for every kind of inputs."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

_results: dict[tuple, tuple] = {}


def _shape_of(value):
    """What the result depends on: of a tensor its shape, strides and type."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    return type(value), value


class Remembered(TorchDispatchMode):
    """Takes shapes from an earlier call of an operator: torch finds them in Python, slowly."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        inputs, spec = tree_flatten((args, kwargs))
        tensors = [x for x in inputs if isinstance(x, Tensor)]
        if func.is_view or func._schema.is_mutable or not all(x.is_meta for x in tensors):
            return func(*args, **kwargs or {})
        key = (func, spec, *map(_shape_of, inputs))
        try:
            found = _results.get(key)
        except TypeError:
            return func(*args, **kwargs or {})
        if found is None:
            outputs, form = tree_flatten(func(*args, **kwargs or {}))
            if all(isinstance(x, Tensor) and x.is_meta for x in outputs):
                _results[key] = [_shape_of(x) for x in outputs], form
            return tree_unflatten(outputs, form)
        shapes, form = found
        outputs = [torch.empty_strided(*s[:2], dtype=s[2], device='meta') for s in shapes]
        return tree_unflatten(outputs, form)
