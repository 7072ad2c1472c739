"""A fair table of models: size, multiply-adds, time, memory and metrics, measured in one run.

Models are detectors, segmenters and classifiers of any package of OpenMMLab, or bare backbones.
Measured are

- the forward pass: ``predict`` of a model, which includes its post-processing (NMS, resizing), or
  the forward pass of a backbone, in evaluation mode, without gradients;
- the training step: the loss of drawn annotations (of a backbone the mean of what it returns), the
  backward pass, and the step of the optimizer of the config at a learning rate of 0.

All models take turns in every round, each round starting with another one, so that whatever else
the machine does affects all of them alike.
"""

import copy
import gc
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from hybrid_mm.analysis import complexity, curves
from hybrid_mm.analysis.feature_maps import input_channels, run_network, tensors_of
from hybrid_mm.analysis.networks import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    RANDOM,
    accepted_size,
    build_model,
    default_label,
    is_dict,
    load_network,
    normalised,
    one_line,
    quiet,
    task_of_model,
)
from hybrid_mm.benchmarks.annotations import drawn_samples
from hybrid_mm.benchmarks.core import in_turn, memory, seconds_of
from hybrid_mm.checkpoints import load_weights, read_checkpoint
from hybrid_mm.errors import UserError
from hybrid_mm.run import launch
from hybrid_mm.run.checks.data import check_testing
from hybrid_mm.run.config import TASKS, load_config, require
from hybrid_mm.run.pipeline_size import pipeline_size
from hybrid_mm.run.published import checkpoint_of

MODES = 'forward', 'training'
SIZES = {
    'detection': (800, 1280),
    'segmentation': (512, 512),
    'classification': (224, 224),
    'pose': (256, 192),
}
BUSY = 0.1
"""Spread of times above which a machine is called busy."""
BACKBONE = 'backbone'
_PLAIN = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01, momentum=0.9))


@dataclass
class Entry:
    """Figures of one model; None and empty where there are none.

    Times are milliseconds of a batch, medians over the rounds; spreads half of the range of the
    middle half of the rounds, as a share of the median; ratios medians of the quotients with the
    first model within a round. Memory is in bytes: the weights, the state of the optimizer in a
    training step, and the peak of what torch allocates during the pass.
    """

    label: str
    model: str
    weights: str = RANDOM
    task: str = ''
    batch: int = 0
    size: tuple[int, int] | None = None
    params: int | None = None
    macs: int | None = None
    forward_ms: float | None = None
    forward_spread: float | None = None
    forward_ratio: float | None = None
    forward_bytes: int | None = None
    training_ms: float | None = None
    training_spread: float | None = None
    training_ratio: float | None = None
    training_bytes: int | None = None
    rounds: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    metrics_from: str = ''
    errors: dict[str, str] = field(default_factory=dict)


@dataclass
class Settings:
    """How models are measured.

    Attributes:
        size: Height and width of the images of all; None for the size of the task.
        own_size: Take the size of each one's test instead.
        batch: Images in a batch.
        rounds: Rounds that count; 0 to count only.
        device: Where.
        amp: None, or the data type of mixed precision, 'auto' for that of the device.
        training: Measure training steps as well.
        image: Picture that all see, (H, W, 3), uint8, RGB, by height and width; None for noise.
        options: ``--cfg-options`` of all configs.
    """

    size: tuple[int, int] | None = None
    own_size: bool = False
    batch: int = 2
    rounds: int = 7
    device: torch.device = field(default_factory=lambda: torch.device('cpu'))
    amp: str | None = None
    training: bool = True
    image: Callable[[int, int], Any] | None = None
    options: dict[str, Any] | None = None


