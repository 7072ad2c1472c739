"""The few lines that a run shows of itself before its first batch, and the one at its end."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import CheckpointHook, Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn

from hybrid_mm.checkpoint_files import cache_folder, place_of
from hybrid_mm.checkpoints import inner_model
from hybrid_mm.engine.hooks.strict_loading import StartingWeightsHook
from hybrid_mm.errors import shorten
from hybrid_mm.run.checks.schedule import is_warmup
from hybrid_mm.run.config import nodes
from hybrid_mm.run.console import duration
from hybrid_mm.run.interrupt import newest_checkpoint
from hybrid_mm.run.quiet import log_only
from hybrid_mm.run.total_batch import describe
from hybrid_mm.weights.finding import weights_file
from hybrid_mm.weights.registry import SCHEME

Line = tuple[str, Callable[[], str]]  # name, and what makes the text
_WIDTH = 11  # of the names of the lines


class SummaryHook(Hook):
    """Print what a run is made of before it starts, and what it has left when it is through.

    Runs that log warnings only print nothing.

    Args:
        config: File that the user named, if there is one.
        resumed: Checkpoint that the training goes on from.
    """

    priority = 'LOWEST'  # after the hook that saves

    def __init__(self, config: str | None, resumed: str | None = None) -> None:
        self.config, self.resumed = config, resumed
        self._start = time.monotonic()
        self._rest: list[Line] = []

    def announce(self, runner: Runner) -> None:
        """Print what is known before any data is read, which may take a while."""
        self._rest = [
            ('model', lambda: _described(runner).get('model') or _model(inner_model(runner.model)))
        ]
        parts: list[Line] = [
            ('config', lambda: self.config or runner.experiment_name),
            ('work dir', lambda: _short(runner.work_dir)),
            ('log', lambda: _short(_log_file(runner))),
        ]
        if isinstance(runner.model, nn.Module):  # a FlexibleRunner builds it later
            parts += self._rest
            self._rest = []
        _show(runner, _lines(*parts))

    def before_train(self, runner: Runner) -> None:
        """Print the other lines of a training."""
        self._start = time.monotonic()
        _show(
            runner,
            _lines(
                *self._rest,
                ('weights', lambda: _weights(runner, self.resumed)),
                ('data', lambda: _data(runner)),
                ('optimizer', lambda: _optimizer(runner.optim_wrapper)),
                ('batch', lambda: _batch(runner)),
                ('length', lambda: _length(runner)),
                ('precision', lambda: _precision(runner)),
                ('start', lambda: _begin(runner, self.resumed)),
            ),
        )

    def before_test(self, runner: Runner) -> None:
        """Print the other lines of a test."""
        loader = runner.test_loop.dataloader
        _show(
            runner,
            _lines(
                ('weights', lambda: _described(runner).get('weights') or str(runner._load_from)),
                ('data', lambda: f'{_dataset(loader)}; {_classes(loader)}'),
                ('device', lambda: f'{_device(runner)}{_processes()}'),
            ),
        )

    def after_train(self, runner: Runner) -> None:
        """Print how long it took, and the files that it has left."""
        took = duration(time.monotonic() - self._start)
        loop, end = runner.train_loop, f'finished after {took}'
        if runner.iter < loop.max_iters:  # early stopping, or another hook that ends it
            end = f'stopped after {took}, at iteration {runner.iter:,} of {_number(loop.max_iters)}'
        _show(runner, [f'{end}: {_checkpoints(runner)}'])


def _show(runner: Runner, lines: list[str]) -> None:
    """Print lines, and write them to the log file."""
    shown = any(h.level <= logging.INFO for h in runner.logger.handlers)
    if is_main_process() and shown:
        # with its end in one piece: what is said at a signal begins a new line
        print('\n'.join(lines) + '\n', end='', flush=True)
        for line in lines:
            log_only(line, runner.logger)


def _lines(*parts: Line) -> list[str]:
    lines = []
    for name, text_of in parts:
        try:
            lines.append(f'{name:<{_WIDTH}} {text_of()}')
        except Exception as error:  # runners, loops and data sets may be anybody's
            lines.append(f'{name:<{_WIDTH}} not known ({type(error).__name__}: {error})')
    return lines


def _data(runner: Runner) -> str:
    loader = runner.train_loop.dataloader
    text = f'{_dataset(loader)} for training'
    if runner.val_loop is not None:
        text += f', {_number(len(runner.val_loop.dataloader.dataset))} for validation'
    return f'{text}; {_classes(loader)}'


def _dataset(loader: Any) -> str:
    dataset = loader.dataset
    name = type(_innermost(dataset)).__name__
    return f'{_number(len(dataset))} images ({name})'


def _innermost(dataset: Any) -> Any:
    """A data set without those around it; of several that are joined, the first."""
    while True:
        inner = getattr(dataset, 'dataset', None) or next(
            iter(getattr(dataset, 'datasets', ())), None
        )
        if inner is None:
            return dataset
        dataset = inner


def _classes(loader: Any) -> str:
    meta = getattr(loader.dataset, 'metainfo', None) or {}
    classes = meta.get('classes')
    if not classes:
        return 'no class names'
    if isinstance(classes, str):
        classes = [classes]
    return f'{len(classes)} classes: {shorten([str(name) for name in classes], 4)}'


def _described(runner: Runner) -> dict[str, str]:
    """What a model that is none of torch's says of itself, by the names of the lines."""
    describe = getattr(inner_model(runner.model), 'describe', None)
    return describe() if describe is not None else {}


