"""Working memory of operators."""

from collections.abc import Iterator

_BUFFER = 2**22  # numbers in the working memory of a chunk of channels


def _chunks(channels: int, numbers: int) -> Iterator[slice]:
    """Slices of the channels, when one channel needs so many numbers of working memory."""
    size = max(1, min(channels, _BUFFER // numbers))
    for first in range(0, channels, size):
        yield slice(first, first + size)
