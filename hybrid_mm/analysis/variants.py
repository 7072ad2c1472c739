"""Parameters, multiply-adds and time of the variants of a network, measured in one run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.benchmarks.core import medians_and_ratios, seconds_of, turn
from hybrid_mm.run.config import without_init_cfg


@dataclass
class Variant:
    """Figures of one variant; times in milliseconds per image, medians over the rounds.

    ``inference_ratio`` and ``training_ratio`` are the medians of the quotients with the baseline
    within a round. Training is a forward and a backward pass.
    """

    name: str
    params: int
    macs: int
    inference_ms: float = 0.0
    training_ms: float = 0.0
    inference_ratio: float = 1.0
    training_ratio: float = 1.0


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
    """Inference and training passes of several models on one batch."""

    def __init__(self, models: dict[str, nn.Module], images: torch.Tensor) -> None:
        self.models, self.images = models, images

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
        sum(out.mean() for out in model(self.images)).backward()
        model.zero_grad(set_to_none=True)

    def seconds(self, mode: str, name: str) -> float:
        """Time of one pass; ``mode`` is 'inference' or 'training'."""
        return seconds_of(lambda: getattr(self, mode)(name), self.images.device)


def compare(
    paths: dict[str, Path],
    shape: tuple[int, int],
    batch: int = 2,
    rounds: int = 5,
    device: str = 'cpu',
) -> list[Variant]:
    """Count every variant, then time all of them in turn, each round starting with another one.

    Args:
        paths: Files by name; the first is the baseline of the ratios.
        shape: Height and width of the images.
        batch: Images in a batch; batch norms of pooled maps need at least 2.
        rounds: Number of rounds after a warm-up round.
        device: 'cpu' or 'cuda'.

    Raises:
        ValueError: A batch of one image, or no rounds.
    """
    if batch < 2 or rounds < 1:
        raise ValueError(f'at least 2 images and 1 round needed, got {batch} and {rounds}')
    models, variants = {}, {}
    for name, path in paths.items():
        model = build(path)
        variants[name] = Variant(name, *complexity(model, shape))
        models[name] = model.to(device)
    generator = torch.Generator().manual_seed(0)
    passes = Passes(models, torch.rand(batch, 3, *shape, generator=generator).to(device))
    medians, ratios = take_turns(passes, ('inference', 'training'), list(variants), rounds)
    for (mode, name), seconds in medians.items():
        setattr(variants[name], f'{mode}_ms', seconds * 1e3 / batch)
        setattr(variants[name], f'{mode}_ratio', ratios[mode, name])
    return list(variants.values())


def take_turns(
    passes: Passes, modes: Sequence[str], names: Sequence[str], rounds: int
) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
    """Time all models in every round, after a warm-up round.

    Returns:
        Medians in seconds, and medians of the quotients with the first model within a round, by
        mode ('inference' or 'training') and name.
    """
    samples = {(mode, name): [] for mode in modes for name in names}
    for number in range(-1, rounds):
        for name in turn(names, number):
            for mode in modes:
                taken = passes.seconds(mode, name)
                if number >= 0:
                    samples[mode, name].append(taken)
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