def _model(model: nn.Module) -> str:
    parts = [
        f'{type(part).__name__} {_millions(_count(part))}'
        for part in model.children()
        if _count(part)
    ]
    total = _count(model)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = f', {_millions(trained)} of them trained' if trained != total else ''
    return f'{type(model).__name__} of {_millions(total)} parameters{frozen}: {", ".join(parts)}'


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _weights(runner: Runner, resumed: str | None) -> str:
    if resumed:
        return f'all from {resumed}'
    cfg: Config = runner.cfg
    start = cfg.get('load_from')
    if start:
        hooks = [hook for hook in runner.hooks if isinstance(hook, StartingWeightsHook)]
        text = hooks[0].summary if hooks else ''
        return text.removeprefix('load_from ') or str(start)
    found = [
        f'{re.sub(r"^model[.](?=.)|[.]init_cfg([.][0-9]+)?$", "", path)}: {_file(str(name))}'
        for path, name in _pretrained(cfg)
    ]
    return '; '.join(found) + ', the rest random' if found else 'random'


def _pretrained(cfg: Config) -> Iterator[tuple[str, Any]]:
    """Parts of a model that start from a file, and its name."""
    for path, node in nodes(cfg.model, 'model'):
        if node.get('type') == 'Pretrained' and node.get('checkpoint'):
            yield path, node['checkpoint']
        elif isinstance(node.get('pretrained'), str):
            yield path, node['pretrained']


def _file(name: str) -> str:
    """A name of weights, with the file on this machine that it stands for."""
    if name.startswith(SCHEME):
        return f'{name} ({_short(weights_file(name, download=False)[0])})'
    if name.startswith(('http://', 'https://')):
        return f'{name} ({_short(place_of(name, cache_folder()))})'
    return name


def _optimizer(wrapper: Any) -> str:
    if isinstance(wrapper, OptimWrapperDict):
        return '; '.join(f'{name}: {_optimizer(one)}' for name, one in wrapper.items())
    optimizer = wrapper.optimizer
    groups = optimizer.param_groups
    rates = [float(group.get('initial_lr', group['lr'])) for group in groups]
    decays = [float(group.get('weight_decay', 0.0)) for group in groups]
    kinds = len(set(zip(rates, decays, strict=True)))
    text = f'{type(optimizer).__name__}, lr {_range(rates)}, weight decay {_range(decays)}'
    undecayed = sum(len(g['params']) for g, d in zip(groups, decays, strict=True) if not d)
    tensors = sum(len(group['params']) for group in groups)
    if 0 < undecayed < tensors:
        text += f' (none for {undecayed} of {tensors} tensors)'
    clip = getattr(wrapper, 'clip_grad_kwargs', None)
    if clip:
        text += f', gradients clipped at {clip.get("max_norm", clip.get("clip_value"))}'
    return f'{text}; {kinds} group{"s" if kinds > 1 else ""}'


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f'{high:g}' if low == high else f'{low:.3g} to {high:.3g}'


def _batch(runner: Runner) -> str:
    text = describe(runner, runner.cfg.get('auto_scale_lr')).replace('total batch: ', '')
    text = re.sub(r'^(\d+) = \1 images', r'\1 images', text)
    return re.sub(r'\b1 images', '1 image', text)


