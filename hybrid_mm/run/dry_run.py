"""One training step and one validation batch of a run, and an estimate of the whole from them."""

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from hybrid_mm.checkpoints import inner_model
from hybrid_mm.errors import UserError
from hybrid_mm.run.console import duration, print_table
from hybrid_mm.run.launch import training_runner
from hybrid_mm.run.total_batch import describe

_BRIEF = 20.0  # seconds; after a shorter step a second one is taken, and timed instead


@dataclass
class DryRun:
    """Measurements of one training step and one validation batch.

    Attributes:
        parameters: Number of parameters of the model.
        trainable: Number of those that are trained.
        steps: Iterations of the whole run.
        shape: (N, C, H, W) of the images that the model gets; empty if not known.
        batch: The total batch of a step of the optimizer, in words.
        losses: Losses of the first step by name.
        load: Seconds to read one batch in one process.
        step: Seconds of forward and backward pass and of the optimizer.
        val_load: Seconds to read one batch of the validation; None without a validation.
        val_step: Seconds to predict it.
        memory: Bytes at the peak of the training step.
        growth: Bytes at the peak above those before the step.
        checkpoint: Bytes of the weights and the optimizer's state.
        validations: Validations in the whole run.
        val_batches: Batches of each validation.
        workers: Processes that read training data.
        val_workers: Processes that read validation data.
        notes: Further lines to print.
    """

    parameters: int
    trainable: int
    steps: int
    shape: tuple[int, ...] = ()
    batch: str = ''
    losses: dict[str, float] = field(default_factory=dict)
    load: float = 0.0
    step: float = 0.0
    val_load: float | None = None
    val_step: float = 0.0
    memory: int = 0
    growth: int = 0
    checkpoint: int = 0
    validations: int = 0
    val_batches: int = 0
    workers: int = 0
    val_workers: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Estimate of the whole run in seconds."""
        train = self.steps * _together(self.load, self.step, self.workers)
        if self.val_load is None:
            return train
        one = _together(self.val_load, self.val_step, self.val_workers)
        return train + self.validations * self.val_batches * one


def _together(load: float, compute: float, workers: int) -> float:
    """Seconds per batch: with workers, reading overlaps with computing."""
    return max(compute, load / workers) if workers else load + compute


def dry_run(cfg: Config, resumed: str | None = None) -> DryRun:
    """Build all that a run needs, take one step on one batch and predict one validation batch.

    The work dir is not touched, nothing is saved, and no TensorBoard or Weights & Biases run is
    started.

    Args:
        cfg: Config of the run, with all flags applied.
        resumed: Checkpoint to resume from.

    Raises:
        UserError: The run would be distributed, or the loss is not finite.
    """
    if cfg.get('launcher', 'none') != 'none':
        raise UserError('--dry-run looks at one process; leave out --launcher')
    cfg.log_level = 'WARNING'
    if cfg.get('visualizer'):
        cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    with tempfile.TemporaryDirectory() as folder:
        cfg.work_dir = folder
        runner = training_runner(cfg, resumed)
        found = []

        def one_step() -> nn.Module:
            found.append(_one_step(runner))
            return runner.model

        runner.train_loop.run = one_step
        runner.train()
    return found[0]


def show(result: DryRun, macs: int | None) -> None:
    """Print a dry run as a table.

    Args:
        result: From :func:`dry_run`.
        macs: Multiply-adds of the model for one image of the batch; None if they are not known.
    """
    rows = [
        ('parameters', f'{result.parameters:,}'),
        ('trained', f'{result.trainable:,}'),
        ('batch', ' x '.join(map(str, result.shape)) or 'unknown'),
        ('FLOPs of an image', f'{macs / 1e9:.2f} G' if macs else 'not countable'),
        ('loss of the first step', f'{result.losses.get("loss", math.nan):.4f}'),
        ('peak memory', f'{_size(result.memory)}, {_size(result.growth)} by the step'),
        ('reading a batch', f'{result.load:.3g} s, {result.workers} workers'),
        ('training step', f'{result.step:.3g} s'),
    ]
    if result.val_load is not None:
        rows += [
            (
                'reading a validation batch',
                f'{result.val_load:.3g} s, {result.val_workers} workers',
            ),
            ('predicting it', f'{result.val_step:.3g} s'),
        ]
    rows += [
        ('steps', f'{result.steps:,}'),
        ('validations', f'{result.validations:,}, each of {result.val_batches:,} batches'),
        ('checkpoint', _size(result.checkpoint)),
        ('whole run, here, one process', f'about {duration(result.seconds)}'),
    ]
    print_table('Dry run: nothing was saved', ('', 'value'), rows)
    if result.batch:
        print(result.batch)
    for note in result.notes:
        print(note)


def _one_step(runner: Runner) -> DryRun:
    """Take one step, which replaces the training loop, and measure it."""
    model, loop = inner_model(runner.model), runner.train_loop
    parameters = list(model.parameters())
    result = DryRun(
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
        loop.max_iters,
        batch=describe(runner, runner.cfg.get('auto_scale_lr')),
        workers=loop.dataloader.num_workers,
    )
    batch, result.load = _read(loop.dataloader)
    with _input_shape(model, result):
        runner.model.train()
        with _memory(model, result):
            result.step, losses = _timed(
                lambda: runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
            )
    if result.step < _BRIEF:
        result.step, _ = _timed(
            lambda: runner.model.train_step(batch, optim_wrapper=runner.optim_wrapper)
        )
    result.losses = {
        key: float(torch.as_tensor(value).detach())
        for key, value in losses.items()
        if _is_number(value)
    }
    wrong = [key for key, value in result.losses.items() if not math.isfinite(value)]
    if wrong:
        raise UserError(f'{wrong[0]} of the first step is {result.losses[wrong[0]]}')
    result.checkpoint = _bytes(model.state_dict()) + _bytes(runner.optim_wrapper.state_dict())
    if runner.val_loop is not None:
        _validate(runner, result)
    return result


def _is_number(value: object) -> bool:
    return isinstance(value, float | int) or (isinstance(value, Tensor) and value.numel() == 1)


def _validate(runner: Runner, result: DryRun) -> None:
    """Predict and evaluate one batch, and count the validations of the whole run."""
    loop, train = runner.val_loop, runner.train_loop
    batch, result.val_load = _read(loop.dataloader)
    runner.model.eval()
    with torch.no_grad():
        result.val_step, outputs = _timed(lambda: runner.model.val_step(batch))
    loop.evaluator.process(data_samples=outputs, data_batch=batch)
    result.val_batches = len(loop.dataloader)
    result.val_workers = loop.dataloader.num_workers
    epochs = isinstance(train, EpochBasedTrainLoop)
    end = train.max_epochs if epochs else train.max_iters
    result.validations = validations(train.val_begin, end, train.val_interval)


def validations(begin: int, end: int, interval: int) -> int:
    """Number of validations: from ``begin`` at multiples of ``interval``, and at the end."""
    if begin > end:
        return 0
    return end // interval - (max(begin, 1) - 1) // interval + (end % interval != 0)


def _read(loader: DataLoader) -> tuple[Any, float]:
    """One batch, read in this process, and the seconds that this took."""
    indices = next(iter(cast(Iterable[list[int]], loader.batch_sampler)))
    start = time.perf_counter()
    batch = loader.collate_fn([loader.dataset[i] for i in indices])
    return batch, time.perf_counter() - start


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, GPU included, and its result."""
    start = time.perf_counter()
    result = function()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


