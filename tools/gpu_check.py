"""Does it work on my GPU, and how fast? Check everything, train a little, measure; 8 minutes.

python tools/gpu_check.py                                   # results in gpu_check/
python tools/gpu_check.py --minutes 3 --out DIR
python tools/gpu_check.py --list                            # what would be done, in order
python tools/gpu_check.py --only operators networks/NAT     # what contains one of these texts
python tools/gpu_check.py --dry --only operators            # toy sizes on a CPU, to try the tool

Every operator, layer and backbone is compared with its plain formulation in float32, float16 and
bfloat16, compiled and in CUDA graphs; four detectors and segmenters train for 20 steps; operators
are timed beside what else computes the same. It needs torch, Triton and this checkout; networks
need MMEngine, detectors mmcv, MMDetection and MMSegmentation; NATTEN is measured if it is there.

gpu_check.json and gpu_check.md are written after every task. What crashes or hangs is noted, and
the rest goes on. The exit status is 1 if anything was wrong. Please send both files with a report
of a bug.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout that is not installed

import torch

from hybrid_mm.benchmarks.gpu import suite
from hybrid_mm.benchmarks.gpu.record import NAME, Record
from hybrid_mm.benchmarks.gpu.supervisor import Suite, supervise
from hybrid_mm.benchmarks.gpu.task import PASS, Options, Result, Task
from hybrid_mm.errors import UserError
from hybrid_mm.run.outputs import check_output_folder
from hybrid_mm.run.tool import tool

_ROOT = str(Path(__file__).resolve().parents[1])


@tool
def main(argv=None) -> int:
    """Do the tasks, and tell what came out."""
    args = _parser().parse_args(argv)
    options = Options('cpu' if args.dry else 'cuda', args.dry)
    tasks = [task for task in suite.tasks(options) if _wanted(task, args.only)]
    if not [task for task in tasks if task.name != suite.ENVIRONMENT]:
        raise UserError(f'--only {" ".join(args.only)}: no task contains that; see --list')
    if args.list:
        print('\n'.join(task.name for task in tasks))
        return 0
    if not args.dry and not torch.cuda.is_available():
        raise UserError('torch sees no GPU here; --dry tries the tool without one')
    check_output_folder(args.out)
    command = ' '.join(['python tools/gpu_check.py', *(sys.argv[1:] if argv is None else argv)])
    record = Record(args.out, command, open=len(tasks))
    deadline = time.monotonic() + args.minutes * 60
    with tempfile.TemporaryDirectory() as logs, _stopped_by_signals():
        paths = [_ROOT, *filter(None, [os.environ.get('PYTHONPATH')])]
        environment = dict(PYTHONPATH=os.pathsep.join(paths))
        place = Suite('hybrid_mm.benchmarks.gpu.suite:tasks', options, environment, Path(logs))
        try:
            supervise(
                tasks,
                place,
                deadline,
                lambda task: record.begin(task.name),
                lambda result: _note(record, result, args.json),
                args.workers or _workers(),
            )
        except KeyboardInterrupt:
            print('stopped', file=sys.stderr)
        record.write()
    if args.json:
        print(json.dumps(record.as_json(), indent=1))
    else:
        print('', *record.summary(), f'all of it in {args.out}/{NAME}.md and .json', sep='\n')
    return 1 if record.bad() else 0


def _parser() -> argparse.ArgumentParser:
    # not the parser of the other tools, which needs MMEngine
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--minutes', type=float, default=8.0, help='time for everything (default: 8)'
    )
    parser.add_argument(
        '--out', type=Path, default=Path(NAME), metavar='FOLDER', help=f'default: {NAME}'
    )
    parser.add_argument(
        '--only',
        nargs='+',
        default=[],
        metavar='NAME',
        help='tasks whose name contains one of these',
    )
    parser.add_argument('--list', action='store_true', help='print the names of the tasks only')
    parser.add_argument(
        '--dry', action='store_true', help='toy sizes on a CPU, kernels in the interpreter'
    )
    parser.add_argument(
        '--workers', type=int, help='processes that check things side by side (default: up to 6)'
    )
    parser.add_argument('--json', action='store_true', help='print JSON at the end, nothing else')
    parser.add_argument('--debug', action='store_true', help='show tracebacks of user errors')
    return parser


def _wanted(task: Task, only: list[str]) -> bool:
    return not only or task.name == suite.ENVIRONMENT or any(text in task.name for text in only)


def _workers() -> int:
    """Compilation takes most of the time of a check; every process has a CUDA context, too."""
    return max(1, min(6, (os.cpu_count() or 2) // 2))


def _note(record: Record, result: Result, quiet: bool) -> None:
    record.add(result)
    if result.name == suite.ENVIRONMENT:
        record.environment = result.figures
        if result.status != PASS:
            raise UserError(f'the machine cannot be asked: {result.text} {result.details}')
    if not quiet:
        print(
            f'{result.status:5} {result.name} | {result.text} | {result.seconds:.1f} s', flush=True
        )


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM end the tool as Ctrl-C does: with its files written and its processes ended."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == '__main__':
    sys.exit(main())
