"""torchrun, which leaves the last word to the processes that it starts.

``python -m hybrid_mm.run.launcher`` takes the arguments of ``torchrun``. It differs at the end:
where a signal or a mistake of the user ended the run, and the processes have said so, there is no
traceback of torchrun's own, and the exit status is that of the processes.
"""

import logging
import sys
from collections.abc import Sequence

_CHATTER = ('Received %s death signal', 'Sending process %s closing signal')
_TOLD = (
    2,
    130,
    143,
)  # a mistake of the user, Ctrl-C, SIGTERM: see run/tool.py and run/interrupt.py


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
        _, failure = error.get_first_failure()
        if failure.exitcode not in _TOLD:
            raise
        return failure.exitcode
    return 0


if __name__ == '__main__':
    sys.exit(main())
