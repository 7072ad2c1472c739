"""Curves of losses and metrics from the ``scalars.json`` that MMEngine writes."""

import json
from pathlib import Path

from hybrid_mm.errors import UserError, warn

__all__ = ['find_scalars', 'plot_curves', 'read_records', 'read_scalars']


def find_scalars(path: str | Path) -> Path:
    """Find ``scalars.json`` of a run: the file itself, or the newest one below a work dir.

    Args:
        path: A ``scalars.json``, or a work dir.

    Raises:
        FileNotFoundError: There is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    found = sorted(path.rglob('vis_data/scalars.json'), key=lambda p: p.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f'{path} holds no vis_data/scalars.json; is it a work dir?')
    return found[-1]


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
    """Read steps and values by name.

    Args:
        path: ``scalars.json`` or a work dir.

    Returns:
        For each name, in order of appearance, the steps and the values. Steps of training are
        iterations, those of validation epochs or iterations, as the runner wrote them.

    Raises:
        FileNotFoundError: See :func:`find_scalars`.
        UserError: (a ValueError) See :func:`read_records`.
    """
    curves = {}
    for number, record in enumerate(read_records(find_scalars(path)), 1):
        step = record.get('step', record.get('iter'))
        step = step if isinstance(step, (int, float)) else number
        for name, value in record.items():
            if name not in ('step', 'iter', 'epoch') and isinstance(value, (int, float)):
                steps, values = curves.setdefault(name, ([], []))
                steps.append(step)
                values.append(value)
    return curves


def plot_curves(
    runs: dict[str, dict[str, tuple[list[int], list[float]]]], names: list[str], out: str | Path
) -> None:
    """Draw one panel per name with one line per run.

    Args:
        runs: Results of :func:`read_scalars` by the label of the run.
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
        if not any(name in curves for curves in runs.values()):
            raise KeyError(name)
        axes = figure.add_subplot(lines, columns, i + 1)
        for label, curves in runs.items():
            if name in curves:
                few = len(curves[name][0]) < 30
                axes.plot(*curves[name], label=label, marker='.' if few else None, linewidth=1)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel('step')
        axes.grid(alpha=0.3)
        if len(runs) > 1:
            axes.legend(fontsize=8)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
