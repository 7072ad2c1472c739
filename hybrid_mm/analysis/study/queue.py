"""Trainings of the study, several at a time, each in a process of its own with one thread."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybrid_mm.analysis.study.records import Record
from hybrid_mm.analysis.study.systems import System

__all__ = ['Training', 'extremes', 'missing', 'run_all']

Key = tuple[str, str, int]
_LOOK = 1.0  # seconds between two looks at the processes
LOG, RECORD = 'log.txt', 'record.json'


@dataclass(frozen=True, eq=False)
class Training:
    """One training that is to be run.

    Attributes:
        system: The network.
        task: 'segmentation' or 'detection'.
        seed: Its seed.
        digest: Of its config.
        iterations: How many it has.
    """

    system: System
    task: str
    seed: int
    digest: str
    iterations: int

    @property
    def name(self) -> str:
        """How it is called in messages."""
        return f'{self.system.name} ({self.task}, seed {self.seed})'

    def folder(self, root: Path) -> Path:
        """Its folder; with another config it has another one, as it cannot be resumed then."""
        return root / self.task / f'{self.system.name}-{self.seed}-{self.digest}'

    def record(self, root: Path) -> Record | None:
        """Its result, if it has ended."""
        file = self.folder(root) / RECORD
        return Record(**json.loads(file.read_text())) if file.is_file() else None

    def done(self, root: Path) -> int:
        """Iterations that it has done."""
        try:
            return int((self.folder(root) / 'progress').read_text().split()[0])
        except (OSError, IndexError, ValueError):  # not begun, or being written
            return 0


def missing(trainings: Iterable[Training], records: Mapping[Key, Record]) -> list[Training]:
    """Trainings without a result of their present config.

    Args:
        trainings: What there is to run.
        records: Results by task, system and seed.
    """
    return [
        training
        for training in trainings
        if (found := records.get((training.task, training.system.name, training.seed))) is None
        or found.digest != training.digest
    ]


def extremes(records: Mapping[Key, Record], task: str, names: Iterable[str], count: int) -> set:
    """Names of the best and of the worst systems of a task, by the last metric with seed 0.

    Args:
        records: The results.
        task: 'segmentation' or 'detection'.
        names: The systems to choose from; those without a result are passed over.
        count: How many at each end.
    """
    found = [name for name in names if (task, name, 0) in records]
    found.sort(key=lambda name: (records[task, name, 0].last, name))
    return {*found[:count], *found[max(len(found) - count, 0) :]}


def run_all(
    trainings: Sequence[Training],
    root: Path,
    jobs: int,
    command: Callable[[Training], Sequence[str]],
    finished: Callable[[Record], None],
    say: Callable[[str], None] = print,
) -> list[str]:
    """Run trainings; those that were interrupted go on.

    Args:
        trainings: What to run, in this order.
        root: Folder of their folders.
        jobs: How many at a time.
        command: Arguments of Python that run one.
        finished: Called with every result.
        say: Prints a line.

    Returns:
        A line for every training that failed.
    """
    waiting, failures = list(trainings), []
    running: dict[Training, subprocess.Popen] = {}
    began = time.monotonic()
    already = sum(training.done(root) for training in trainings)
    total, ended = sum(training.iterations for training in trainings), 0
    lost = 0  # iterations of failed trainings
    environment = {**os.environ, **dict.fromkeys(_THREADS, '1')}
    line = _Line()
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                training = waiting.pop(0)
                if (record := training.record(root)) is None:
                    running[training] = _start(training, root, command, environment)
                    continue
                ended += 1  # its process ended after this one
                finished(record)
            time.sleep(_LOOK)
            done = sum(training.done(root) for training in trainings)
            left = _left(time.monotonic() - began, done - already, total - lost - done)
            for training, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[training]
                ended += 1
                record = training.record(root)
                line.clear()
                count = f'{ended} of {len(trainings)}'
                if process.returncode or record is None:
                    lost += training.iterations - training.done(root)
                    failures.append(_failure(training, root, process.returncode))
                    say(f'{count}  {training.name} failed; {left}')
                    continue
                finished(record)
                for file in training.folder(root).glob('*.pth'):
                    file.unlink()  # nobody needs the weights
                minutes = record.total_seconds / 60
                say(
                    f'{count}  {training.name}: {record.last:.1f}, best {record.best:.1f}, '
                    f'{minutes:.1f} CPU minutes; {left}'
                )
            now = [f'{t.system.name} {t.done(root)}/{t.iterations}' for t in running]
            line.show(f'{ended} of {len(trainings)} ended; {", ".join(now)}; {left}')
    finally:
        line.clear()
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
        signal.signal(signal.SIGTERM, before)
    return failures


_THREADS = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OPENBLAS_NUM_THREADS')


def _leave(number: int, frame: object) -> None:
    """End at SIGTERM as at Ctrl-C: trainings of our own must not go on alone."""
    raise SystemExit(128 + number)


def _start(
    training: Training,
    root: Path,
    command: Callable[[Training], Sequence[str]],
    environment: Mapping[str, str],
) -> subprocess.Popen:
    folder = training.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG, 'a') as log:
        return subprocess.Popen(
            [sys.executable, *command(training)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
        )


def _failure(training: Training, root: Path, status: int) -> str:
    log = training.folder(root) / LOG
    lines = [line for line in log.read_text(errors='replace').splitlines() if line.strip()]
    return f'{training.name}: {lines[-1] if lines else f"status {status}"} ({log})'


def _left(seconds: float, done: int, remaining: int) -> str:
    """Time left at the rate so far."""
    if done <= 0:
        return 'time left unknown yet'
    minutes = round(seconds * remaining / done / 60)
    return f'about {minutes // 60}:{minutes % 60:02d} h left'


class _Line:
    """A line at the bottom of a terminal that is overwritten; nothing elsewhere."""

    def __init__(self) -> None:
        self.width = 0

    def show(self, text: str) -> None:
        """Replace the line."""
        if not sys.stdout.isatty():
            return
        text = text[: shutil.get_terminal_size().columns - 1]
        print(f'\r{text:<{self.width}}', end='', flush=True)
        self.width = len(text)

    def clear(self) -> None:
        """Remove it."""
        if self.width:
            print('\r' + ' ' * self.width + '\r', end='', flush=True)
            self.width = 0
