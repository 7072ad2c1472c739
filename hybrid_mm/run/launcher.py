"""torchrun, which leaves the last word to the processes that it starts.

``python -m hybrid_mm.run.launcher`` takes the arguments of ``torchrun``. It differs at the end:
there is no traceback of torchrun's own below those of the processes, a line names the process that
failed first unless it has said why in one line, and the exit status is that of this process.
"""

import logging
import sys
from collections.abc import Sequence

_CHATTER = ('Received %s death signal', 'Sending process %s closing signal')
# a mistake of the user, Ctrl-C, SIGTERM: see run/tool.py and run/interrupt.py
_TOLD = (2, 130, 143)


def main(argv: Sequence[str] | None = None) -> int:
    """Start the processes and wait for them.

    Args:
        argv: Arguments of torchrun.

    Returns:
        Exit status.
    """
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # while torch is imported
        sys.stderr.write('interrupted\n')
        return 130


def _run(argv: list[str]) -> int:
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    for name in ('agent.server.api', 'multiprocessing.api'):
        logger = logging.getLogger(f'torch.distributed.elastic.{name}')
        logger.addFilter(lambda record: not str(record.msg).startswith(_CHATTER))
    try:
        torchrun(argv)
    except SignalException as error:
        return 128 + error.sigval
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        status = failure.exitcode
        if status not in _TOLD:
            how = f'ended with status {status}' if status > 0 else f'was killed by signal {-status}'
            sys.stderr.write(f'error: process {rank} {how}; what it said is above\n')
        return status if status > 0 else 128 - status
    return 0


if __name__ == '__main__':
    sys.exit(main())
