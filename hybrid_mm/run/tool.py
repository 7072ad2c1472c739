"""Entry point of a command-line tool, in which errors of users are one line."""

import functools
import io
import os
import sys
from collections.abc import Callable, Sequence

from hybrid_mm.errors import UserError
from hybrid_mm.run.explain import explain


def tool(func: Callable[..., int | None]) -> Callable[..., int]:
    """Make a tool's ``main(argv)`` end a user's mistake with one ``error:`` line and status 2.

    Ctrl-C ends it with one line and status 130. Other exceptions pass; so do user errors with
    ``--debug`` or ``HYBRID_MM_DEBUG=1``. What cannot be encoded, as a path that is not UTF-8, is
    printed with its bytes escaped.
    """

    @functools.wraps(func)
    def main(argv: Sequence[str] | None = None) -> int:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors='backslashreplace')
        try:
            return func(argv) or 0
        except KeyboardInterrupt:  # where run/interrupt.py does not say more
            print(f'{chr(10) if sys.stderr.isatty() else ""}interrupted', file=sys.stderr)
            return 130
        except SystemExit as end:  # of run/interrupt.py, or of argparse
            if end.code not in (130, 143):
                raise
            return int(end.code)
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


def debugging(argv: Sequence[str] | None = None) -> bool:
    """Whether the user asked for tracebacks: ``--debug`` or ``HYBRID_MM_DEBUG=1``."""
    argv = sys.argv[1:] if argv is None else argv
    return '--debug' in argv or os.environ.get('HYBRID_MM_DEBUG', '') not in ('', '0')


def _leave_process_group() -> None:
    """Close the process group; without this, torch warns of a leak at exit."""
    distributed = sys.modules.get('torch.distributed')
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
