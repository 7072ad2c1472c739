"""One training of the study, and what is measured of it."""

import json
import resource
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.analysis.study import peers  # noqa: F401  registers the networks of other packages
from hybrid_mm.analysis.study.records import Record
from hybrid_mm.analysis.study.systems import SIZES, System, digest
from hybrid_mm.benchmarks.core import memory
from hybrid_mm.run import launch
from hybrid_mm.run.outputs import replacing
from hybrid_mm.run.resume import set_resume
from hybrid_mm.version import __version__

__all__ = ['METRICS', 'MeasureHook', 'record_of', 'train']

METRICS = dict(segmentation='mIoU', detection='coco/bbox_mAP')
_PERCENT = dict(segmentation=1.0, detection=100.0)
_WARM_UP = 5  # iterations that do not count: the first ones fill caches
POINTS = 40  # of the loss curve


class MeasureHook(Hook):
    """Note times and metrics of a training where checkpoints keep them.

    Args:
        progress: File that is replaced by the number of iterations done.
        task: 'segmentation' or 'detection'.
    """

    priority = 'LOWEST'  # the last before an iteration; losses are logged after it

    def __init__(self, progress: Path, task: str) -> None:
        self.progress, self.task = progress, task
        self.began = self.iteration = self.evaluation = time.process_time()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Start the clock of an iteration: its batch has been loaded."""
        self.iteration = time.process_time()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Stop it."""
        self.progress.write_text(f'{runner.iter + 1} {runner.max_iters}')

    def before_val(self, runner: Runner) -> None:
        """Start the clock of an evaluation."""
        self.evaluation = time.process_time()

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Stop it, and note the metric."""
        found = metrics or {}
        if self.task == 'detection':  # MMDetection has no metrics where nothing was detected
            found = {METRICS[self.task]: 0.0, **found}
        runner.message_hub.update_scalar('study/metric', found[METRICS[self.task]])
        seconds = time.process_time() - self.evaluation
        runner.message_hub.update_scalar('study/evaluation_seconds', seconds)


class _StopHook(Hook):
    """Stop the clock of an iteration before the hooks that log and save."""

    priority = 'VERY_HIGH'

    def __init__(self, clock: MeasureHook) -> None:
        self.clock, self.counted = clock, clock.began

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        now = time.process_time()
        hub = runner.message_hub
        hub.update_scalar('study/seconds', now - self.clock.iteration)
        hub.update_scalar('study/total_seconds', now - self.counted)
        self.counted = now


def train(system: System, task: str, cfg: Config, folder: Path) -> Record:
    """Train, or go on with an interrupted training, and measure.

    Args:
        system: The network.
        task: 'segmentation' or 'detection'.
        cfg: What :func:`~hybrid_mm.analysis.study.systems.compose` gives.
        folder: Folder of the training; ``record.json`` in it is the result.
    """
    identity = digest(cfg)
    cfg.work_dir, cfg.launcher = str(folder), 'none'
    launch.set_atomic_checkpoints(cfg)
    with launch.training_lock(cfg):
        resumed = set_resume(cfg, 'auto' if (folder / 'last_checkpoint').is_file() else None)
        launch.set_exact_resume(cfg)
        runner = launch.training_runner(cfg, resumed)
        clock = MeasureHook(folder / 'progress', task)
        runner.register_hook(clock)
        runner.register_hook(_StopHook(clock))
        runner.train()
        record = record_of(runner, system, task, identity)
        with replacing(folder / 'record.json') as file:
            file.write_text(json.dumps(asdict(record)))
    return record


def record_of(runner: Runner, system: System, task: str, identity: str) -> Record:
    """What was measured of a training that has ended.

    Args:
        runner: Its runner, whose model trains another batch (without an update).
        system: The network.
        task: 'segmentation' or 'detection'.
        identity: Digest of the config.
    """
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    history = {name: scalar.data[0] for name, scalar in runner.message_hub.log_scalars.items()}
    metric = _PERCENT[task] * history['study/metric']
    interval, end = runner.train_loop.val_interval, runner.max_iters
    at = [min(interval * (place + 1), end) for place in range(len(metric))]
    loss = history['train/loss']
    parts = np.array_split(np.arange(len(loss)), min(POINTS, len(loss)))
    seconds = history['study/seconds']
    bare, size = runner.model, SIZES[task]
    params, macs = complexity(bare.backbone, size)
    whole_params, whole_macs = complexity(bare, size)
    evaluations = history['study/evaluation_seconds']
    return Record(
        task=task,
        system=system.name,
        seed=runner.seed,
        digest=identity,
        last=round(float(metric[-1]), 2),
        best=round(float(max(metric)), 2),
        curve=[[x, round(float(y), 2)] for x, y in zip(at, metric, strict=True)],
        loss=[[int(part[-1]) + 1, round(float(loss[part].mean()), 4)] for part in parts],
        params=params,
        macs=macs,
        whole_params=whole_params,
        whole_macs=whole_macs,
        seconds=round(float(np.median(seconds[min(_WARM_UP, len(seconds) - 1) :])), 4),
        evaluation_seconds=round(float(evaluations[-1]), 2),
        total_seconds=round(float(history['study/total_seconds'].sum() + evaluations[-1]), 1),
        step_bytes=_step_bytes(runner),
        resident_bytes=resident,
        torch=torch.__version__.partition('+')[0],
        hybrid_mm=__version__,
    )


def _step_bytes(runner: Runner) -> int:
    """Peak of the allocations of forward and backward of the first batch."""
    model = runner.model
    batch = next(iter(runner.train_loop.dataloader))
    model.train()
    model.zero_grad(set_to_none=True)
    data = model.data_preprocessor(batch, True)

    def step() -> torch.Tensor:
        losses = model(**data, mode='loss')
        loss = model.parse_losses(losses)[0]
        loss.backward()
        return loss

    peak, _ = memory(step, torch.device('cpu'))
    model.zero_grad(set_to_none=True)
    return peak
