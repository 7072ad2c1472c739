"""Parameters, multiply-adds and time of the variants of a network, measured in one run."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.analysis.feature_maps import tensors_of
from hybrid_mm.analysis.networks import one_line
from hybrid_mm.benchmarks.core import in_turn, medians_and_ratios, seconds_of
from hybrid_mm.run.config import without_init_cfg


@dataclass
class Variant:
    """Figures of one variant; times in milliseconds per image, medians over the rounds.

    ``inference_ratio`` and ``training_ratio`` are the medians of the quotients with the baseline
    within a round. Training is a forward and a backward pass. ``error`` is why the rest is missing.
    """

    name: str
    params: int = 0
    macs: int = 0
    inference_ms: float = 0.0
    training_ms: float = 0.0
    inference_ratio: float = 1.0
    training_ratio: float = 1.0
    error: str = ''


def find(folder: Path) -> dict[str, Path]:
    """Find the files of the variants by name, the plain network first.

    Raises:
        FileNotFoundError: The folder has no such files.
    """
    paths = sorted(folder.glob('*.py'), key=lambda path: (path.stem != 'resnet50', path.stem))
    if not paths:
        raise FileNotFoundError(f'{folder} has no variants: files *.py with a dict `backbone`')
    return {path.stem: path for path in paths}


def build(path: Path) -> nn.Module:
    """Build the backbone of a file, with random weights and trainable norms."""
    cfg = dict(without_init_cfg(Config.fromfile(path).backbone), norm_eval=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return revert_sync_batchnorm(MODELS.build(cfg))


class Passes:
    """Inference and training passes of several models on one batch.

    Attributes:
        errors: Why models could not be measured, by name.
    """

    def __init__(self, models: dict[str, nn.Module], images: torch.Tensor) -> None:
        self.models, self.images = models, images
        self.errors: dict[str, str] = {}

    def inference(self, name: str) -> None:
        """Forward pass without gradients, in eval mode."""
        model = self.models[name]
        model.eval()
        with torch.no_grad():
            model(self.images)

    def training(self, name: str) -> None:
        """Forward and backward pass, in training mode."""
        model = self.models[name]
        model.train()
        sum(out.mean() for out in tensors_of(model(self.images))).backward()
        model.zero_grad(set_to_none=True)

    def seconds(self, mode: str, name: str) -> float:
        """Time of one pass; ``mode`` is 'inference' or 'training'. NaN after a failure."""
        if name in self.errors:
            return math.nan
        try:
            return seconds_of(lambda: getattr(self, mode)(name), self.images.device)
        except Exception as error:  # the others go on
            self.errors[name] = one_line(error)
            return math.nan


def compare(
    paths: dict[str, Path],
    shape: tuple[int, int],
    batch: int = 2,
    rounds: int = 5,
    device: str = 'cpu',
    done: Callable[[list[Variant]], None] = lambda variants: None,
) -> list[Variant]:
    """Count every variant, then time all of them in turn, each round starting with another one.

    Args:
        paths: Files by name; the first is the baseline of the ratios.
        shape: Height and width of the images.
        batch: Images in a batch; batch norms of pooled maps need at least 2.
        rounds: Number of rounds after a warm-up round.
        device: 'cpu' or 'cuda'.
        done: Called with all variants after every one and after every round.

    Raises:
        ValueError: A batch of one image, or no rounds.
    """
    if batch < 2 or rounds < 1:
        raise ValueError(f'at least 2 images and 1 round needed, got {batch} and {rounds}')
    models: dict[str, nn.Module] = {}
    variants = {name: Variant(name) for name in paths}
    for name, path in paths.items():
        try:
            model = build(path)
            variants[name].params, variants[name].macs = complexity(model, shape)
            models[name] = model.to(device)
        except Exception as error:  # the others go on
            variants[name].error = one_line(error)
        done(list(variants.values()))
    if not models:
        return list(variants.values())
    generator = torch.Generator().manual_seed(0)
    passes = Passes(models, torch.rand(batch, 3, *shape, generator=generator).to(device))

    def fill(samples: dict[tuple[str, str], list[float]]) -> None:
        medians, ratios = medians_and_ratios(samples, next(iter(models)))
        for (mode, name), seconds in medians.items():
            variants[name].error = passes.errors.get(name, '')
            setattr(variants[name], f'{mode}_ms', seconds * 1e3 / batch)
            setattr(variants[name], f'{mode}_ratio', ratios[mode, name])
        done(list(variants.values()))

    take_turns(passes, ('inference', 'training'), list(models), rounds, fill)
    return list(variants.values())


def take_turns(
    passes: Passes,
    modes: Sequence[str],
    names: Sequence[str],
    rounds: int,
    done: Callable[[dict[tuple[str, str], list[float]]], None] = lambda samples: None,
) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
    """Time all models in every round, after a warm-up round.

    Args:
        passes: The models and their images.
        modes: 'inference', 'training', or both.
        names: Names of the models.
        rounds: Number of rounds that count.
        done: Called after every round with the seconds of all so far.

    Returns:
        Medians in seconds, and medians of the quotients with the first model within a round, by
        mode ('inference' or 'training') and name.
    """
    samples: dict[tuple[str, str], list[float]] = {}
    for samples in in_turn(passes.seconds, modes, names, rounds):
        done(samples)
    return medians_and_ratios(samples, names[0])


def as_json(variants: list[Variant], **surroundings) -> dict:
    """Content of the JSON file: all figures, with the settings and the environment."""
    return dict(surroundings, members=[asdict(variant) for variant in variants])


def plot(variants: list[Variant], path: Path) -> None:
    """Draw bars of parameters, multiply-adds and times, with a line at the value of the first."""
    from matplotlib.figure import Figure

    panels = {
        'parameters in 1e6': lambda v: v.params / 1e6,
        'multiply-adds in 1e9': lambda v: v.macs / 1e9,
        'ms per image, forward': lambda v: v.inference_ms,
        'ms per image, with backward': lambda v: v.training_ms,
    }
    variants = [variant for variant in variants if not variant.error]
    figure = Figure(figsize=(14, 1.5 + 0.25 * len(variants)), layout='constrained')
    for ax, (label, value) in zip(figure.subplots(1, 4, sharey=True), panels.items(), strict=True):
        values = [value(variant) for variant in variants]
        ax.barh([variant.name for variant in variants], values)
        ax.axvline(values[0], color='black', linewidth=0.8)
        ax.set_xlabel(label)
        ax.grid(axis='x', alpha=0.3)
    ax.invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
