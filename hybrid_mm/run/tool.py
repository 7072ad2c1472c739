"""Entry point of a command-line tool, in which errors of users are one line."""

import functools
import io
import os
import select
import sys
from collections.abc import Callable, Sequence

from hybrid_mm.errors import UserError
from hybrid_mm.run.explain import explain

CLOSED = 141
"""Status of a tool that nobody reads, as ``| head`` leaves it: what the shell gives SIGPIPE."""


def tool(func: Callable[..., int | None]) -> Callable[..., int]:
    """Make a tool's ``main(argv)`` end a user's mistake with one ``error:`` line and status 2.

    Ctrl-C ends it with one line and status 130. Other exceptions pass; so do user errors with
    ``--debug`` or ``HYBRID_MM_DEBUG=1``. What cannot be encoded, as a path that is not UTF-8, is
    printed with its bytes escaped. Where the reader of the output has gone, as after ``| head``,
    the tool ends without a word.
    """

    @functools.wraps(func)
    def main(argv: Sequence[str] | None = None) -> int:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors='backslashreplace')
        try:
            status = func(argv) or 0
        except KeyboardInterrupt:  # where run/interrupt.py does not say more
            if os.environ.get('RANK', '0') == '0':
                sys.stderr.write(f'{chr(10) if sys.stderr.isatty() else ""}interrupted\n')
            status = 130
        except SystemExit as end:
            # rich, which finds it before us, ends the program with status 1
            if not _flushed() or isinstance(end.__context__, BrokenPipeError):
                return CLOSED
            if end.code not in (130, 143):  # those of run/interrupt.py
                raise
            return int(end.code)
        except Exception as error:
            if isinstance(error, BrokenPipeError) and _nobody_reads():
                _flushed()
                return CLOSED
            message = str(error) if isinstance(error, UserError) else explain(error)
            if message is None or debugging(argv):
                _flushed()
                raise
            rank = os.environ.get('RANK', '0')
            where = '' if rank == '0' else f'[rank {rank}] '
            print(f'{where}error: {message}', file=sys.stderr)
            status = 2
        finally:
            _leave_process_group()
        return status if _flushed() else CLOSED

    return main


def _nobody_reads() -> bool:
    """Whether the reader of what is printed has gone: not of a pipe between processes of ours."""
    for stream in (sys.stdout, sys.stderr):
        try:
            place = select.poll()
            place.register(stream.fileno(), 0)  # errors are told in any case
            if place.poll(0):
                return True
        except (AttributeError, OSError, ValueError):  # no `poll` here, no file, a closed one
            continue
    return False


def _flushed() -> bool:
    """Write what is left; what nobody reads is thrown away, or Python would complain at exit."""
    whole = True
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except BrokenPipeError:
            whole = False
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return whole


def debugging(argv: Sequence[str] | None = None) -> bool:
    """Whether the user asked for tracebacks: ``--debug`` or ``HYBRID_MM_DEBUG=1``."""
    argv = sys.argv[1:] if argv is None else argv
    return '--debug' in argv or os.environ.get('HYBRID_MM_DEBUG', '') not in ('', '0')


def _leave_process_group() -> None:
    """Close the process group; without this, torch warns of a leak at exit."""
    distributed = sys.modules.get('torch.distributed')
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
