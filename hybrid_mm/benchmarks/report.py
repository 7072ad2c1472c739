"""Reports of benchmarks: JSON, CSV, Markdown, cells of tables, plots, and the environment."""

import csv
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path

import torch

from hybrid_mm.benchmarks.core import Row

MB = 2**20


def environment(device: torch.device, packages: Iterable[str] = ()) -> dict[str, str]:
    """Describe the machine, the threads, and the versions of torch and of other packages."""
    cpu = platform.processor() or platform.machine()
    info = Path('/proc/cpuinfo')
    if info.exists():
        lines = [x for x in info.read_text().splitlines() if x.startswith('model name')]
        cpu = lines[0].partition(':')[2].strip() if lines else cpu
    found = dict(
        date=time.strftime('%Y-%m-%d'),
        cpu=f'{cpu}, {os.cpu_count()} logical cores',
        threads=str(torch.get_num_threads()),
        python=platform.python_version(),
        torch=torch.__version__,
    )
    if device.type == 'cuda':
        found['gpu'] = f'{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}'
    owners = (
        importlib.metadata.packages_distributions()
    )  # mmpretrain may be provided by onedl-mmpretrain
    for package in packages:
        names = owners.get(package)
        found[package] = importlib.metadata.version(names[0]) if names else 'not installed'
    return found


def as_json(name: str, surroundings: dict[str, str], rows: list[Row]) -> dict:
    """Content of the JSON file: all rows, with the environment."""
    return dict(benchmark=name, environment=surroundings, rows=[asdict(row) for row in rows])


def write_csv(rows: list[Row], path: Path) -> None:
    """Write all rows; columns are the fields of :class:`~hybrid_mm.benchmarks.core.Row`."""
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator='\n')
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


HEAD = (
    'case', 'candidate', 'forward ms', 'x', 'with backward ms', 'x', 'peak MB',
    'peak with backward MB', 'x', 'kept MB', 'difference',
)  # fmt: skip
CURVES = dict(pixels='pixels', kernel_size='kernel size')
LEGEND = (
    'Peak memory is allocated in addition to the inputs; kept memory is held between forward and '
    'backward in addition to the output. Columns x are multiples of the first candidate. '
    'Differences of outputs and gradients are relative, in the norm.'
)


def cells(row: Row) -> list[str]:
    """Cells of a row as text, in the order of ``HEAD``."""
    if row.note:
        return [row.case, f'{row.candidate} (not measured)', *['-'] * (len(HEAD) - 2)]
    return [
        row.case,
        row.candidate,
        f'{row.inference_ms:.1f}',
        f'{row.inference_ratio:.2f}',
        f'{row.training_ms:.1f}',
        f'{row.training_ratio:.2f}',
        f'{row.inference_peak / MB:.1f}',
        f'{row.training_peak / MB:.1f}',
        f'{row.training_peak_ratio:.2f}',
        f'{row.kept / MB:.1f}',
        f'{row.difference:.0e}',
    ]


def notes(rows: list[Row]) -> list[str]:
    """Reasons why candidates were not measured, each once."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if row.note:
            reasons.setdefault((row.candidate, row.note), []).append(row.case)
    return [
        f'{candidate}: {note} ({len(found)} cases)' for (candidate, note), found in reasons.items()
    ]


def markdown(name: str, surroundings: dict[str, str], rows: list[Row]) -> str:
    """Markdown section of a benchmark: environment, table and notes."""
    lines = [
        f'### {name.replace("_", " ")}, measured\n',
        '; '.join(f'{k} {v}' for k, v in surroundings.items()) + '.\n',
        f'{LEGEND}\n',
        '| ' + ' | '.join(HEAD) + ' |',
        '|' + '---|' * len(HEAD),
        *('| ' + ' | '.join(cells(row)) + ' |' for row in rows),
        *(f'\n{note}' for note in notes(rows)),
    ]
    return '\n'.join(lines) + '\n'


def put_into(path: Path, name: str, text: str) -> None:
    """Replace the section of a benchmark in a document, or append it."""
    begin, end = f'<!-- benchmark:{name}:begin -->', f'<!-- benchmark:{name}:end -->'
    old = path.read_text() if path.exists() else '# Benchmarks\n'
    before, found, rest = old.partition(begin)
    after = rest.partition(end)[2] if found else '\n'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{before.rstrip()}\n\n{begin}\n{text}{end}{after}')


def plot(name: str, rows: list[Row], path: Path) -> None:
    """Draw time and memory as multiples of the baseline, and curves of time if cases have them."""
    from matplotlib.figure import Figure

    measured = [r for r in rows if r.training_ms is not None]
    bars = [r for r in measured if all(getattr(r, key) is None for key in CURVES)]
    curves = {key: [r for r in measured if getattr(r, key) is not None] for key in CURVES}
    curves = {key: points for key, points in curves.items() if points}
    panels = 2 * bool(bars) + len(curves)
    if not panels:
        return
    cases = len({row.case for row in bars})
    figure = Figure(figsize=(6 * panels, max(5, cases)), layout='constrained')
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    figure.suptitle(f'{name}: forward and backward')
    names = list(dict.fromkeys(r.case for r in bars))
    candidates = list(dict.fromkeys(r.candidate for r in bars))
    for key, title in (('training_ratio', 'time'), ('training_peak_ratio', 'peak memory')):
        if not bars:
            break
        ax = axes.pop(0)
        for i, candidate in enumerate(candidates):
            found = [
                (names.index(r.case), getattr(r, key)) for r in bars if r.candidate == candidate
            ]
            height = 0.8 / len(candidates)
            at = [y + height * (i - (len(candidates) - 1) / 2) for y, _ in found]
            ax.barh(at, [x for _, x in found], height, label=candidate)
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.set_xscale('log')
        ax.axvline(1, color='black', linewidth=0.8)
        ax.set_xlabel(f'{title}, multiple of the first candidate measured')
        ax.legend(fontsize='small')
    for ax, (key, points) in zip(axes, curves.items(), strict=True):
        for candidate in dict.fromkeys(r.candidate for r in points):
            line = [(getattr(r, key), r.training_ms) for r in points if r.candidate == candidate]
            ax.loglog(*zip(*sorted(line), strict=True), marker='o', label=candidate)
        ax.set_xlabel(CURVES[key])
        ax.set_ylabel('ms')
        ax.legend(fontsize='small')
    figure.savefig(path, dpi=120)
