"""What the tools print: tables, durations, and the progress of long work."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

T = TypeVar('T')
PAUSE = 30.0  # seconds between two lines of progress where there is no terminal


def print_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose first column is text and whose others are numbers."""
    table = Table(box=box.SIMPLE, title=title, title_justify='left')
    for i, name in enumerate(head):
        table.add_column(name, justify='right' if i else 'left', overflow='fold')
    for row in rows:
        table.add_row(*row)
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


def wrote(place: object, details: str = '') -> None:
    """Say what a tool wrote: its file or folder, and what is in it."""
    print(f'wrote {place}: {details}' if details else f'wrote {place}')


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[..., None]]:
    """Show the progress of some work on stderr: a bar on a terminal, elsewhere a few lines.

    Args:
        title: Name of the work.
        total: Number of steps.

    Yields:
        A function to call after each step; a text, if given, describes the next step.
    """
    if not sys.stderr.isatty():
        yield _lines(title, total)
        return
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=total)

        def advance(text: str | None = None) -> None:
            bar.update(task, advance=1, description=f'{title}: {text}' if text else title)

        yield advance


def _lines(title: str, total: int) -> Callable[..., None]:
    """A function that counts its calls, and prints a line if the last one is 30 s old."""
    start = last = time.monotonic()
    done = 0

    def advance(text: str | None = None) -> None:
        nonlocal last, done
        done += 1
        now = time.monotonic()
        if now - last >= PAUSE and done < total:
            last = now
            left = (now - start) / done * (total - done)
            work = f'{title}: {text}' if text else title
            print(f'{work} {done}/{total}, {duration(left)} left', file=sys.stderr)

    return advance


def track(items: Sequence[T], title: str) -> Iterable[T]:
    """Yield the items and show the progress; see :func:`progress`."""
    with progress(title, len(items)) as advance:
        for item in items:
            yield item
            advance()


def duration(seconds: float) -> str:
    """Text of a duration in seconds: ``45 s``, ``12 min``, ``5 h 20 min`` or ``3 days 4 h``."""
    if seconds < 1:
        return f'{seconds:.2g} s'
    if seconds < 90:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    if minutes < 90:
        return f'{minutes} min'
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f'{hours} h {minutes} min'
    days, hours = divmod(hours, 24)
    return f'{days} days {hours} h'
