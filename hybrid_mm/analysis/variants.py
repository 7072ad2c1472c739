"""Parameters, multiply-adds and time of the members of a study, measured in one run."""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.run.config import without_init_cfg


@dataclass
class Member:
    """Figures of one member; times in milliseconds per image, medians over the rounds.

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
    """The files of the members by name, the plain network first.

    Raises:
        FileNotFoundError: There are none.
    """
    paths = sorted(folder.glob('*.py'), key=lambda path: (path.stem != 'resnet50', path.stem))
    if not paths:
        raise FileNotFoundError(f'{folder} has no members: files *.py with a dict `backbone`')
    return {path.stem: path for path in paths}


def build(path: Path) -> nn.Module:
    """Build the backbone that a file describes: no pre-trained weights, nothing frozen."""
    spec = dict(without_init_cfg(Config.fromfile(path).backbone), norm_eval=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        return revert_sync_batchnorm(MODELS.build(spec))


class Passes:
    """Forward passes of all members on one batch, and forward and backward passes."""

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

    def seconds(self, kind: str, name: str) -> float:
        """Time of a pass of a kind: 'inference' or 'training'."""
        self._wait()
        start = time.perf_counter()
        getattr(self, kind)(name)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.images.is_cuda:
            torch.cuda.synchronize(self.images.device)


def compare(
    paths: dict[str, Path],
    shape: tuple[int, int],
    batch: int = 2,
    rounds: int = 5,
    device: str = 'cpu',
) -> list[Member]:
    """Count every member, then time all of them in turns, each round starting with another one.

    Args:
        paths: Files by name; the first is the baseline of the ratios.
        shape: Height and width of the images.
        batch: Images in a batch, 2 at least for batch norms of pooled maps.
        rounds: Number of rounds after one that is not measured.
        device: 'cpu' or 'cuda'.

    Raises:
        ValueError: A batch of one image, or no rounds.
    """
    if batch < 2 or rounds < 1:
        raise ValueError(f'at least 2 images and 1 round needed, got {batch} and {rounds}')
    models, members = {}, {}
    for name, path in paths.items():
        model = build(path)
        members[name] = Member(name, *complexity(model, shape))
        models[name] = model.to(device)
    generator = torch.Generator().manual_seed(0)
    passes = Passes(models, torch.rand(batch, 3, *shape, generator=generator).to(device))
    medians, ratios = take_turns(passes, ('inference', 'training'), list(members), rounds)
    for (kind, name), seconds in medians.items():
        setattr(members[name], f'{kind}_ms', seconds * 1e3 / batch)
        setattr(members[name], f'{kind}_ratio', ratios[kind, name])
    return list(members.values())


def take_turns(
    passes: Passes, kinds: Sequence[str], names: Sequence[str], rounds: int
) -> tuple[dict[tuple[str, str], float], dict[tuple[str, str], float]]:
    """Time all models in every round, after one round that is not measured.

    Returns:
        Medians in seconds, and medians of the quotients with the first model within a round, by
        kind of pass and name.
    """
    samples = {(kind, name): [] for kind in kinds for name in names}
    for number in range(-1, rounds):
        for name in _turn(names, number):
            for kind in kinds:
                taken = passes.seconds(kind, name)
                if number >= 0:
                    samples[kind, name].append(taken)
    ratios = {}
    for (kind, name), taken in samples.items():
        pairs = zip(taken, samples[kind, names[0]], strict=True)
        ratios[kind, name] = statistics.median(a / b for a, b in pairs)
    return {key: statistics.median(taken) for key, taken in samples.items()}, ratios


def _turn(names: Sequence[str], number: int) -> Iterator[str]:
    first = number % len(names)
    yield from names[first:]
    yield from names[:first]


def as_json(members: list[Member], **surroundings) -> dict:
    """Everything that was measured."""
    return dict(surroundings, members=[asdict(member) for member in members])


def plot(members: list[Member], path: Path) -> None:
    """Draw bars of parameters, multiply-adds and times; a line stands at the first member's."""
    from matplotlib.figure import Figure

    panels = {
        'parameters in 1e6': lambda m: m.params / 1e6,
        'multiply-adds in 1e9': lambda m: m.macs / 1e9,
        'ms per image, forward': lambda m: m.inference_ms,
        'ms per image, with backward': lambda m: m.training_ms,
    }
    figure = Figure(figsize=(14, 1.5 + 0.25 * len(members)), layout='constrained')
    for ax, (label, value) in zip(figure.subplots(1, 4, sharey=True), panels.items(), strict=True):
        values = [value(member) for member in members]
        ax.barh([member.name for member in members], values)
        ax.axvline(values[0], color='black', linewidth=0.8)
        ax.set_xlabel(label)
        ax.grid(axis='x', alpha=0.3)
    ax.invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
