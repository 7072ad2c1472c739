"""Models one after the other: what is finished is kept, whatever happens to the others."""

import sys
import traceback
from collections.abc import Callable, Sequence

from hybrid_mm.analysis.networks import one_line
from hybrid_mm.errors import UserError, shorten, warn
from hybrid_mm.run.tool import debugging

FAILED, INTERRUPTED = 1, 130
"""Exit statuses."""


def one_by_one(
    labels: Sequence[str],
    study: Callable[[int], None],
    save: Callable[[dict[str, str]], None],
) -> int:
    """Study models in turn, and write the results after each of them.

    Args:
        labels: Names of the models.
        study: Studies the model of an index, and keeps what it finds.
        save: Writes what was found so far; gets the errors of failed models by their name.

    Returns:
        Status of the tool: 0, ``FAILED``, or ``INTERRUPTED`` after Ctrl-C.

    Raises:
        UserError: The only model failed.
    """
    errors: dict[str, str] = {}
    for index, label in enumerate(labels):
        try:
            study(index)
        except KeyboardInterrupt:
            left = labels[index:]
            warn(f'interrupted; without {shorten(left)}')
            return INTERRUPTED
        except Exception as error:  # of a foreign network, or of a checkpoint
            text = one_line(error)
            if len(labels) == 1:
                if isinstance(error, UserError):
                    raise
                raise UserError(f'{label}: {text}') from error
            if debugging():
                traceback.print_exc()
            errors[label] = text
            print(f'error: {label}: {text}', file=sys.stderr)
        save(errors)
    return FAILED if errors else 0


def failed_rows(errors: dict[str, str], columns: int) -> list[list[str]]:
    """Rows of a table for the models that failed, with the error behind the name."""
    return [[f'{label}: {text}', *['-'] * (columns - 1)] for label, text in errors.items()]
