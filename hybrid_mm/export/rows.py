"""Tables in documents whose rows are computed one by one, with a time limit for every step."""

import contextlib
import fnmatch
import functools
import logging
import math
import multiprocessing
import queue
import resource
import signal
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid_mm.export import onnx_files
from hybrid_mm.export.graphs import ExportError
from hybrid_mm.run.console import duration
from hybrid_mm.zoo.families import families

FIRST = 45  # seconds, after which a step that is not done is said
MISSING = '-'  # a cell that has not been computed


@dataclass(frozen=True)
class Table:
    """A table between two marks of a document.

    Attributes:
        mark: Name in the marks.
        columns: Titles of the columns after the first, which is ``network``.
        steps: The columns that each step fills, by the name of the step.
        work: Fills them: a function of the name of the family, the steps, the cells so far, a
            folder for files and ``say``, that yields the cells of each step. It is called in a
            process of its own, and again for the remaining steps after one that took too long.
        seconds: Time of a core that a step may take.
    """

    mark: str
    columns: tuple[str, ...]
    steps: dict[str, tuple[str, ...]]
    work: Callable[..., Iterator[dict[str, str]]]
    seconds: int

    @property
    def marks(self) -> tuple[str, str]:
        """The lines before and after the table."""
        return f'<!-- {self.mark}:begin -->', f'<!-- {self.mark}:end -->'

    def read(self, path: Path) -> dict[str, dict[str, str]]:
        """Rows of the table in a document, by name; none if there is no such file."""
        if not path.exists():
            return {}
        begin, end = self.marks
        lines = path.read_text().partition(begin)[2].partition(end)[0].strip().split('\n')
        parts = [[part.strip() for part in line.strip('|').split('|')] for line in lines]
        titles = parts[0][1:]
        return {
            name: dict.fromkeys(self.columns, MISSING)
            | {k: v for k, v in zip(titles, cells, strict=True) if k in self.columns}
            for name, *cells in parts[2:]
        }

    def write(self, path: Path, rows: dict[str, dict[str, str]]) -> None:
        """Replace the table in a document, which is created if necessary."""
        begin, end = self.marks
        lines = [f'| network | {" | ".join(self.columns)} |']
        lines += ['|---' * (len(self.columns) + 1) + '|']
        for name, cells in sorted(rows.items(), key=lambda item: item[0].lower()):
            lines.append(f'| {name} | {" | ".join(cells[title] for title in self.columns)} |')
        old = path.read_text() if path.exists() else f'{begin}\n{end}\n'
        if begin not in old:
            old = f'{old.rstrip()}\n\n{begin}\n{end}\n'
        before, _, rest = old.partition(begin)
        after = rest.partition(end)[2] or '\n'
        path.write_text('\n'.join([f'{before}{begin}', *lines, end]) + after)

    def update(
        self,
        path: Path,
        pattern: str,
        say: Callable[[str], None],
        steps: Sequence[str] | None = None,
        missing: bool = False,
        jobs: int = 1,
    ) -> Iterator[tuple[str, dict[str, str]]]:
        """Compute the rows of the families that match a pattern, and write every cell at once.

        Args:
            path: Document with the table, in which other rows stay.
            pattern: Names with wildcards, such as ``VAN*``.
            say: Called with a line before each row is computed, with the name of the family, and
                about each step that takes long, before its time is over.
            steps: Steps to compute, by default all; other cells stay.
            missing: Compute only what the document does not have yet.
            jobs: Rows that are computed at the same time.

        Yields:
            Name and cells of each family, when its row is complete.
        """
        known, steps = families(), list(self.steps if steps is None else steps)
        rows = {name: cells for name, cells in self.read(path).items() if name in known}
        lock = threading.Lock()

        def keep(name: str, cells: dict[str, str]) -> None:
            with lock:
                rows[name] = dict.fromkeys(self.columns, MISSING) | rows.get(name, {}) | cells
                self.write(path, rows)

        def wanted(name: str) -> list[str]:
            cells = rows.get(name, {})
            done = [all(cells.get(t, MISSING) != MISSING for t in self.steps[s]) for s in steps]
            return [s for s, d in zip(steps, done, strict=True) if not (missing and d)]

        def compute(name: str) -> None:
            say(f'{name} ...')
            row(self, name, wanted(name), rows.get(name, {}), functools.partial(keep, name), say)

        names = [name for name in fnmatch.filter(known, pattern) if wanted(name)]
        with ThreadPoolExecutor(jobs) as pool:
            pending = {pool.submit(compute, name): name for name in names}
            try:
                for done in as_completed(pending):
                    done.result()
                    yield pending[done], rows[pending[done]]
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def row(
    table: Table,
    name: str,
    steps: Sequence[str],
    cells: dict[str, str],
    keep: Callable[[dict[str, str]], None],
    say: Callable[[str], None],
) -> None:
    """Compute cells of a family in another process, which can be stopped.

    Args:
        table: The table.
        name: Name of the family.
        steps: Steps to compute.
        cells: Cells that are known, by column.
        keep: Called with the cells of every step once it is done.
        say: Called with a line about a step that takes long.

    Raises:
        RuntimeError: The process ended by itself.
    """
    context, left, cells = multiprocessing.get_context('spawn'), list(steps), dict(cells)

    def finish(found: dict[str, str]) -> None:
        cells.update(found)
        keep(found)
        left.pop(0)

    with tempfile.TemporaryDirectory() as folder:
        while left:
            results = context.Queue()
            arguments = table, name, list(left), dict(cells), folder, results
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            begun, after = time.monotonic(), FIRST
            while left and (process.is_alive() or not results.empty()):
                with contextlib.suppress(queue.Empty):
                    kind, found = results.get(timeout=0.2)
                    if kind == 'cells':
                        finish(found)
                        begun, after = time.monotonic(), FIRST
                    else:
                        say(f'{name}, {left[0]}: {found}')
                passed = time.monotonic() - begun
                if left and passed > after:
                    after += table.seconds
                    say(
                        f'{name}, {left[0]}: not done after {duration(passed)}; given up after '
                        f'{table.seconds} s of a core'
                    )
            process.join()
            if left and process.exitcode != -signal.SIGXCPU:
                raise RuntimeError(f'{name}, {left[0]}: the process that computes it ended')
            if left:
                text = f'no: not within {table.seconds} s of a core'
                finish(dict.fromkeys(table.steps[left[0]], text))


def _work(
    table: Table, name: str, steps: list[str], cells: dict[str, str], folder: str, results: Any
) -> None:
    """Body of the process that computes cells; those of a step are put into ``results``."""

    def say(text: str) -> None:
        results.put(('note', text))

    logging.disable(logging.WARNING)
    warnings.simplefilter('ignore')
    limit_time(table.seconds)
    for found in table.work(name, steps, cells, Path(folder), say):
        results.put(('cells', found))
        limit_time(table.seconds)


def no(error: Exception) -> str:
    """A cell that says why there is no number."""
    reason = onnx_files.reason(error).rpartition('cannot be exported: ')[2].partition(';')[0]
    kind = '' if isinstance(error, ExportError) else f'{type(error).__name__}: '
    return f'no: {kind}{reason.replace("|", "/")}'


def limit_time(seconds: int) -> None:
    """End this process after so many further seconds of a core, whatever the clock says."""
    limit = math.ceil(time.process_time()) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
