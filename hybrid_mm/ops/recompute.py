"""Functions whose intermediate results are computed again in the backward pass."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

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
