"""What layers compute from their weights alone, kept between forward passes without gradients."""

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from hybrid_mm.compat.torch_api import is_autocast_enabled, is_compiling
from hybrid_mm.ops.export import exporting

__all__ = ['InferenceCache', 'from_weights', 'keeps']

Value = TypeVar('Value')
_running = threading.local()
_ENTRIES = 4  # of every weight, compared in every pass


class InferenceCache:
    """Values that the layers of a network make from weights, kept while these stay what they are.

    Within :meth:`of`, layers ask :func:`from_weights` for such values. The weights of the whole
    network are looked at once per forward pass. A change in place is seen by the version that torch
    counts. It counts neither changes through ``.data`` nor those of running statistics: for this
    reason the first entries of every weight are compared as well; a change through ``.data`` that
    leaves these is not seen. Copies and pickles of a cache are empty.
    """

    def __init__(self) -> None:
        self._weights: _Weights | None = None
        self.values: dict[Hashable, Any] = {}

    @contextlib.contextmanager
    def of(self, net: nn.Module) -> Iterator[None]:
        """Let the layers of a network keep values, where that is possible.

        That is without gradients, in single precision, on a CPU (to compare entries would make a
        GPU wait), and where nothing looks at or changes the operators: no tracing, compilation,
        autocast, counting, fake tensors, ``torch.func``.

        Args:
            net: The network, always the same.
        """
        if not _may_keep():
            yield
            return
        if self._weights is None or not self._weights.unchanged():
            self.values = {}
            self._weights = _weights_of(net)
        before = getattr(_running, 'cache', None)
        _running.cache = None if self._weights is None else self
        try:
            yield
        finally:
            _running.cache = before

    def knows(self, layer: nn.Module) -> bool:
        """Whether the weights of a layer are among those that are looked at."""
        return self._weights is not None and layer in self._weights.modules

    def __reduce__(self) -> tuple:
        return InferenceCache, ()

    def __deepcopy__(self, memo: dict) -> 'InferenceCache':
        return InferenceCache()


def keeps(layer: nn.Module) -> bool:
    """Whether :func:`from_weights` keeps values of a layer now.

    Args:
        layer: A layer of the network that runs.
    """
    cache = getattr(_running, 'cache', None)
    return cache is not None and cache.knows(layer)


def from_weights(layer: nn.Module, key: Hashable, compute: Callable[[], Value]) -> Value:
    """A value made from the weights of a layer, kept if that is possible now.

    Args:
        layer: The layer.
        key: All else that the value depends on.
        compute: Makes the value.
    """
    cache = getattr(_running, 'cache', None)
    if cache is None or not cache.knows(layer):
        return compute()
    place = layer, key
    if place not in cache.values:
        cache.values[place] = compute()
    return cache.values[place]


def _may_keep() -> bool:
    if torch.is_grad_enabled() or torch.jit.is_tracing() or is_compiling() or exporting():
        return False
    return not (
        is_autocast_enabled('cpu')
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack()
    )


class _Weights(NamedTuple):
    """Weights as they were: where they are, the tensors, their memory and version, some entries."""

    modules: frozenset[nn.Module]
    places: list[tuple[dict, str]]
    tensors: list[Tensor]
    versions: list[int]
    pointers: list[int]
    views: list[Tensor]
    samples: Tensor

    def unchanged(self) -> bool:
        return (
            all(a.get(n) is t for (a, n), t in zip(self.places, self.tensors, strict=True))
            and [t._version for t in self.tensors] == self.versions
            and [t.data_ptr() for t in self.tensors] == self.pointers
            and torch.equal(torch.cat(self.views), self.samples)
        )


def _weights_of(net: nn.Module) -> _Weights | None:
    """The weights of a network and its running statistics; None if they cannot be compared."""
    modules = frozenset(net.modules())
    places, tensors = [], []
    for module in modules:
        for owner in (module._parameters, module._buffers):
            for name, tensor in owner.items():
                if tensor is not None and tensor.is_floating_point() and tensor.numel():
                    places.append((owner, name))
                    tensors.append(tensor)
    comparable = tensors and all(
        type(t) in (Tensor, nn.Parameter)
        and t.device.type == 'cpu'
        and t.dtype == torch.float32
        and t.is_contiguous()
        and not t.is_inference()
        for t in tensors
    )
    if not comparable:
        return None
    # views keep the memory from being given to others as well; contiguous ones are compared fast
    views = [t.detach().view(-1)[:_ENTRIES] for t in tensors]
    versions, pointers = [t._version for t in tensors], [t.data_ptr() for t in tensors]
    return _Weights(modules, places, tensors, versions, pointers, views, torch.cat(views))
