"""Working memory: how much of an operator's intermediate results exists at a time.

On a CPU it stays in the cache of a core; a GPU needs more work at once to be busy.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Numbers that exist at a time. Measured on CPUs, for all operators: half or twice as many cost a
# few per cent, and those of large kernels with fewer maps at a time up to three times.
_CPU = 2**20
_GPU = 2**25

_limit: int | None = None


def elements(device: torch.device) -> int:
    """Numbers of working memory that an operator may hold at a time on a device."""
    if _limit is not None:
        return _limit
    return _CPU if device.type == 'cpu' else _GPU


def fitting(count: int, each: int, device: torch.device) -> int:
    """How many of ``count`` items fit at a time, at least 1.

    Args:
        count: Rows, channels, images ... that there are.
        each: Numbers of working memory of one of them; 0 in an empty batch.
        device: Where they are.
    """
    return max(1, min(count, elements(device) // max(each, 1)))


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
