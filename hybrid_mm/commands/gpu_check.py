"""What ``tools/gpu_check.py`` does once its arguments are read."""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from hybrid_mm.benchmarks.gpu import suite
from hybrid_mm.benchmarks.gpu.record import NAME, Record
from hybrid_mm.benchmarks.gpu.supervisor import Suite, supervise
from hybrid_mm.benchmarks.gpu.task import PASS, Options, Result, Task
from hybrid_mm.errors import UserError
from hybrid_mm.run.outputs import check_output_folder

_ROOT = str(Path(__file__).resolve().parents[2])


def run(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Do the tasks, and tell what came out."""
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
    command = ' '.join(['python tools/gpu_check.py', *argv])
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
        print('', *record.summary(), f'wrote {args.out}: {NAME}.md and .json', sep='\n')
    return 1 if record.bad() else 0


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
