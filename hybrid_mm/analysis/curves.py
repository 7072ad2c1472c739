"""Curves of losses and metrics, from the logs of runs.

MMEngine writes ``vis_data/scalars.json``: a line per logged iteration, and one per validation with
the epoch as its step. In runs that count iterations that epoch is always 0: the iteration of a
validation follows from the lines before it and from ``val_interval`` of the config beside the file.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hybrid_mm.errors import UserError, warn
from hybrid_mm.run.outputs import plain_label

__all__ = [
    'Curve',
    'Run',
    'find_scalars',
    'main_metrics',
    'metrics_of',
    'plot_curves',
    'read_records',
    'read_run',
    'read_scalars',
]

_OTHERS = 'step', 'iter', 'epoch', 'mode'
TIMES = 'time', 'data_time', 'memory'
"""Scalars that say nothing of the model."""
USUAL = 'bbox_mAP', 'segm_mAP', 'PQ', 'mIoU', 'top1'
"""Ends of the names of the metrics that papers report, the main one first."""
_SETTINGS = 'lr', 'base_lr', 'momentum'  # which MMCV 1.x writes in the lines of validations, too
_LENGTHS = 'val_interval', 'max_iters'


@dataclass
class Curve:
    """Values of a scalar.

    Attributes:
        iterations: Iteration of each value.
        epochs: Epoch of each value, None where the log says none.
        values: The values.
    """

    iterations: list[int] = field(default_factory=list)
    epochs: list[int | None] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass
class Run:
    """What a log says.

    Attributes:
        curves: By name, in order of appearance.
        metrics: Names of the scalars of validations and tests.
        tested: Whether it is the log of a test, whose values belong to no iteration.
    """

    curves: dict[str, Curve] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    tested: bool = False

    def add(self, record: dict, iteration: int, epoch: int | None, metric: bool) -> None:
        """Add the numbers of a line of a log."""
        for name, value in record.items():
            if name in _OTHERS or isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            curve = self.curves.setdefault(name, Curve())
            curve.iterations.append(iteration)
            curve.epochs.append(epoch)
            curve.values.append(value)
            if metric and name not in (*TIMES, *_SETTINGS, *self.metrics):
                self.metrics.append(name)


def find_scalars(path: str | Path) -> Path:
    """Find ``scalars.json`` of a run: the file itself, or the newest one below a work dir.

    Args:
        path: A ``scalars.json``, or a work dir.

    Raises:
        FileNotFoundError: There is none.
    """
    return _logs(Path(path))[-1]


def _logs(path: Path) -> list[Path]:
    """Logs of a run, the newest last: of trainings, or else of tests, if a work dir has none."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise FileNotFoundError(f'{path} does not exist')
    for pattern in ('vis_data/scalars.json', '*.log.json', '[0-9]*_[0-9]*.json'):
        found = [file for file in path.rglob(pattern) if file.is_file()]
        if found:
            return sorted(found, key=lambda p: p.stat().st_mtime)
    raise FileNotFoundError(
        f'{path} holds no vis_data/scalars.json, no *.log.json and no metrics of a test; is it a '
        'work dir?'
    )


def read_records(file: Path) -> list[dict]:
    """Read the lines of a ``scalars.json``, without a last one that a killed run left incomplete.

    Args:
        file: The file.

    Raises:
        UserError: (a ValueError) The file cannot be read, or a line is not a JSON object.
    """
    records = []
    try:
        text = file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{file} is not a scalars.json: {error}') from error
    try:
        whole = json.loads(text)
        if isinstance(whole, dict):
            return [whole]
    except (ValueError, RecursionError):
        pass  # of several lines, as usual
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError('no object')
        except (ValueError, RecursionError) as error:
            if number == len(lines) > 1 and not text.endswith('\n'):
                warn(f'{file}: the last line is incomplete')
                break
            raise UserError(f'{file}, line {number} is not JSON of scalars') from error
        records.append(record)
    return records


def read_scalars(path: str | Path) -> dict[str, tuple[list[int], list[float]]]:
    """Read iterations and values by name; see :func:`read_run`.

    Args:
        path: A ``scalars.json``, or a work dir.
    """
    curves = read_run(path).curves
    return {name: (curve.iterations, curve.values) for name, curve in curves.items()}


