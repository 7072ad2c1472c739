"""Parameters, multiply-adds, time and memory of networks against the size of their kernels.

Sources: "Large Separable Kernel Attention" (arXiv 2309.01439), figures 3 and 6; "PeLK" (arXiv
2403.07589), figure 2; "SLaK" (arXiv 2207.03620).
"""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mmengine.registry import MODELS
from torch import nn

import hybrid_mm.registry  # noqa: F401  (type='hybrid_mm.X')
from hybrid_mm.analysis.complexity import complexity, count
from hybrid_mm.analysis.variants import Passes, take_turns
from hybrid_mm.benchmarks.core import memory

VAN = {
    'lka': 'lka',
    'lska': 'lska',
    'lka-trivial': 'lka_trivial',
    'lska-trivial': 'lska_trivial',
    'slak-decomposed': 'slak',
    'slak-sparse-decomposed': 'slak',
}
SPARSITY = 0.4  # of SLaK's kernels
_KERNELS = '.lka.tall', '.lka.wide', '.lka.small'
FAMILIES = (*VAN, 'pelk', 'slak')


@dataclass
class Point:
    """Figures of one network; times in milliseconds per image, memory in bytes per batch.

    Memory is the peak of allocations beyond parameters and images. ``error`` is why figures are
    missing.
    """

    family: str
    kernel_size: int
    params: int
    macs: int
    inference_ms: float | None = None
    training_ms: float | None = None
    inference_peak: int | None = None
    training_peak: int | None = None
    accuracy: float | None = None
    error: str = ''

    @property
    def name(self) -> str:
        """Name in tables, as ``lska:23``."""
        return f'{self.family}:{self.kernel_size}'


def build(family: str, kernel_size: int, arch: str | None = None) -> nn.Module:
    """Build a network of a family with one kernel size.

    VAN has it in all stages; 'slak-decomposed' and 'slak-sparse-decomposed' are VAN with kernels of
    SLaK. PeLK and SLaK have it in the first three and at most 13 in the last, similar to the
    papers' 51, 49, 47, 13. All are dense, as in training, without the sparsity that the papers
    subtract.

    Args:
        family: One of ``FAMILIES``.
        kernel_size: Odd size.
        arch: Variant; by default 'tiny', the smallest in the papers' tables.

    Raises:
        ValueError: Unknown family, or a size that it cannot have.
    """
    if family not in FAMILIES:
        raise ValueError(f'no family {family!r}; expected one of {", ".join(FAMILIES)}')
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(f'kernel sizes must be odd and at least 3, got {kernel_size}')
    if family in VAN:
        cfg = dict(type='hybrid_mm.VAN', attention=VAN[family], kernel_size=kernel_size)
    else:
        sizes = (kernel_size,) * 3 + (min(kernel_size, 13),)
        cfg = dict(type={'pelk': 'hybrid_mm.PeLK', 'slak': 'hybrid_mm.SLaK'}[family])
        cfg.update(kernel_sizes=sizes)
    torch.manual_seed(0)
    return MODELS.build(dict(cfg, arch=arch or 'tiny'))


def _counts(family: str, model: nn.Module, shape: tuple[int, int]) -> tuple[int, int]:
    """Parameters and multiply-adds, of sparse kernels without those that are zero."""
    params, macs = complexity(model, shape)
    if family == 'slak-sparse-decomposed':
        rows = [row for row in count(model, shape) if row.name.endswith(_KERNELS)]
        weights = [model.get_parameter(f'{row.name}.weight').numel() for row in rows]
        params -= round(SPARSITY * sum(weights))
        macs -= round(SPARSITY * sum(row.macs for row in rows))
    return params, macs


def measure(
    names: Sequence[tuple[str, int]],
    shape: tuple[int, int],
    arch: str | None = None,
    batch: int = 1,
    rounds: int = 3,
    device: str = 'cpu',
    training: bool = True,
    done: Callable[[list[Point]], None] = lambda points: None,
) -> list[Point]:
    """Count every network, then measure memory and time, all networks in turn in every round.

    Args:
        names: Families and kernel sizes.
        shape: Height and width of the images.
        arch: See :func:`build`.
        batch: Images in a batch.
        rounds: Rounds after a warm-up round; 0 to count only.
        device: 'cpu' or 'cuda'.
        training: Measure forward and backward passes as well.
        done: Called with all points after every network and after every round.

    Raises:
        ValueError: See :func:`build`.
    """
    points, models = {}, {}
    for family, kernel_size in names:
        model = build(family, kernel_size, arch)
        point = Point(family, kernel_size, *_counts(family, model, shape))
        points[point.name] = point
        if rounds:
            models[point.name] = model.to(device)
    if not rounds:
        return list(points.values())
    images = torch.rand(batch, 3, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    passes = Passes(models, images)
    modes = ('inference', 'training') if training else ('inference',)
    for name in list(models):
        for mode in modes:
            passes.seconds(mode, name)  # the first pass may choose between algorithms
            if name in passes.errors:  # out of memory, perhaps: the others go on
                points[name].error = passes.errors[name]
                del models[name]
                break
            peak, _ = memory(
                lambda mode=mode, name=name: getattr(passes, mode)(name), images.device
            )
            setattr(points[name], f'{mode}_peak', peak)
        done(list(points.values()))

    def fill(samples: dict[tuple[str, str], list[float]]) -> None:
        for (mode, name), taken in samples.items():
            points[name].error = passes.errors.get(name, '')
            if not points[name].error:
                setattr(points[name], f'{mode}_ms', statistics.median(taken) * 1e3 / batch)
        done(list(points.values()))

    if models:
        take_turns(passes, modes, list(models), rounds, fill)
    return list(points.values())


def as_json(points: list[Point], **surroundings) -> dict:
    """Content of ``kernel_size.json``: all points, with the settings and the environment."""
    return dict(kind='kernel_size', **surroundings, points=[asdict(point) for point in points])


def plot(points: list[Point], path: str | Path) -> None:
    """Draw every measured figure against the size of the kernel, a line per family."""
    from matplotlib.figure import Figure

    panels = {
        'parameters in 1e6': ('params', 1e6),
        'multiply-adds in 1e9': ('macs', 1e9),
        'ms per image, forward': ('inference_ms', 1),
        'ms per image, with backward': ('training_ms', 1),
        'peak memory in MB, forward': ('inference_peak', 2**20),
        'peak memory in MB, with backward': ('training_peak', 2**20),
        'accuracy in per cent': ('accuracy', 1),
    }
    panels = {
        title: (key, unit)
        for title, (key, unit) in panels.items()
        if any(getattr(point, key) is not None for point in points)
    }
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.6 * columns, 3.3 * rows), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for ax, (title, (key, unit)) in zip(axes, panels.items(), strict=False):
        for family in dict.fromkeys(point.family for point in points):
            own = [p for p in points if p.family == family and getattr(p, key) is not None]
            line = sorted((p.kernel_size, getattr(p, key) / unit) for p in own)
            if line:
                ax.plot(*zip(*line, strict=True), marker='o', markersize=4, label=family)
        ax.set(title=title, xlabel='kernel size')
        ax.set_yscale('linear' if key == 'accuracy' else 'log')
        ax.grid(alpha=0.3, which='both')
    for ax in list(axes):
        ax.set_axis_off()
    figure.axes[0].legend(fontsize=8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
