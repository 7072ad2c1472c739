"""When the weights of a layer may be read in place of calling it.

Some operators are faster with the weights of a layer than with its result. Whoever has put
something else in place of the layer (an adapter, a quantised layer), or hooks on it (pruning
and spectral norm of torch compute the weight in one), counts on its being called: then it is
called, and the operator works on the result.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as _module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import Conv1d, Conv2d
from torch.nn.utils.parametrize import is_parametrized

_FORWARDS: frozenset[Callable[..., Any]] = frozenset(
    kind.forward for kind in (nn.Linear, Conv1d, Conv2d, _BatchNorm, nn.SyncBatchNorm)
)
_GLOBAL_HOOKS = (
    _module._global_forward_hooks,
    _module._global_forward_pre_hooks,
    _module._global_backward_hooks,
    _module._global_backward_pre_hooks,
)
_counted: list[set[nn.Module]] = []  # by a counter: layers that had no hooks before


def is_plain(*layers: nn.Module | None) -> bool:
    """Whether reading the weights of layers is the same as calling them.

    So it is for linear layers, convolutions and batch norms that compute what torch's do, without
    hooks on them or on all modules. Parametrisations are read as well as called; None counts as
    plain.
    """
    for layer in layers:  # a loop: small networks ask this often enough to feel a generator
        if layer is not None and not (type(layer).forward in _FORWARDS and without_hooks(layer)):
            return False
    return True


def without_hooks(layer: nn.Module) -> bool:
    """Whether a layer, of any type, has neither hooks nor another ``forward`` on the object."""
    if not _counted and any(_GLOBAL_HOOKS):
        return False
    if 'forward' in layer.__dict__:
        return False
    return (bool(_counted) and layer in _counted[-1]) or not _has_hooks(layer)


def _has_hooks(layer: nn.Module) -> bool:
    return bool(
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
    )


def in_its_type(layer: nn.Module, x: Tensor) -> Tensor:
    """Call a layer on a tensor that was made more accurate than its weights; the type stays."""
    types = (p.dtype for p in layer.parameters() if p.is_floating_point())
    return layer(x.to(next(types, x.dtype))).to(x.dtype)


def require_plain(
    owner: str, own: tuple[type[nn.Module], ...] = (), **layers: nn.Module | None
) -> None:
    """Check that layers whose weights are merged for good are those that the network was built of.

    Args:
        owner: Class or function that merges, for the message.
        own: Further types of layers, with a forward of their own.
        **layers: Layers by name.

    Raises:
        ValueError: One was replaced or has hooks; the message names it.
    """
    for name, layer in layers.items():
        plain = is_plain(layer) or (isinstance(layer, own) and without_hooks(layer))
        if layer is not None and (not plain or is_parametrized(layer)):
            raise ValueError(
                f'{owner}: the weights of {name} cannot be merged, for it was replaced, '
                f'parametrised or has hooks ({type(layer).__name__}); merge adapters into the '
                'layer and remove hooks and parametrisations first'
            )


@contextlib.contextmanager
def fused_despite_hooks(model: nn.Module | None = None) -> Iterator[None]:
    """Read weights despite the hooks of something that counts what a network computes.

    Args:
        model: The network whose layers get hooks after the start of the block; those that they
            have before still count. None if there are hooks on all modules only.
    """
    layers = model.modules() if model is not None else ()
    _counted.append({layer for layer in layers if not _has_hooks(layer)})
    try:
        yield
    finally:
        _counted.pop()
