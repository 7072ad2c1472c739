"""Counts as tables for people and as numbers for programs."""

from collections.abc import Sequence
from typing import Any

from hybrid_mm.benchmarks.gpu_counts.measure import Step
from hybrid_mm.benchmarks.gpu_counts.trace import GPUS

_MILLISECONDS = f'ms {" (".join(GPUS)})'
OPERATOR_COLUMNS = (
    *('operator', 'kernels f / b', 'of Triton f / b', 'host copies, later', 'bytes / ideal f / b'),
    *(f'device {_MILLISECONDS}', 'launches ms', f'floor {_MILLISECONDS}', 'peak MB f / b'),
    'fp32 GFLOPs',
)
NETWORK_COLUMNS = (
    *('network', 'kernels', 'of Triton', 'host copies', 'tables', f'device {_MILLISECONDS}'),
    *('launches ms', 'GFLOPs', 'fp32 GFLOPs', 'peak GB'),
)


def operator_row(name: str, step: Step) -> list[str]:
    """Cells of :data:`OPERATOR_COLUMNS`."""
    f, b, total = step.forward, step.backward, step.total
    moved = (
        f'{counts.moved / ideal:.1f}' for counts, ideal in zip((f, b), step.ideal, strict=True)
    )
    copies = sum(total.to_device.values()) + total.tables
    return [
        name,
        f'{f.kernels} / {b.kernels}',
        f'{f.launches} / {b.launches}',
        f'{copies}, {step.repeated}',
        ' / '.join(moved),
        _by_gpu([step.seconds(gpu) for gpu in GPUS]),
        _short(step.launch_seconds * 1e3),
        _by_gpu([step.floor[gpu] for gpu in GPUS]),
        f'{f.peak / 1e6:.0f} / {b.peak / 1e6:.0f}',
        _islands(step),
    ]


def network_row(name: str, step: Step) -> list[str]:
    """Cells of :data:`NETWORK_COLUMNS`."""
    total = step.total
    return [
        name,
        f'{total.kernels}',
        f'{total.launches}',
        f'{sum(total.to_device.values())}',
        f'{total.tables}',
        _by_gpu([step.seconds(gpu) for gpu in GPUS]),
        _short(step.launch_seconds * 1e3),
        f'{sum(total.flops.values()) / 1e9:.0f}',
        _islands(step),
        f'{total.peak / 1e9:.1f}',
    ]


def problems(step: Step) -> list[str]:
    """What a step may not do: mix devices, let the host wait, copy to it, compute in float64."""
    total = step.total
    return [
        *(f'mixed devices: {text}' for text in total.mixed),
        *(f'the host waits {n} times: {place}' for place, n in total.waits.items()),
        *(f'{n} copies to the host: {place}' for place, n in total.to_host.items()),
        *(f'{n} times in float64: {place}' for place, n in total.double.items()),
    ]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown table."""
    lines = [columns, ['---'] * len(columns), *rows]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def numbers(name: str, step: Step) -> dict[str, Any]:
    """All counts of a step, for JSON."""
    passes = dict(forward=vars(step.forward), backward=vars(step.backward))
    return dict(name=name, **vars(step) | passes, launch_seconds=step.launch_seconds)


def _by_gpu(seconds: Sequence[float]) -> str:
    first, *others = (_short(s * 1e3) for s in seconds)
    return f'{first} ({", ".join(others)})'


def _short(number: float) -> str:
    return f'{number:.3g}' if number < 100 else f'{number:.0f}'


def _islands(step: Step) -> str:
    islands, wide = step.total.islands, sum(step.total.wide.values())
    flops = _short(sum(islands.values()) / 1e9) if islands else '0'
    return f'{flops} + {wide} launches' if wide else flops
