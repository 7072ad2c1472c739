"""Functions that are computed again in the backward pass."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

__all__ = ['gradients', 'recomputed']

R = TypeVar('R')


def recomputed(function: Callable[..., R], *args: Any, random: bool = False) -> R:
    """Call a function and keep its arguments only for the backward pass.

    Args:
        function: What to call.
        args: Its arguments.
        random: Whether it draws random numbers, which must be the same the second time.
    """
    if not torch.is_grad_enabled():
        return function(*args)
    return checkpoint(function, *args, use_reentrant=False, preserve_rng_state=random)


def gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor | None], grad: Tensor
) -> list[Tensor]:
    """Gradients of a function by autograd, also within an operator, where torch has none.

    Args:
        function: Of the inputs.
        inputs: Tensors; None stays None.
        grad: Gradient of its result.

    Returns:
        One for every input that is there.
    """
    exclude = torch._C._dispatch_tls_local_exclude_set()
    for name in ('AutogradFunctionality', 'AutogradOther', 'AutogradNestedTensor'):
        exclude = exclude.remove(getattr(torch._C.DispatchKey, name))
    include = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(include, exclude), torch.enable_grad():
        leaves = [None if x is None else x.detach().requires_grad_() for x in inputs]
        return list(
            torch.autograd.grad(function(*leaves), [x for x in leaves if x is not None], grad)
        )
