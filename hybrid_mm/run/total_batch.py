"""Total batch size of a run, and the learning rate that belongs to it.

MMEngine scales learning rates with images times processes. Here gradients that are accumulated
over several iterations count as well: they are one step of the optimizer.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from mmengine.optim import OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner

from hybrid_mm.errors import UserError


def count_accumulation(runner: Runner) -> None:
    """Make a runner scale its learning rates by :func:`scale_rates` instead of MMEngine's method.

    Args:
        runner: Before its training.
    """
    strategy = getattr(runner, 'strategy', None)
    if strategy is None:
        vars(runner)['scale_lr'] = partial(scale_rates, runner)
    else:  # of a FlexibleRunner
        vars(strategy)['_scale_lr'] = partial(_scale_prepared, runner)


def _scale_prepared(runner: Runner) -> None:
    scale_rates(runner, runner.strategy.optim_wrapper, runner.strategy._auto_scale_lr)


def scale_rates(runner: Runner, optim_wrapper: Any, auto_scale_lr: dict | None = None) -> None:
    """Scale the learning rates of all optimizers with their total batch, if that is asked for.

    Args:
        runner: With its data loader.
        optim_wrapper: Built, before there are schedulers.
        auto_scale_lr: ``enable`` and ``base_batch_size`` of the config.

    Raises:
        UserError: An epoch has no batch, or the rate cannot be scaled.
    """
    settings = auto_scale_lr or {}
    for line, ratio, wrapper in _batches(runner, optim_wrapper, settings):
        if settings.get('enable'):
            base = wrapper.base_param_settings  # what the log calls base_lr
            for group in [*wrapper.optimizer.param_groups, *([base] if base else [])]:
                group['lr'] *= ratio
        runner.logger.info(line)


def describe(runner: Runner, auto_scale_lr: dict | None) -> str:
    """Total batch of each optimizer of a built runner, beside the one of its learning rate."""
    batches = _batches(runner, runner.optim_wrapper, auto_scale_lr or {})
    return '; '.join(line for line, _, _ in batches)


def _batches(
    runner: Runner, optim_wrapper: Any, settings: dict[str, Any]
) -> Iterator[tuple[str, float, Any]]:
    """Words, factor of the learning rate, and wrapper of each optimizer."""
    base, enable = settings.get('base_batch_size'), settings.get('enable')
    loader = runner.train_dataloader
    if isinstance(getattr(runner, 'train_loop', None), EpochBasedTrainLoop) and not len(loader):
        raise UserError(
            f'an epoch has no batch: {len(loader.sampler)} images for each process, of which '
            f'train_dataloader.drop_last leaves out batches of less than {loader.batch_size}; set '
            'train_dataloader.batch_size to a smaller number, or drop_last=False'
        )
    images = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None)
    if not isinstance(images, int):
        if enable:
            raise UserError(
                'the learning rate cannot be scaled: the batch size of train_dataloader is not '
                'known; set train_dataloader.batch_size or auto_scale_lr=None'
            )
        return
    several = isinstance(optim_wrapper, OptimWrapperDict)
    for name, wrapper in optim_wrapper.items() if several else [('', optim_wrapper)]:
        count, processes = wrapper._accumulative_counts, runner.world_size
        total = images * processes * count
        line = f'total batch{f" of {name}" if name else ""}: {total} = {images} images'
        line += f' x {processes} processes' if processes > 1 else ''
        line += f' x {count} accumulated' if count > 1 else ''
        ratio = total / base if base else 1.0
        if base and enable:
            line += f'; the learning rate is meant for {base}, and scaled by {ratio:g}'
        elif base and ratio != 1:
            line += f'; the learning rate is meant for {base}, --auto-scale-lr would scale it'
        yield line, ratio, wrapper