@contextlib.contextmanager
def _input_shape(model: BaseModel, result: DryRun) -> Iterator[None]:
    """Context that notes the shape of the images after the data preprocessor."""

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        images = output.get('inputs') if isinstance(output, dict) else None
        if isinstance(images, Tensor):
            result.shape = tuple(images.shape)

    handle = model.data_preprocessor.register_forward_hook(note)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def _memory(model: nn.Module, result: DryRun) -> Iterator[None]:
    """Context that measures the peak of the GPU's allocator or, on a CPU, of resident memory."""
    device = next(model.parameters()).device
    if device.type == 'cuda':
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield
        result.memory = torch.cuda.max_memory_allocated(device)
    else:
        before, resets = _resident('VmRSS'), _reset_peak()
        yield
        result.memory = _resident('VmHWM')
        if not resets:
            result.notes.append('peak memory is that of the process since its start')
    result.growth = max(0, result.memory - before)


def _reset_peak() -> bool:
    """Make Linux count the peak of resident memory from now on; return whether it does."""
    try:
        Path('/proc/self/clear_refs').write_text('5')
    except OSError:
        return False
    return True


def _resident(key: str) -> int:
    """Bytes of resident memory: now ('VmRSS') or at the peak ('VmHWM', the default elsewhere)."""
    with contextlib.suppress(OSError):
        for line in Path('/proc/self/status').read_text().splitlines():
            if line.startswith(f'{key}:'):
                return 1024 * int(line.split()[1])
    import resource  # Unix only

    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _bytes(state: Any) -> int:
    """Bytes of all tensors in nested dicts and lists."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, dict):
        return sum(map(_bytes, state.values()))
    return sum(map(_bytes, state)) if isinstance(state, list | tuple) else 0


def _size(count: int) -> str:
    return f'{count / 2**30:.2f} GiB' if count >= 2**30 else f'{count / 2**20:.1f} MiB'
