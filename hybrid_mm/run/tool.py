"""Entry point of a command-line tool: errors of users in one line."""

import functools
import os
import sys
from collections.abc import Callable, Sequence

from hybrid_mm.errors import UserError
from hybrid_mm.run.explain import explain


def debugging(argv: Sequence[str] | None = None) -> bool:
    """Whether tracebacks are wanted: ``HYBRID_MM_DEBUG=1`` or ``--debug``."""
    argv = sys.argv[1:] if argv is None else argv
    return '--debug' in argv or os.environ.get('HYBRID_MM_DEBUG', '') not in ('', '0')


def tool(func: Callable[[Sequence[str] | None], int | None]) -> Callable[..., int]:
    """Make a tool's ``main(argv)`` end a user's mistake with one ``error:`` line and status 2.

    Other exceptions pass; so do user errors with ``--debug`` or ``HYBRID_MM_DEBUG=1``.
    """

    @functools.wraps(func)
    def main(argv: Sequence[str] | None = None) -> int:
        try:
            return func(argv) or 0
        except Exception as error:
            message = str(error) if isinstance(error, UserError) else explain(error)
            if message is None or debugging(argv):
                raise
            rank = os.environ.get('RANK', '0')
            where = '' if rank == '0' else f'[rank {rank}] '
            print(f'{where}error: {message}', file=sys.stderr)
            return 2
        finally:
            _leave_process_group()

    return main


def _leave_process_group() -> None:
    """Close the process group, without which torch warns of a leak at exit."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
