"""Tables and plots of the study, written into its page between markers."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from hybrid_mm.analysis.study.queue import Key
from hybrid_mm.analysis.study.records import Record
from hybrid_mm.analysis.study.systems import System
from hybrid_mm.benchmarks.report import MB, put_into

__all__ = ['main_table', 'pair_table', 'summary', 'write']

METRIC_NAMES = dict(segmentation='mIoU', detection='box mAP')
_HEAD = (
    *('system', 'host', '{}', 'best', 'to host', 'iterations', 'parameters', 'multiply-adds'),
    *('s / iteration', 'step MB', 'process MB'),
)
_PAIR_HEAD = (
    *('system', 'peer', '{}', 'peer', 'difference', 's / iteration', 'peer', 'x'),
    *('step MB', 'peer', 'x'),
)


def write(
    page: Path,
    task: str,
    systems: Mapping[str, System],
    records: Mapping[Key, Record],
    digests: Mapping[str, str],
) -> list[Path]:
    """Write the tables and the plot of a task.

    Args:
        page: The page; sections that are not there yet are appended.
        task: 'segmentation' or 'detection'.
        systems: All systems by name.
        records: All results; those of other configs than the present ones are left out.
        digests: Digests of the present configs by system.

    Returns:
        The files that were written.
    """
    fresh = {key: record for key, record in records.items() if digests.get(key[1]) == record.digest}
    picture = page.parent / 'images' / f'study_{task}.svg'
    own = [system for system in systems.values() if not system.peer_of and not system.only_pair]
    text = main_table(task, own, fresh) + '\n'
    written = [page]
    if any((task, system.name, 0) in fresh for system in own):
        plot(task, own, fresh, picture)
        written.append(picture)
        text += f'\n![{METRIC_NAMES[task]} of all systems](images/{picture.name})\n'
    put_into(page, f'study-{task}', text)
    put_into(page, f'study-{task}-peers', pair_table(task, systems, fresh) + '\n')
    return written


def _all_seeds(task: str, name: str, records: Mapping[Key, Record]) -> list[Record]:
    return [records[key] for key in sorted(records) if key[:2] == (task, name)]


def _shown(values: list[float]) -> str:
    """The value of one seed, or mean and standard deviation of several."""
    if len(values) == 1:
        return f'{values[0]:.1f}'
    return f'{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f} ({len(values)})'


def _gains(ours: Iterable[Record], others: Iterable[Record]) -> list[float]:
    """Differences of results with equal seeds, where both have one."""
    theirs = {record.seed: record.last for record in others}
    return [record.last - theirs[record.seed] for record in ours if record.seed in theirs]


def main_table(task: str, systems: Iterable[System], records: Mapping[Key, Record]) -> str:
    """One row for each system with a result, the best first, and the names of the others.

    Args:
        task: 'segmentation' or 'detection'.
        systems: The rows.
        records: Results of the present configs.
    """
    last = {
        system.name: statistics.mean(r.last for r in found)
        for system in systems
        if (found := _all_seeds(task, system.name, records))
    }
    rows = []
    measured = [system for system in systems if system.name in last]
    for system in sorted(measured, key=lambda s: (-last[s.name], s.name)):
        found = _all_seeds(task, system.name, records)
        first = found[0]
        gains = _gains(found, _all_seeds(task, system.host, records) if system.host else [])
        rows.append(
            [
                system.name,
                system.host or '',
                _shown([r.last for r in found]),
                _shown([r.best for r in found]),
                f'{statistics.mean(gains):+.1f}' if gains else '-' if system.host else '',
                str(int(first.curve[-1][0])),
                f'{first.params / 1e6:.2f} M',
                f'{first.macs / 1e9:.2f} G',
                f'{statistics.median(r.seconds for r in found):.2f}',
                f'{first.step_bytes / MB:.0f}',
                f'{first.resident_bytes / MB:.0f}',
            ]
        )
    table = _markdown([cell.format(METRIC_NAMES[task]) for cell in _HEAD], rows)
    return _with_rest(table, len(rows), [s.name for s in systems if s.name not in last])


def _with_rest(table: str, rows: int, rest: Iterable[str]) -> str:
    """A table, if it has rows, and the names of what has no result yet."""
    parts = [table] if rows else []
    if names := ', '.join(f'`{name}`' for name in sorted(rest)):
        parts.append(f'No result yet: {names}.')
    return '\n\n'.join(parts)


def pair_table(task: str, systems: Mapping[str, System], records: Mapping[Key, Record]) -> str:
    """One row for each network of another package with a result, beside ours, and other names.

    Args:
        task: 'segmentation' or 'detection'.
        systems: All systems by name.
        records: Results of the present configs.
    """
    rows, rest = [], []
    for system in systems.values():
        if not system.peer_of:
            continue
        ours, theirs = (_all_seeds(task, name, records) for name in (system.peer_of, system.name))
        if not (ours and theirs):
            rest.append(system.name)
            continue

        def both(show: Callable[[list[Record]], str], ours=ours, theirs=theirs) -> list[str]:
            return [show(found) for found in (ours, theirs)]

        def ratio(value: Callable[[Record], float], ours=ours, theirs=theirs) -> str:
            return f'{value(ours[0]) / value(theirs[0]):.2f}'

        rows.append(
            [
                system.peer_of,
                system.name,
                *both(lambda found: _shown([r.last for r in found])),
                f'{statistics.mean(gains):+.1f}' if (gains := _gains(ours, theirs)) else '-',
                *both(lambda found: f'{found[0].seconds:.2f}'),
                ratio(lambda record: record.seconds),
                *both(lambda found: f'{found[0].step_bytes / MB:.0f}'),
                ratio(lambda record: record.step_bytes),
            ]
        )
    table = _markdown([cell.format(METRIC_NAMES[task]) for cell in _PAIR_HEAD], rows)
    return _with_rest(table, len(rows), rest)


def summary(
    systems: Iterable[System], records: Mapping[Key, Record], digests: Mapping[Key, str]
) -> str:
    """One row for each system with the last metrics of both tasks, for other pages.

    Args:
        systems: The rows.
        records: All results.
        digests: Digests of the present configs by task, system and seed 0.
    """
    rows = []
    for system in systems:
        cells = {}
        for task in METRIC_NAMES:
            found = _all_seeds(task, system.name, records)
            found = [r for r in found if r.digest == digests[task, system.name, 0]]
            cells[task] = _shown([r.last for r in found]) if found else '-'
        rows.append([system.name, system.text, *cells.values()])
    return _markdown(['system', 'what it is', *METRIC_NAMES.values()], rows)


def _markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ['---'] * 2 + ['---:'] * (len(head) - 2), *rows]
    return '\n'.join('| ' + ' | '.join(cells) + ' |' for cells in lines)


def plot(task: str, systems: Iterable[System], records: Mapping[Key, Record], path: Path) -> None:
    """Draw the metric of all systems as bars, against time, and over the iterations.

    The same results give the same bytes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    found = [r for s in systems if (r := records.get((task, s.name, 0)))]
    found.sort(key=lambda record: record.last)
    hosts = {system.host for system in systems}
    colours = ['tab:orange' if record.system in hosts else 'tab:blue' for record in found]
    with matplotlib.rc_context({'svg.hashsalt': 'study', 'svg.fonttype': 'none'}):
        figure = Figure(figsize=(13, 2 + 0.19 * len(found)), layout='constrained')
        bars, cost, curves = figure.subplots(1, 3, width_ratios=(1.1, 1, 1))
        bars.barh([r.system for r in found], [r.last for r in found], color=colours)
        bars.set_xlabel(f'{METRIC_NAMES[task]} (plain hosts in orange)')
        bars.margins(y=0.01)
        cost.scatter([r.seconds for r in found], [r.last for r in found], c=colours, s=12)
        for record in found:
            at = (record.seconds, record.last)
            cost.annotate(record.system, at, fontsize=6, xytext=(2, 2), textcoords='offset points')
        cost.set_xscale('log')
        cost.set_xlabel('CPU seconds per iteration')
        for record, colour in zip(found, colours, strict=True):
            front = record.system in hosts
            curves.plot(*zip(*record.curve, strict=True), color=colour, alpha=1.0 if front else 0.3)
        curves.set_xlabel('iteration')
        for ax in (bars, cost, curves):
            ax.grid(alpha=0.3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={'Date': None})