def _length(runner: Runner) -> str:
    loop = runner.train_loop
    by_epoch = isinstance(loop, EpochBasedTrainLoop)
    text = _of(loop.max_iters, 'iteration')
    if by_epoch:
        text = f'{_of(loop.max_epochs, "epoch")} of {_of(len(loop.dataloader), "iteration")}'
    unit = 'epochs' if by_epoch else 'iterations'
    text += f', {_schedule(runner.param_schedulers)}'
    if runner.val_loop is None:
        text += '; no validation'
    else:
        text += f'; validation every {_every(loop.val_interval, unit)}'
    hooks = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    if hooks and hooks[0].interval > 0:
        unit = 'epochs' if hooks[0].by_epoch else 'iterations'
        text += f', checkpoint every {_every(hooks[0].interval, unit)}'
    elif not hooks:
        text += ', no checkpoints'
    return text


def _every(interval: int, unit: str) -> str:
    return unit[:-1] if interval == 1 else f'{_number(interval)} {unit}'


def _schedule(schedulers: Any) -> str:
    if isinstance(schedulers, Mapping):
        return '; '.join(f'{name}: {_schedule(each)}' for name, each in schedulers.items())
    if not schedulers:
        return 'constant lr'
    warmup = next((s for s in schedulers if is_warmup(s)), None)
    others = [type(s).__name__ for s in schedulers if s is not warmup]
    text = ', '.join(dict.fromkeys(others)) or 'constant lr'
    if warmup is not None:
        unit = 'epochs' if warmup.by_epoch else 'iterations'
        text += f' after {_number(warmup.end - warmup.begin)} {unit} of warm-up'
    return text


def _precision(runner: Runner) -> str:
    wrapper = runner.optim_wrapper
    if isinstance(wrapper, OptimWrapperDict):
        wrapper = next(iter(wrapper.values()))
    name = type(wrapper).__name__
    precision = 'float32'
    if 'Amp' in name or 'Autocast' in name:
        dtype = getattr(wrapper, 'cast_dtype', None) or 'bfloat16'
        precision = f'mixed, {str(dtype).removeprefix("torch.")}'
    return f'{precision} on {_device(runner)}{_processes()}'


def _device(runner: Runner) -> str:
    if described := _described(runner).get('device'):
        return described
    device = next(runner.model.parameters()).device
    if device.type == 'cuda':
        return f'{device} ({torch.cuda.get_device_name(device)})'
    threads = torch.get_num_threads()
    return f'{device} ({threads} thread{"s" if threads > 1 else ""})'


def _processes() -> str:
    count = get_world_size()
    return f', {count} processes' if count > 1 else ''


def _begin(runner: Runner, resumed: str | None) -> str:
    seed = f'seed {runner.seed}'
    if (runner.cfg.get('randomness') or {}).get('seed') is None and not resumed:
        seed += ' (drawn)'
    if getattr(runner, 'deterministic', False):
        seed += ', deterministic'
    if not resumed:
        return f'from the beginning, {seed}'
    loop = runner.train_loop
    where = f'iteration {_number(runner.iter)}'
    if isinstance(loop, EpochBasedTrainLoop):
        where = f'epoch {loop.epoch}, {where}'
    return f'resumed from {resumed} after {where}, {seed}'


def _log_file(runner: Runner) -> str:
    files = [h for h in runner.logger.handlers if isinstance(h, logging.FileHandler)]
    return files[0].baseFilename


def _checkpoints(runner: Runner) -> str:
    newest = newest_checkpoint(runner)
    if newest is None:
        return 'no checkpoint'
    if not os.path.dirname(newest):
        newest = _short(os.path.join(runner.work_dir, newest))
    best = runner.message_hub.runtime_info.get('best_ckpt')
    score = runner.message_hub.runtime_info.get('best_score')
    text = f'checkpoint {newest}'
    if best:
        text += f', best {_short(str(best))}'
        text += f' ({float(score):.4g})' if isinstance(score, int | float) else ''
    return text


def _short(path: str | os.PathLike[str]) -> str:
    """A path from the current folder if it lies in it."""
    here, whole = Path.cwd(), Path(os.path.abspath(path))
    return str(whole.relative_to(here)) if whole.is_relative_to(here) else str(whole)


def _number(count: int | float) -> str:
    return f'{int(count):,}' if count != float('inf') else 'endless'


def _of(count: int | float, noun: str) -> str:
    return f'{_number(count)} {noun}{"" if count == 1 else "s"}'


def _millions(count: int) -> str:
    if count < 1000:
        return str(count)
    return f'{count / 1e6:.2f} M' if count >= 1e6 else f'{count / 1e3:.1f} k'