def read_run(path: str | Path) -> Run:
    """Read the log of a run.

    Args:
        path: Work dir, ``scalars.json``, ``*.log.json`` of MMDetection 2.x and its siblings, or the
            metrics that ``tools/test.py`` writes. Of a work dir that holds several runs the newest
            is read, and, if that was resumed, those before it up to where it begins.

    Raises:
        FileNotFoundError: See :func:`find_scalars`.
        UserError: (a ValueError) See :func:`read_records`.
    """
    files = _logs(Path(path))
    parts: list[list[tuple[dict, int, int | None, bool]]] = []
    begin: int | None = None
    for number, file in reversed(list(enumerate(files))):
        records = read_records(file)
        if not records and number:  # begun, and nothing logged yet
            continue
        if len(records) == 1 and not any(key in records[0] for key in ('step', 'iter', 'mode')):
            if not parts:
                run = Run(tested=True)
                run.add(records[0], 0, None, metric=True)
                return run
            break
        old = any('mode' in record for record in records)
        placed = _placed_old(records) if old else _placed(records, *_lengths(file))
        if begin is not None:
            placed = [item for item in placed if item[1] < begin]
        parts.insert(0, placed)
        steps = sorted({item[1] for item in placed if not item[3]})
        known = steps
        if len(steps) == 1 and number:  # the one before it says how often lines are written
            known = sorted({r['step'] for r in read_records(files[number - 1]) if _is_step(r)})
        interval = known[1] - known[0] if len(known) > 1 else steps[0] if steps else 0
        if not steps or steps[0] <= interval:  # begun anew, not resumed
            break
        begin = steps[0]
    run = Run()
    for part in parts:
        for item in part:
            run.add(*item)
    return run


def _is_step(record: dict) -> bool:
    """Whether this is a line of MMEngine of an iteration."""
    return 'iter' in record and isinstance(record.get('step'), int)


def main_metrics(names: Sequence[str]) -> list[str]:
    """Those of some metrics that papers report, the main one first; without any, the first two.

    Args:
        names: Names as in logs, such as 'coco/bbox_mAP'.
    """
    found = [name for end in USUAL for name in names if name.rpartition('/')[2] == end]
    return found or list(names[:2])


def _number(value: object, default: int) -> int:
    return int(value) if isinstance(value, (int, float)) else default


_Placed = list[tuple[dict, int, int | None, bool]]
"""Lines of a log with their iteration, their epoch, and whether they are of a validation."""


def _placed(records: Sequence[dict], interval: int | None, total: int | None) -> _Placed:
    """Find the iteration and the epoch of the lines of MMEngine.

    Args:
        records: The lines.
        interval: Iterations between two validations, of runs that do not count epochs.
        total: Iterations of such a run.
    """
    steps = [_number(r.get('step', r.get('iter')), n) for n, r in enumerate(records, 1)]
    of_training = ['iter' in r or 'step' not in r for r in records]
    found: _Placed = []
    last, epoch, before = 0, None, 0
    for number, (record, step) in enumerate(zip(records, steps, strict=True)):
        if of_training[number]:
            epoch = record.get('epoch')
            found.append((record, step, epoch, False))
            last = step
        elif step and step == epoch:
            found.append((record, last, step, True))
        elif step >= max(last, 1):
            found.append((record, step, None, True))
        elif step:  # an epoch whose last iterations were not logged
            found.append((record, last, step, True))
        else:
            following = zip(steps[number:], of_training[number:], strict=True)
            end = next((s for s, train in following if train), None)
            before = _validated(last, end, before, interval, total)
            start = 0 if last == 0 and any('epoch' in r for r in records) else None
            found.append((record, before, start, True))
    return found


