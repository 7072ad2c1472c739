"""Builds networks without the memory and the time of large weights, and without chance."""

import contextlib
import functools
import logging
import math
import re
from collections.abc import Iterator
from unittest import mock

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

SMALL = 4096
"""Elements up to which a tensor has values: vectors, rates of drop paths."""

_SIZED = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
_FILLS = {
    getattr(nn.init, name) for name in dir(nn.init) if re.fullmatch(r'[a-z]\w*[a-z]_', name)
} | {getattr(Tensor, name) for name in ('normal_', 'uniform_', 'fill_', 'zero_', 'bernoulli_')}


def _elements(size: tuple) -> int:
    if len(size) == 1 and not isinstance(size[0], int):
        (size,) = size
    return math.prod(size)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """MMEngine logs what it does to every single weight."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class Shapes(TorchFunctionMode):
    """Large tensors are made on the meta device, where nothing fills them.

    Args:
        small: Elements up to which a tensor has values.
        fill: Give these their initial values; without, they hold anything.
    """

    def __init__(self, small: float = SMALL, fill: bool = True) -> None:
        super().__init__()
        self.small = small
        self.fill = fill

    def __enter__(self):
        # torch's draws until all is within the bounds
        filler = _truncated if self.fill else lambda tensor, *args, **kwargs: tensor
        self.patch = mock.patch.object(nn.init, '_no_grad_trunc_normal_', filler)
        self.patch.start()
        return super().__enter__()

    def __exit__(self, *args):
        self.patch.stop()
        return super().__exit__(*args)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _SIZED and kwargs.get('device') is None:
            size = kwargs.get('size', args[:1] if func is torch.full else args)
            if _elements(size) > self.small:
                kwargs = {**kwargs, 'device': 'meta'}
        elif func in _FILLS:
            tensor = args[0] if args else kwargs['tensor']
            if tensor.is_meta or not self.fill:
                return tensor
        elif func == Tensor.data.__set__ and args[0].is_meta != args[1].is_meta:
            return None
        elif func is Tensor.cpu and args[0].is_meta:  # MMEngine watches the means of all weights
            return torch.zeros(args[0].shape)
        return func(*args, **kwargs)


@functools.cache
def _levels(n: int) -> Tensor:
    """Evenly spaced levels within (0, 1) in a mixed order."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(n))
    return (order + 0.5) / n


def _fill(tensor: Tensor, quantile) -> Tensor:
    """Fill with the quantiles of a distribution; large tensors repeat some."""
    levels = quantile(_levels(min(tensor.numel(), 1 << 16)).double()).to(tensor.dtype)
    times = -(-tensor.numel() // max(len(levels), 1))
    return tensor.copy_(levels.repeat(times)[: tensor.numel()].view(tensor.shape))


def _normal(mean: float, std: float, low: float = 0.0, high: float = 1.0):
    return lambda levels: mean + std * torch.special.ndtri(low + (high - low) * levels)


def _truncated(tensor, mean, std, a, b, generator=None):
    low, high = (0.5 * (1 + math.erf((x - mean) / std / 2**0.5)) for x in (a, b))
    with torch.no_grad():
        return tensor if tensor.is_meta else _fill(tensor, _normal(mean, std, low, high))


class Quantiles(TorchDispatchMode):
    """What draws numbers gets the quantiles of the distribution instead, in a mixed order.

    Mean and standard deviation of a tensor are then those of its distribution, however small it is
    and in whatever order a network makes its layers.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **kwargs or {})
        if func.overloadpacket in _DRAWN and not result.is_meta:
            drawn = _DRAWN[func.overloadpacket]
            given = args[1:] if func.overloadpacket in _IN_PLACE else ()
            _fill(result, drawn(*given))
        return result


_aten = torch.ops.aten
_IN_PLACE = {_aten.normal_, _aten.uniform_}
_DRAWN = {
    _aten.normal_: lambda mean=0.0, std=1.0: _normal(mean, std),
    _aten.uniform_: lambda a=0.0, b=1.0: lambda levels: a + (b - a) * levels,
    _aten.randn: lambda: _normal(0.0, 1.0),
    _aten.rand: lambda: lambda levels: levels,
}
