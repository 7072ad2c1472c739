"""Read and plot the rates (alpha, beta) of ACmix layers, from checkpoints or scalars of runs."""

import math
from pathlib import Path
from typing import NamedTuple

from hybrid_mm.analysis.curves import read_scalars
from hybrid_mm.checkpoints import read_checkpoint, weights_of
from hybrid_mm.convert import convert
from hybrid_mm.run.outputs import plain_label


class Rates(NamedTuple):
    """Rates of attention and of convolution of one layer."""

    layer: str
    attention: float
    convolution: float

    @property
    def log_ratio(self) -> float:
        """Logarithm of |attention / convolution|; infinite if one of them is 0, NaN if both are."""
        a, b = abs(self.attention), abs(self.convolution)
        if a and b:
            return math.log(a / b)
        return math.nan if a == b else math.inf if a else -math.inf


def read_rates(path: str | Path) -> list[Rates]:
    """Read the rates of all layers, from input to output.

    Args:
        path: Checkpoint in our layout or the authors' (a file or ``hybrid_mm://NAME``), or a work
            dir (or ``scalars.json``) of a run with :class:`~hybrid_mm.engine.MixingRatesHook`, of
            which the last entries are read.

    Raises:
        FileNotFoundError: The work dir has no scalars.
        CheckpointError: (a ValueError) The checkpoint does not exist or cannot be read.
        ValueError: The file holds no rates.
    """
    if Path(path).is_dir() or Path(path).suffix == '.json':
        scalars = {name: values[-1] for name, (_, values) in read_scalars(path).items()}
        hint = 'was it trained with custom_hooks=[dict(type="hybrid_mm.MixingRatesHook")]?'
        names = [name[len('rate1/') :] for name in scalars if name.startswith('rate1/')]
        both = [name for name in names if f'rate2/{name}' in scalars]
        rates = [Rates(n, scalars[f'rate1/{n}'], scalars[f'rate2/{n}']) for n in both]
    else:
        state = convert(weights_of(read_checkpoint(str(path)), str(path)))
        hint = 'is it a checkpoint of a network with ACmix?'
        names = [key.removesuffix('.rate1') for key in state if key.endswith('.rate1')]
        rates = [Rates(n, state[f'{n}.rate1'].item(), state[f'{n}.rate2'].item()) for n in names]
    if not rates:
        raise ValueError(f'{path} has no rates of ACmix: {hint}')
    return rates


def plot_rates(runs: dict[str, list[Rates]], out: str | Path) -> None:
    """Draw the rates over the layers, and the logarithm of their ratio.

    Args:
        runs: Results of :func:`read_rates` by label.
        out: Picture to write, in the format of its suffix.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for i, (label, rates) in enumerate(runs.items()):
        label = plain_label(label)
        layers, style = range(1, len(rates) + 1), dict(color=f'C{i}', marker='o', markersize=3)
        left.plot(layers, [abs(r.attention) for r in rates], label=f'{label}: attention', **style)
        style['linestyle'] = '--'
        left.plot(
            layers, [abs(r.convolution) for r in rates], label=f'{label}: convolution', **style
        )
        ratios = [r.log_ratio if math.isfinite(r.log_ratio) else math.nan for r in rates]
        right.plot(layers, ratios, color=f'C{i}', marker='o', markersize=3, label=label)
    left.set(xlabel='layer', ylabel='|rate|', ylim=(0, None))
    right.set(xlabel='layer', ylabel='log |attention / convolution|')
    right.axhline(0, color='grey', linewidth=0.8)
    for axes in (left, right):
        axes.legend(fontsize='small')
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