def _validated(
    last: int, end: int | None, before: int, interval: int | None, total: int | None
) -> int:
    """Iteration of a validation that lies between two logged ones.

    Args:
        last: The logged iteration before it, or 0.
        end: The one after it; None if there is none.
        before: Iteration of the validation before it, or 0.
        interval: Iterations between two validations, if that is known.
        total: Iterations of the run, after which there is a validation, too, if that is known.
    """
    if not interval:
        return last
    due = max(-(-last // interval), before // interval + 1) * interval
    if end is not None:
        return due if due < end else last
    return last if total is None or last >= total else min(due, total)


def _placed_old(records: Sequence[dict]) -> _Placed:
    """Find the iteration and the epoch of the lines of MMCV 1.x, which counts within an epoch."""
    train = [r for r in records if r.get('mode') == 'train' and 'iter' in r]
    epochs = {_number(r.get('epoch'), 1) for r in train}
    length = max((_number(r['iter'], 0) for r in train), default=0) if len(epochs) > 1 else 0
    found: _Placed = []
    last = 0
    for record in records:
        if record.get('mode') not in ('train', 'val'):
            continue  # the line of the environment
        epoch = _number(record.get('epoch'), 1)
        if record['mode'] == 'train':
            last = (epoch - 1) * length + _number(record.get('iter'), last)
        shown = epoch if length or (record['mode'] == 'val' and not train) else None
        found.append((record, last, shown, record['mode'] == 'val'))
    return found


def _lengths(file: Path) -> list[int | None]:
    """``val_interval`` and ``max_iters`` in the config that MMEngine writes beside a log."""
    try:
        text = file.with_name('config.py').read_text()
    except (OSError, UnicodeDecodeError):
        return [None, None]
    found = [re.search(rf'\b{name}\s*=\s*(\d+)', text) for name in _LENGTHS]
    return [int(match[1]) if match else None for match in found]


def metrics_of(
    run: Run, pick: str = 'last', names: Sequence[str] | None = None
) -> tuple[dict[str, float], str]:
    """Metrics of the last or the best validation of a run.

    Args:
        run: The run.
        pick: 'last', or 'best': the largest value of the main metric.
        names: Names of the metrics, the first of which is the main one; by default all.

    Returns:
        The metrics, and where they are from.
    """
    main = names[0] if names else main_metrics(run.metrics)[0]
    names = list(names or run.metrics)
    first = run.curves[main]
    at = len(first.values) - 1
    if pick == 'best':
        known = [i for i, value in enumerate(first.values) if value == value]
        at = max(known, key=lambda i: first.values[i], default=at)
    iteration, epoch = first.iterations[at], first.epochs[at]
    found = {}
    for name in names:
        curve = run.curves[name]
        here = [i for i, other in enumerate(curve.iterations) if other == iteration]
        if here:
            found[name] = float(curve.values[here[-1]])
    if run.tested:
        return found, 'the test'
    where = f'epoch {epoch}' if epoch else f'iteration {iteration}'
    return found, f'the {pick} validation, {where},'


def plot_curves(runs: dict[str, Run], names: list[str], out: str | Path) -> None:
    """Draw one panel per name with one line per run.

    Metrics are drawn over the epochs if all runs count these, everything else over iterations.
    What a test found is a horizontal line.

    Args:
        runs: Results of :func:`read_run` by the label of the run.
        names: Names of the scalars.
        out: Picture to write, in the format of its suffix.

    Raises:
        KeyError: No run has a scalar of that name.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(4.5 * columns, 3 * lines), layout='constrained')
    FigureCanvasAgg(figure)
    for i, name in enumerate(names):
        own = {label: run for label, run in runs.items() if name in run.curves}
        if not own:
            raise KeyError(name)
        axes = figure.add_subplot(lines, columns, i + 1)
        trained = [run.curves[name] for run in own.values() if not run.tested]
        metric = any(name in run.metrics for run in own.values())
        by_epoch = metric and all(None not in curve.epochs for curve in trained)
        for number, (label, run) in enumerate(runs.items()):
            colour, curve = f'C{number}', run.curves.get(name)
            label = plain_label(label)
            if curve is None:
                continue
            if run.tested:
                axes.axhline(curve.values[-1], color=colour, label=label, ls='--', linewidth=1)
                continue
            x = curve.epochs if by_epoch else curve.iterations
            mark = '.' if len(x) < 30 else None
            axes.plot(x, curve.values, color=colour, label=label, marker=mark, linewidth=1)
        axes.set_title(plain_label(name), fontsize=10)
        if trained:
            axes.set_xlabel('epoch' if by_epoch else 'iteration')
        else:
            axes.set_xticks([])
        axes.grid(alpha=0.3)
        if len(runs) > 1:
            axes.legend(fontsize=8)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
