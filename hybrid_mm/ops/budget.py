"""Working memory: how much of an operator's intermediate results exists at a time.

On a CPU it stays in the cache of a core; a GPU needs more work at once to be busy.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# numbers that exist at a time; measured on CPUs only
_CPU = 2**19
_GPU = 2**25
# operator -> CPU, GPU, where they differ
_OPERATORS = {
    'evolving_attention': (2**18, 2**24),
    'ghost_attention': (2**20, 2**26),
    'vector_attention': (2**20, 2**24),
    'mixed_shift': (2**20, 2**20),
    'grid_convolution': (2**22, 2**22),
    'quadratic_attention': (2**23, 2**23),
}

_limit: int | None = None


def elements(device: torch.device, operator: str = '') -> int:
    """Numbers of working memory that an operator may hold at a time on a device."""
    if _limit is not None:
        return _limit
    on_cpu, on_gpu = _OPERATORS.get(operator, (_CPU, _GPU))
    return on_cpu if device.type == 'cpu' else on_gpu


def fitting(count: int, each: int, device: torch.device, operator: str = '') -> int:
    """How many of ``count`` items fit at a time, at least 1.

    Args:
        count: Rows, channels, images ... that there are.
        each: Numbers of working memory of one of them.
        device: Where they are.
        operator: Who works on them.
    """
    return max(1, min(count, elements(device, operator) // each))


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices of ``size`` that cover 0 .. count - 1; the last one may be shorter."""
    for first in range(0, count, size):
        yield slice(first, min(first + size, count))


@contextmanager
def limited(numbers: int) -> Iterator[None]:
    """Let all operators work with so few numbers at a time, for tests with small maps."""
    global _limit
    before, _limit = _limit, numbers
    try:
        yield
    finally:
        _limit = before