class Subject:
    """A model with what its two passes need."""

    def __init__(self, spec: str, checkpoint: str | None, settings: Settings) -> None:
        self.settings, self.spec = settings, spec
        self.optimizer: OptimWrapper | None = None
        self.size: tuple[int, int] = (0, 0)
        if is_dict(spec):
            network = load_network(spec, checkpoint)
            self.module, self.cfg = network.module.requires_grad_(True), Config()
            self.scope, self.task = 'mmengine', BACKBONE
        else:
            self.cfg = load_config(spec, settings.options)
            require(self.cfg, 'model')
            self.scope = self.cfg.get('default_scope') or 'mmengine'
            self.module = build_model(self.cfg, initialise=True)
            self.task = task_of_model(self.module)
            if checkpoint is not None:
                checkpoint = checkpoint_of(self.cfg, checkpoint)
                load_weights(self.module, read_checkpoint(checkpoint), checkpoint)
        self.weights = checkpoint or RANDOM
        self.module.to(settings.device)

    def choose_size(self, common: tuple[int, int] | None) -> None:
        """Set the size of the images: the common one if the model takes it."""
        own = _own_size(self.cfg, self.task)

        def attempt(size: tuple[int, int]) -> None:
            self.size = size
            self.prepare('forward')()

        label = default_label(self.spec)
        self.size = accepted_size(attempt, self.module, common or own, label, [own])

    def prepare(self, mode: str) -> Callable[[], object]:
        """Set the mode of the model and draw its samples; returns the pass that is measured."""
        images, samples = self._images(), self._samples()
        if mode == 'forward':
            self.module.eval()
            return lambda: self._forward(images, samples)
        if self.optimizer is None:
            self.optimizer = self._optimizer()
        self.module.train()
        return lambda: self._training(images, samples)

    def _forward(self, images: Tensor, samples: list[Any]) -> object:
        with torch.no_grad(), self._autocast():
            if self.task == BACKBONE:
                return run_network(self.module, images)
            mode = 'predict' if hasattr(self.module, 'predict') else 'tensor'  # self-supervised
            return self.module(images, samples, mode=mode)

    def _training(self, images: Tensor, samples: list[Any]) -> None:
        optimizer = cast(OptimWrapper, self.optimizer)
        with optimizer.optim_context(self.module):
            if self.task == BACKBONE:
                found = [x for x in tensors_of(run_network(self.module, images)) if x.requires_grad]
                loss = torch.stack([x.float().mean() for x in found]).sum()
            else:
                losses = self.module(images, samples, mode='loss')
                loss, _ = self.module.parse_losses(losses)
        optimizer.update_params(loss)

    def _autocast(self) -> AbstractContextManager:
        runner = cast(Any, SimpleNamespace(model=self.module))
        return launch.testing_amp(runner, self.settings.amp) if self.settings.amp else nullcontext()

    def _optimizer(self) -> OptimWrapper:
        """The optimizer of the config, which computes its step and changes nothing."""
        cfg = Config(dict(optim_wrapper=copy.deepcopy(self.cfg.get('optim_wrapper') or _PLAIN)))
        cfg.optim_wrapper.pop('accumulative_counts', None)
        amp = self.settings.amp
        try:
            launch.set_training_amp(cfg, amp, off=amp is None)
        except UserError:
            if amp is not None:
                raise
        if 'loss_scale' in cfg.optim_wrapper:  # a larger one overflows at first, and skips steps
            cfg.optim_wrapper.loss_scale = 1.0
        with DefaultScope.overwrite_default_scope(self.scope), quiet():
            wrapper = build_optim_wrapper(self.module, cfg.optim_wrapper)
        for optimizer in getattr(wrapper, 'optim_wrappers', {'': wrapper}).values():
            for group in optimizer.param_groups:
                group['lr'] = 0.0
        return wrapper

    def _images(self) -> Tensor:
        settings, (height, width) = self.settings, self.size
        if settings.image is not None:
            preprocessor = self.cfg.get('model', {}).get('data_preprocessor') or {}
            image = normalised(
                settings.image(height, width),
                preprocessor.get('mean') or IMAGENET_MEAN,
                preprocessor.get('std') or IMAGENET_STD,
                bool(preprocessor)
                and not (preprocessor.get('bgr_to_rgb') or preprocessor.get('to_rgb')),
            )
            return image.expand(settings.batch, -1, -1, -1).contiguous().to(settings.device)
        channels = 3 if self.task == BACKBONE else input_channels(self.module)
        generator = torch.Generator().manual_seed(0)
        shape = settings.batch, channels, height, width
        return torch.randn(shape, generator=generator).to(settings.device)

    def _samples(self) -> list[Any]:
        if self.task == BACKBONE:
            return []
        scope = next(scope for scope, task in TASKS.items() if task == self.task)
        heads = [module for name, module in self.module.named_modules() if 'rpn' not in name]
        counts = [head.num_classes for head in heads if _is_count(head, 'num_classes')]
        stuff = [head.num_classes for head in heads if _is_label_map_head(head)]
        return drawn_samples(
            scope,
            max(1, min(counts, default=10)),
            (self.settings.batch, *self.size),
            self.settings.device,
            torch.Generator().manual_seed(0),
            masks=True,
            stuff=cast(int, stuff[0]) if stuff and scope == 'mmdet' else 0,
        )

    def release(self) -> None:
        """Free what a pass that failed has left."""
        self.module.zero_grad(set_to_none=True)
        if self.settings.device.type == 'cuda':
            torch.cuda.empty_cache()

    def count(self) -> int:
        """Multiply-adds of one image."""
        shape = (input_channels(self.module), *self.size)
        return complexity.complexity(self.module, shape)[1]

    def peak(self, mode: str) -> int:
        """Bytes at the peak of a pass; see :class:`Entry`."""
        run = self.prepare(mode)
        if mode == 'training':
            run()  # which makes the state of the optimizer
        peak, _ = memory(run, self.settings.device)
        kept = [*self.module.parameters(), *self.module.buffers()]
        if mode == 'training' and self.optimizer is not None:
            wrappers = getattr(self.optimizer, 'optim_wrappers', {'': self.optimizer})
            for wrapper in wrappers.values():
                kept += tensors_of([list(s.values()) for s in wrapper.optimizer.state.values()])
        return peak + sum(x.numel() * x.element_size() for x in kept)


