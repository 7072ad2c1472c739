"""Table of docs/export.md: which networks can be exported to ONNX, alone and in larger models."""

import contextlib
import fnmatch
import math
import multiprocessing
import queue
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from hybrid_mm.export import onnx_files
from hybrid_mm.export.graphs import ExportError, graphs_of
from hybrid_mm.registry import MODELS
from hybrid_mm.run.console import duration
from hybrid_mm.zoo.families import BASE_MODELS, families, model_with, shortened

COLUMNS = ('backbone', 'any size', *BASE_MODELS)
SIZE = (64, 96)
SECONDS = 120  # of a core, then a cell is given up: solving for symbolic sizes may never end
FIRST = 45  # seconds, after which a cell that is not done is said
BEGIN, END = '<!-- export:begin -->', '<!-- export:end -->'


def update(path: Path, pattern: str, say: Callable[[str], None]) -> Iterator[tuple[str, dict]]:
    """Compute the rows of the families that match a pattern, and write them one by one.

    Args:
        path: Document with the table, in which rows of other families stay.
        pattern: Names with wildcards, such as ``VAN*``.
        say: Called with a line before each row is computed, with the name of the family, and about
            each cell that takes long, before its time is over.

    Yields:
        Name and cells of each family.
    """
    known = families()
    rows = {name: cells for name, cells in read(path).items() if name in known}
    for name in fnmatch.filter(known, pattern):
        say(f'{name} ...')
        rows[name] = row(name, say=say)
        write(path, rows)
        yield name, rows[name]


def row(
    name: str, seconds: int = SECONDS, say: Callable[[str], None] | None = None
) -> dict[str, str]:
    """Cells of a family by column, computed in another process, which can be stopped.

    Args:
        name: Name of the family.
        seconds: Time of a core that a cell may take.
        say: Called with a line about a cell that takes long.

    Raises:
        RuntimeError: The process ended by itself.
    """
    context, cells = multiprocessing.get_context('spawn'), {}
    while len(cells) < len(COLUMNS):
        left = tuple(column for column in COLUMNS if column not in cells)
        dynamic = not cells.get('any size', 'no').startswith('no')
        results = context.Queue()
        arguments = name, left, dynamic, seconds, results
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        for column in left:
            begun, after = time.monotonic(), FIRST
            while column not in cells and (process.is_alive() or not results.empty()):
                with contextlib.suppress(queue.Empty):
                    kind, text = results.get(timeout=1)
                    if kind == 'cell':
                        cells[column] = text
                    elif say is not None:
                        say(f'{name}, {column}: {text}')
                passed = time.monotonic() - begun
                if column not in cells and passed > after and say is not None:
                    after += seconds
                    say(
                        f'{name}, {column}: not done after {duration(passed)}; given up after '
                        f'{seconds} s of a core'
                    )
            if column not in cells:
                process.join()
                if process.exitcode != -signal.SIGXCPU:
                    raise RuntimeError(f'{name}, {column}: the process that exports it ended')
                cells[column] = f'no: not within {seconds} s of a core'
                break
        process.join()
    return cells


def _work(name: str, columns: tuple[str, ...], dynamic: bool, seconds: int, results: Any) -> None:
    """Body of the process that computes cells; each is put into the queue ``results``."""
    torch.manual_seed(0)
    config = shortened(families()[name])

    def say(text: str) -> None:
        results.put(('note', text))

    for column in columns:
        # time of the processor, not of the clock: the load of the machine must not matter
        limit = math.ceil(time.process_time()) + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))
        if column == 'any size':
            text = cell(config, column, True, say)
            dynamic = not text.startswith('no')
        else:
            text = cell(config, column, column in BASE_MODELS and dynamic, say)
        results.put(('cell', text))


def cell(config: dict, column: str, dynamic: bool, say: Callable[[str], None] | None = None) -> str:
    """Export one network and compare it with PyTorch.

    Args:
        config: Config of the backbone.
        column: Column of the table: the backbone alone, or the head of a model around it.
        dynamic: Export for any size of the image, and compare at other sizes as well.
        say: See :func:`hybrid_mm.export.onnx_files.export`.

    Returns:
        Text of the cell: the largest difference, or ``no: REASON``.
    """
    size = onnx_files.traced_size(SIZE) if dynamic else SIZE
    alone, worst = column not in BASE_MODELS, 0.0
    try:
        model = MODELS.build(dict(config)) if alone else model_with(config, column)
        with tempfile.TemporaryDirectory() as folder:
            for graph in graphs_of(model, size):
                path = Path(folder) / f'{graph.part}.onnx'
                onnx_files.export(graph, path, dynamic, say=say)
                others = onnx_files.other_sizes(model, size, graph.part) if dynamic else ()
                worst = max(worst, onnx_files.check(graph, path, others))
    except ExportError as error:
        text = str(error).removeprefix('cannot be exported: ').partition(';')[0]
        return f'no: {text.replace("|", "/")}'
    return f'{worst:.0e}' + (' (any)' if dynamic and not alone else '')


def read(path: Path) -> dict[str, dict[str, str]]:
    """Rows of the table in a document, by name; none if there is no such file."""
    if not path.exists():
        return {}
    lines = path.read_text().partition(BEGIN)[2].partition(END)[0].strip().split('\n')[2:]
    found = [[part.strip() for part in line.strip('|').split('|')] for line in lines]
    return {name: dict(zip(COLUMNS, cells, strict=True)) for name, *cells in found}


def write(path: Path, rows: dict[str, dict[str, str]]) -> None:
    """Replace the table between the marks of a document, which is created if necessary."""
    lines = [f'| network | {" | ".join(COLUMNS)} |', '|---' * (len(COLUMNS) + 1) + '|']
    lines += [
        f'| {name} | {" | ".join(cells[column] for column in COLUMNS)} |'
        for name, cells in sorted(rows.items(), key=lambda item: item[0].lower())
    ]
    old = path.read_text() if path.exists() else f'{BEGIN}\n{END}\n'
    before, _, rest = old.partition(BEGIN)
    after = rest.partition(END)[2] or '\n'
    path.write_text('\n'.join([f'{before}{BEGIN}', *lines, END]) + after)
