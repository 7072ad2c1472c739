"""What a comparison of models is written as: cells of a table, Markdown, CSV, JSON and a plot."""

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from hybrid_mm.analysis.comparison import MODES, Entry, main_metrics
from hybrid_mm.run.outputs import plain_label

MB = 2**20
_SKIPPED = 'metrics', 'errors', 'size'


def table(entries: Sequence[Entry], metrics: Sequence[str] = ()) -> tuple[list[str], list[list]]:
    """Head and rows of the table; columns without any value are left out.

    Args:
        entries: The models.
        metrics: Names of the metrics; by default see :func:`.comparison.main_metrics`.
    """
    several = len({tuple(entry.size) for entry in entries if entry.size}) > 1
    columns: dict[str, list[str]] = {'model': [entry.label for entry in entries]}
    if several:
        columns['size'] = [_size(entry.size) for entry in entries]
    columns['parameters, M'] = [_text(entry.params, 1e6, 2) for entry in entries]
    columns['MACs, G'] = [_text(entry.macs, 1e9, 2) for entry in entries]
    for mode in MODES:
        columns[f'{mode}, ms'] = [_time(entry, mode) for entry in entries]
        columns[f'{mode}, img/s'] = [rate(entry, mode) for entry in entries]
        columns[f'{mode}, x'] = [_text(getattr(e, f'{mode}_ratio'), 1, 2) for e in entries]
        columns[f'{mode}, MB'] = [_text(getattr(e, f'{mode}_bytes'), MB, 0) for e in entries]
    for metric in metrics or main_metrics(entries):
        columns[metric] = [_metric(entry.metrics.get(metric)) for entry in entries]
    kept = {n: c for n, c in columns.items() if n == 'model' or any(cell != '-' for cell in c)}
    return list(kept), [list(row) for row in zip(*kept.values(), strict=True)]


