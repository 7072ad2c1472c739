"""Processes that do tasks: those that crash or hang are ended and started anew.

An illegal access of a kernel makes the whole CUDA context of its process useless, and a kernel that
never ends cannot be stopped otherwise. Tasks that are only checked share the GPU and are done by
several processes at once, as most of the time is compilation; what is measured runs alone.
"""

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

from hybrid_mm.benchmarks.gpu.task import CRASH, HANG, SKIP, Options, Result, Task

_START = 120.0  # seconds that a process may take to begin with its first task
_LOG = 2000  # last characters of what a process wrote


@dataclass(frozen=True)
class Suite:
    """Where processes find their tasks.

    Attributes:
        tasks: ``module:function`` that makes them from the options.
        options: The options.
        environment: Variables of the processes.
        folder: Where they write their logs.
    """

    tasks: str
    options: Options
    environment: dict[str, str]
    folder: Path


class Worker:
    """A process that does one task at a time."""

    def __init__(self, suite: Suite, number: int) -> None:
        self.log = suite.folder / f'worker{number}.log'
        command = [sys.executable, '-m', 'hybrid_mm.benchmarks.gpu.worker', suite.tasks]
        with self.log.open('a') as log:
            self.process = subprocess.Popen(
                [*command, json.dumps(asdict(suite.options))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | suite.environment,
                start_new_session=True,  # killed with the compilers that it has started
            )
        self.fresh, self._buffer = True, b''

    def perform(self, task: Task, deadline: float) -> Result:
        """Have a task done.

        Args:
            task: The task.
            deadline: Time (``time.monotonic``) at which it is stopped in any case.
        """
        start = time.monotonic()
        limit = task.seconds + (_START if self.fresh else 0.0)
        self.fresh = False
        line = b''
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(task.name).encode() + b'\n')  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
            line = self._line(min(start + limit, deadline))
        if line:
            result = Result(**json.loads(line))
            if result.status == CRASH:
                self.end()
            return result
        ended = self.process.poll() is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            ended = ended or self.process.wait(0.2) is not None
        self.end()
        seconds = time.monotonic() - start
        result = Result(
            task.name, HANG, f'no answer after {seconds:.0f} s', {}, self._last(), seconds
        )
        if ended:
            result.status, result.text = CRASH, f'the process ended: {self._ending()}'
        elif time.monotonic() >= deadline:
            result.status, result.text = SKIP, f'the time was over after {seconds:.0f} s of it'
        return result

    def end(self) -> None:
        """End the process with all that it has started."""
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):  # it may be stuck in the driver
            self.process.wait(5)

    @property
    def running(self) -> bool:
        """Whether it can do another task."""
        return self.process.poll() is None

    def _line(self, until: float) -> bytes:
        """Next line of the process, or nothing if it ends or is too slow."""
        pipe = self.process.stdout.fileno()  # type: ignore[union-attr]
        while b'\n' not in self._buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                return b''
            piece = os.read(pipe, 1 << 16)
            if not piece:
                return b''
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b'\n')
        return line

    def _last(self) -> str:
        return self.log.read_text(errors='replace')[-_LOG:].strip()

    def _ending(self) -> str:
        code = self.process.returncode
        return signal.Signals(-code).name if code and code < 0 else f'exit status {code}'


def supervise(
    tasks: Iterable[Task],
    suite: Suite,
    deadline: float,
    started: Callable[[Task], None],
    finished: Callable[[Result], None],
    workers: int = 1,
) -> None:
    """Have tasks done in their order, those that may share the GPU by several processes.

    Args:
        tasks: What to do.
        suite: Where processes find the tasks.
        deadline: Time (``time.monotonic``) at which all of them are stopped.
        started: Called before each task, by one thread at a time.
        finished: Called with each result, likewise.
        workers: Number of processes.
    """
    lock, stop = threading.Lock(), threading.Event()
    pool: list[Worker | None] = [None] * workers
    errors: list[BaseException] = []

    def work(number: int, todo: 'queue.SimpleQueue[Task]') -> None:
        while time.monotonic() < deadline and not stop.is_set():
            try:
                task = todo.get_nowait()
            except queue.Empty:
                return
            try:
                with lock:
                    started(task)
                worker = pool[number]
                if worker is None or not worker.running:
                    worker = pool[number] = Worker(suite, number)
                result = worker.perform(task, deadline)
                with lock:
                    if not stop.is_set():
                        finished(result)
            except BaseException as error:  # of this program itself
                errors.append(error)
                stop.set()

    try:
        for alone, some in groupby(tasks, lambda task: task.alone):
            todo: queue.SimpleQueue[Task] = queue.SimpleQueue()
            count = 0
            for count, task in enumerate(some, 1):  # noqa: B007
                todo.put(task)
            if alone:
                _end(pool[1:])  # their memory, too
            threads = [
                threading.Thread(target=work, args=(i, todo), daemon=True)
                for i in range(1 if alone else min(workers, count))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            if errors:
                raise errors[0]
            while not todo.empty():
                with lock:
                    finished(Result(todo.get().name, SKIP, 'not reached: the time was over'))
    finally:
        stop.set()
        _end(pool)


def _end(pool: Iterable[Worker | None]) -> None:
    for worker in pool:
        if worker is not None:
            worker.end()
