"""Mistakes of users: the exception, warnings, and the phrases that their messages share."""

import difflib
import os
import sys
from collections.abc import Iterable, Sequence

__all__ = ['UserError', 'nearest', 'plain_text', 'printable', 'shorten', 'warn']


class UserError(ValueError):
    """A mistake of the user. The text names the culprit, what was expected and what to do."""


def warn(message: str) -> None:
    """Print a one-line warning to stderr, in the first process only.

    Args:
        message: The text behind ``warning:``.
    """
    if os.environ.get('RANK', '0') == '0':
        print(f'warning: {message}', file=sys.stderr)


def printable(text: str) -> str:
    """The text in one line: characters that cannot be printed, line breaks too, as escapes.

    Args:
        text: Text of a user or of a file.
    """
    return ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shorten(names: Sequence[str], count: int = 6) -> str:
    """Join the first ``count`` names by commas; dots replace the others.

    Args:
        names: The names.
        count: How many of them are shown.
    """
    return ', '.join(names[:count]) + (', ...' if len(names) > count else '')


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``'; did you mean a, b?'`` for the names most like ``name``, or an empty string.

    Args:
        name: What was asked for.
        names: What there is.
        cutoff: Likeness from 0 to 1 below which a name is left out.
    """
    names = sorted(set(names))
    lower = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), lower, n=3, cutoff=cutoff)
    return f'; did you mean {", ".join(lower[match] for match in close)}?' if close else ''


def plain_text(error: BaseException) -> str:
    """Text of an exception; ``str`` of a KeyError would quote it.

    Args:
        error: The exception.
    """
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