def print_comparison(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print the table; heads are in two lines, and off a terminal it is as wide as it has to be."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    shown = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    before = ''
    for i, name in enumerate(head):
        group, _, what = name.rpartition(', ')
        above = '' if group == before else group
        before = group
        text = f'{above}\n{what}'
        shown.add_column(text, justify='right' if i else 'left', no_wrap=i > 0, overflow='fold')
    for row in rows:
        shown.add_row(*map(escape, row))
    console = Console()
    (console if console.is_terminal else Console(width=200)).print(shown)


def _text(value: float | None, unit: float, digits: int) -> str:
    return '-' if value is None else f'{value / unit:,.{digits}f}'


def _metric(value: float | None) -> str:
    return '-' if value is None else f'{value:.4g}'


def _size(size: tuple[int, int] | None) -> str:
    return f'{size[0]} x {size[1]}' if size else '-'


def _time(entry: Entry, mode: str) -> str:
    value, spread = getattr(entry, f'{mode}_ms'), getattr(entry, f'{mode}_spread')
    if value is None:
        return '-'
    digits = 1 if value < 1000 else 0
    return f'{value:.{digits}f}' + (f' ± {100 * spread:.0f}%' if spread is not None else '')


def rate(entry: Entry, mode: str) -> str:
    """Images per second."""
    value = getattr(entry, f'{mode}_ms')
    if value is None or not entry.batch:
        return '-'
    found = 1e3 * entry.batch / value
    return f'{found:.3g}' if found < 1000 else f'{found:,.0f}'


def notes(entries: Sequence[Entry]) -> list[str]:
    """A line for every failure, and for metrics where they are from."""
    found = [
        f'{entry.label}: {"" if part == "build" else part + ": "}{error}'
        for entry in entries
        for part, error in entry.errors.items()
    ]
    return found + [
        f'{entry.label}: metrics of {entry.metrics_from}'
        for entry in entries
        if entry.metrics and entry.metrics_from
    ]


def conditions(settings: Mapping[str, Any]) -> str:
    """How models were measured, in a sentence."""
    many, rounds = 's' * (settings['batch'] > 1), settings['rounds']
    what = f'{settings["batch"]} image{many} in a batch, {settings["input"]}'
    if not rounds:
        return f'{what}; no times were measured.'
    times = 'times of one round' if rounds == 1 else f'medians of {rounds} rounds in turn'
    spread = ' ± half of the interquartile range' * (rounds > 1)
    return (
        f'{what}, {settings["precision"]}, {settings["device"]}; {times}{spread}; x: multiple of '
        'the first model, within a round.'
    )


_DETAILS = (
    "Forward: predictions of a model with its post-processing, or a backbone's maps. Training: "
    'loss of drawn annotations (of a backbone the mean of its maps), backward pass and the '
    "optimizer's step. MACs: of one image. MB: weights, in training the optimizer's state, and "
    'what torch allocates at the peak of the pass.'
)


def markdown(
    entries: Sequence[Entry],
    settings: Mapping[str, Any],
    environment: Mapping[str, str],
    metrics: Sequence[str] = (),
) -> str:
    """Markdown of the table, with the conditions and the failures."""
    head, rows = table(entries, metrics)
    lines = [
        _row(head),
        '|---|' + '---:|' * (len(head) - 1),
        *map(_row, rows),
        '',
        conditions(settings),
        '',
        _DETAILS,
        '',
        '; '.join(f'{key} {value}' for key, value in environment.items()) + '.',
        *(f'\n{_escaped(note)}' for note in notes(entries)),
    ]
    return '\n'.join(lines) + '\n'


def _row(cells: Sequence[str]) -> str:
    return '| ' + ' | '.join(map(_escaped, cells)) + ' |'


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return re.sub(r'([\\`*|<])', r'\\\1', ' '.join(text.split()))


def as_json(
    entries: Sequence[Entry], settings: Mapping[str, Any], environment: Mapping[str, str]
) -> dict[str, Any]:
    """Content of ``comparison.json``: all figures, how they were measured, and where."""
    models = [asdict(entry) for entry in entries]
    for model in models:  # JSON has no NaN
        model['metrics'] = {k: v if math.isfinite(v) else None for k, v in model['metrics'].items()}
    return dict(kind='comparison', settings=settings, environment=environment, models=models)


def write_csv(entries: Sequence[Entry], path: Path) -> None:
    """Write all figures, a line per model; a column per metric."""
    metrics = list(dict.fromkeys(name for entry in entries for name in entry.metrics))
    plain = [item.name for item in fields(Entry) if item.name not in _SKIPPED]
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow([*plain, 'height', 'width', *metrics, 'error'])
        for entry in entries:
            figures = [getattr(entry, name) for name in plain]
            found = [entry.metrics.get(name) for name in metrics]
            errors = '; '.join(f'{part}: {text}' for part, text in entry.errors.items())
            writer.writerow([*figures, *(entry.size or (None, None)), *found, errors])


def plot(entries: Sequence[Entry], path: str | Path, metrics: Sequence[str] = ()) -> bool:
    """Draw the first metric over the time and over the multiply-adds; without metrics the time.

    Args:
        entries: The models.
        path: Picture to write.
        metrics: See :func:`table`.

    Returns:
        Whether there was anything to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric = next(iter(metrics or main_metrics(entries)), None)
    panels = []
    for x in ('forward_ms', 'macs') if metric else ('macs',):
        points = []
        for entry in entries:
            value = entry.forward_ms if metric is None else entry.metrics.get(metric)
            if getattr(entry, x) is not None and value is not None:
                unit = 1e9 if x == 'macs' else 1
                points.append((getattr(entry, x) / unit, value, entry.label))
        if points:
            panels.append((x, points))
    if not panels:
        return False
    figure = Figure(figsize=(6.4 * len(panels), 4.4), layout='constrained')
    FigureCanvasAgg(figure)
    labels = {'forward_ms': 'forward pass, ms per batch', 'macs': 'multiply-adds per image, 1e9'}
    colours = {entry.label: f'C{i}' for i, entry in enumerate(entries)}
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (x, points) in zip(axes, panels, strict=True):
        for a, b, label in points:
            ax.plot(a, b, marker='o', color=colours[label], markersize=7)
        ax.set(xlabel=labels[x], ylabel=plain_label(metric or labels['forward_ms']))
        ax.margins(0.2)
        ax.grid(alpha=0.3)
    figure.draw_without_rendering()
    for ax, (_, points) in zip(axes, panels, strict=True):
        _name_points(ax, points, colours)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return True


def _name_points(
    ax: Any, points: Sequence[tuple[float, float, str]], colours: Mapping[str, str]
) -> None:
    """Write the labels beside the points where they cover neither points nor each other."""
    taken = []
    for x, y, _ in points:
        left, low = ax.transData.transform((x, y))
        taken.append((left - 6, low - 6, left + 6, low + 6))
    frame = ax.get_window_extent()
    sides = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))
    places = [(d * x, d * y) for d in (9, 18, 30, 44, 60) for x, y in sides]
    for x, y, label in points:
        costs = []
        for sideways, up in places:
            how = dict(ha=('right', 'center', 'left')[_sign(sideways) + 1])
            how['va'] = ('top', 'center', 'bottom')[_sign(up) + 1]
            text = ax.annotate(
                plain_label(label), (x, y), (sideways, up), textcoords='offset points', **how
            )
            text.set(fontsize=9, color=colours[label])
            box = text.get_window_extent()
            own = box.x0, box.y0, box.x1, box.y1
            inside = _overlap(own, (frame.x0, frame.y0, frame.x1, frame.y1))
            cost = sum(_overlap(own, other) for other in taken)
            cost += 10 * ((own[2] - own[0]) * (own[3] - own[1]) - inside)
            costs.append((cost, text, own))
            if cost < 1:
                break
        best = min(costs, key=lambda item: item[0])
        for item in costs:
            if item is not best:
                item[1].remove()
        taken.append(best[2])


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


_Box = tuple[float, float, float, float]


def _overlap(a: _Box, b: _Box) -> float:
    """Common area of two boxes (left, low, right, high)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)