def _is_count(module: nn.Module, name: str) -> bool:
    value = getattr(module, name, None)
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_label_map_head(module: nn.Module) -> bool:
    """Whether a head of a detector learns a label map."""
    bases = {base.__name__ for base in type(module).__mro__}
    names = {'BaseSemanticHead', 'FusedSemanticHead', 'MaskFormerHead', 'PanopticFPNHead'}
    return bool(bases & names) and _is_count(module, 'num_classes')


def _own_size(cfg: Config, task: str) -> tuple[int, int]:
    """Size of the images in the test of a config, or the usual one of its task."""
    model = cfg.get('model') or {}  # a backbone has none
    size = (model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}).get('size')
    if task == 'segmentation' and size:
        return (size, size) if isinstance(size, int) else tuple(size)
    found = pipeline_size(cfg)
    if found is None:
        return SIZES.get(task, SIZES['classification'])
    if task == 'detection' and found.keeps_ratio:  # what it is padded to
        return -(-found.height // 32) * 32, -(-found.width // 32) * 32
    return found.height, found.width


def compare(
    entries: list[Entry],
    checkpoints: Sequence[str | None],
    settings: Settings,
    done: Callable[[], None] = lambda: None,
    advance: Callable[[str], None] = lambda text: None,
) -> None:
    """Build, count and measure models.

    A model that fails has the reason in its entry, and the others go on.

    Args:
        entries: The models: a config, or ``dict(type='...', ...)`` of a backbone each.
        checkpoints: One per model, None for random weights.
        settings: How they are measured.
        done: Called after every model, and after every round.
        advance: Called after every model and round with what comes next.
    """
    modes = (MODES if settings.training else MODES[:1]) if settings.rounds else ()
    subjects: dict[str, Subject] = {}
    common = settings.size
    following = [*(entry.label for entry in entries[1:]), 'warm-up']
    for entry, checkpoint, after in zip(entries, checkpoints, following, strict=True):
        try:
            subject = Subject(entry.model, checkpoint, settings)
        except Exception as error:  # of a foreign model
            entry.errors['build'] = one_line(error)
            done()
            advance(after)
            continue
        entry.weights, entry.task = subject.weights, subject.task
        entry.batch = settings.batch
        entry.params = sum(p.numel() for p in subject.module.parameters())
        if common is None and not settings.own_size:
            common = SIZES.get(subject.task, SIZES['classification'])
        if _first_figures(entry, subject, None if settings.own_size else common, modes):
            subjects[entry.label] = subject
        done()
        advance(after)
    if subjects and modes:
        _times(entries, subjects, modes, settings, done, advance)


def _first_figures(
    entry: Entry, subject: Subject, common: tuple[int, int] | None, modes: Sequence[str]
) -> bool:
    """Choose the size, count and measure memory; whether there is something to time."""
    try:
        subject.choose_size(common)
    except Exception as error:  # of a foreign model
        entry.errors['forward'] = one_line(error)
        return False
    entry.size = subject.size
    steps: dict[str, Callable[[], int]] = {'count': subject.count}
    steps |= {mode: lambda mode=mode: subject.peak(mode) for mode in modes}  # type: ignore[misc]
    for name, step in steps.items():
        try:
            value = step()
        except Exception as error:  # of a foreign model
            entry.errors[name] = one_line(error)
        else:
            setattr(entry, 'macs' if name == 'count' else f'{name}_bytes', value)
        if name in entry.errors:
            subject.release()
    return 'forward' not in entry.errors


def _times(
    entries: Sequence[Entry],
    subjects: Mapping[str, Subject],
    modes: Sequence[str],
    settings: Settings,
    done: Callable[[], None],
    advance: Callable[[str], None],
) -> None:
    measured = {entry.label: entry for entry in entries if entry.label in subjects}

    def seconds(mode: str, label: str) -> float:
        if mode in measured[label].errors:
            return math.nan
        try:
            return seconds_of(subjects[label].prepare(mode), settings.device)
        except Exception as error:  # of a foreign model
            measured[label].errors[mode] = one_line(error)
        subjects[label].release()
        return math.nan

    for number, samples in enumerate(in_turn(seconds, modes, list(measured), settings.rounds), 1):
        for mode in modes:
            first = next((name for name, e in measured.items() if mode not in e.errors), None)
            for label, entry in measured.items():
                entry.rounds = number
                _summarise(entry, mode, samples[mode, label], samples[mode, first or label])
        done()
        advance(f'round {number + 1}')
        gc.collect()


def _summarise(entry: Entry, mode: str, own: Sequence[float], first: Sequence[float]) -> None:
    if mode in entry.errors:
        for key in ('ms', 'spread', 'ratio'):
            setattr(entry, f'{mode}_{key}', None)
        return
    median = statistics.median(own)
    setattr(entry, f'{mode}_ms', median * 1e3)
    if len(own) > 1:
        low, _, high = statistics.quantiles(own, n=4, method='inclusive')
        setattr(entry, f'{mode}_spread', (high - low) / 2 / median)
    quotients = [a / b for a, b in zip(own, first, strict=True)]
    setattr(entry, f'{mode}_ratio', statistics.median(quotients))


def busy(entries: Sequence[Entry]) -> str:
    """A warning if times differ much between the rounds, or an empty string."""
    found = [
        (spread, entry.label, mode)
        for entry in entries
        for mode in MODES
        if (spread := getattr(entry, f'{mode}_spread')) is not None and spread > BUSY
    ]
    if not found:
        return ''
    spread, label, mode = max(found)
    return (
        f'times differ by up to {spread:.0%} between the rounds ({label}, {mode}): the machine '
        'is busy, or its clock changes; repeat this on an idle one, or with more --rounds'
    )


def mixed_tasks(entries: Sequence[Entry]) -> str:
    """A warning if the models have several tasks, or an empty string."""
    tasks = {entry.task: entry.label for entry in entries if entry.task}
    if len(tasks) < 2:
        return ''
    found = ', '.join(f'{label}: {task}' for task, label in tasks.items())
    return f'the models have several tasks ({found}): their times and metrics cannot be compared'


def tested(spec: str, checkpoint: str, args: Any) -> dict[str, float]:
    """Metrics of a checkpoint on the test set of its config, as ``tools/test.py`` computes them.

    Args:
        spec: Config.
        checkpoint: File, ``hybrid_mm://NAME``, or 'auto'.
        args: ``options.add_run_options`` of the tool, with ``config`` set.
    """
    checkpoint = checkpoint_of(spec, checkpoint)
    cfg = launch.config_of_run(args)
    cfg.log_level = 'WARNING'
    check_testing(cfg)
    runner = launch.testing_runner(cfg, checkpoint)
    with launch.testing_amp(runner, args.amp):
        found = runner.test()
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float)}


def main_metrics(entries: Sequence[Entry]) -> list[str]:
    """Names of the metrics to show: those that papers report, or else the first of all."""
    return curves.main_metrics(list(dict.fromkeys(n for entry in entries for n in entry.metrics)))
