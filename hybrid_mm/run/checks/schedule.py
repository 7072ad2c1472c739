"""Schedules beside the length of a run: what never happens, or happens at another time than meant.

Schedulers, loops and hooks are looked at as they are built, so that epochs are converted to
iterations, and default ends are set.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from hybrid_mm.errors import UserError, shorten, warn

_SLACK = 0.01  # of a run: shares below it are rounding
_COOLDOWN = 0.1  # of a run: constant rates at the end that are meant so


class ScheduleHook(Hook):
    """Warn, before a run starts, of a schedule that does not fit its length."""

    def before_run(self, runner: Runner) -> None:
        """Print one warning for each.

        Raises:
            UserError: An ``EMAHook`` begins after the end.
        """
        loop = runner.train_loop
        epochs = loop.max_epochs if isinstance(loop, EpochBasedTrainLoop) else None
        schedulers = runner.param_schedulers or []
        if not isinstance(schedulers, dict):
            schedulers = {'param_scheduler': schedulers}
        else:
            schedulers = {f'param_scheduler.{name}': each for name, each in schedulers.items()}
        for name, each in schedulers.items():
            for message in misfits(each, epochs, loop.max_iters, name):
                warn(message)
        for message in (*_validations(runner, epochs), *_checkpoints(runner, epochs)):
            warn(message)
        _check_averages(runner, epochs)


def misfits(
    schedulers: Sequence[Any], epochs: int | None, iters: int, name: str = 'param_scheduler'
) -> Iterator[str]:
    """Say how schedulers do not fit the length of a run.

    Args:
        schedulers: Of MMEngine, as they are built.
        epochs: Length of the run in epochs; None for one by iterations.
        iters: Its length in iterations.
        name: Where the config has them.
    """
    kept = []
    for i, scheduler in enumerate(schedulers):
        label = f'{name}.{i} ({type(scheduler).__name__})'
        unit = 'epoch' if scheduler.by_epoch else 'iteration'
        length = epochs if scheduler.by_epoch else iters
        if length is None:
            yield (
                f'{label} has by_epoch=True in a run by iterations: it never does anything; set '
                'by_epoch=False and count in iterations'
            )
            continue
        kept.append((scheduler, label, unit, length))
        yield from _misfits_of(scheduler, label, unit, length)
    for parameter in dict.fromkeys(scheduler.param_name for scheduler, *_ in kept):
        yield from _early_end([each for each in kept if each[0].param_name == parameter])


def _misfits_of(scheduler: Any, label: str, unit: str, length: int) -> Iterator[str]:
    """What one scheduler does outside of a run of ``length`` epochs or iterations."""
    begin, end = scheduler.begin, scheduler.end
    if begin >= length:
        yield f'{label} begins at {unit} {begin}, but the run ends after {length}'
        return
    shown = min(end, length)
    yield from _rising(scheduler, label)
    if _stretched(scheduler) and end > length * (1 + _SLACK):
        yield (
            f'{label} lasts until {unit} {end}, but the run ends after {length}: the '
            f'{scheduler.param_name} does not get to its last value'
        )
    for option, period, short in (
        ('T_max', getattr(scheduler, 'T_max', None), 'rises again'),
        ('total_steps', getattr(scheduler, 'total_steps', None), 'stays as it is after them'),
        ('periods', sum(getattr(scheduler, 'periods', ())) or None, 'stays as it is after them'),
    ):
        if period is not None and abs(period - (end - begin)) > _SLACK * (end - begin):
            effect = short if period < end - begin else 'does not get to its last value'
            yield (
                f'{label} has {option} of {period}, but lasts {end - begin} {unit}s '
                f'(begin={begin}, end={end}): the {scheduler.param_name} {effect}'
            )
    late = [step for step in getattr(scheduler, 'milestones', ()) if begin + step >= shown]
    if late:
        yield (
            f'{label} has a step at {unit} {shorten([str(begin + step) for step in late])}, but '
            f'{"the run" if length <= end else "it"} ends after {shown}'
        )
    step = getattr(scheduler, 'step_size', None)
    if step is not None and begin + step >= shown:
        yield f'{label} has a first step at {unit} {begin + step}, but the run ends after {length}'


def _rising(scheduler: Any, label: str) -> Iterator[str]:
    """Say if a floor lies above the values from which some parameters start."""
    floor = getattr(scheduler, 'eta_min', None) or 0
    lowest = min(getattr(scheduler, 'base_values', ()), default=floor)
    if lowest < floor:
        ratio = 'eta_min_ratio gives each group of parameters its own'
        remedy = ratio if hasattr(scheduler, 'eta_min_ratio') else 'set a lower one'
        yield (
            f'{label} has eta_min of {floor:g}, but the {scheduler.param_name} of some parameters '
            f'starts at {lowest:.3g}, and rises to it; {remedy}'
        )


def _stretched(scheduler: Any) -> bool:
    """Whether the values of a scheduler depend on where it ends."""
    return hasattr(scheduler, 'total_iters') or hasattr(scheduler, 'total_steps')


def _early_end(schedulers: list[tuple[Any, str, str, int]]) -> Iterator[str]:
    """Say if all schedulers of a parameter end before the run; warm-ups alone are meant so."""
    if all(is_warmup(scheduler) for scheduler, *_ in schedulers):
        return
    last, label, unit, length = max(schedulers, key=lambda each: each[0].end / each[3])
    if last.end < length * (1 - _COOLDOWN):
        yield (
            f'{label} ends at {unit} {last.end}, but the run after {length}: the '
            f'{last.param_name} stays as it is from there on'
        )


def is_warmup(scheduler: Any) -> bool:
    """Whether a scheduler ends with the value of the optimizer."""
    return hasattr(scheduler, 'total_iters') and (
        getattr(scheduler, 'end_factor', None) == 1 or hasattr(scheduler, 'factor')
    )


def _validations(runner: Runner, epochs: int | None) -> Iterator[str]:
    if runner.val_loop is None:
        return
    loop = runner.train_loop
    length, unit = (loop.max_iters, 'iterations') if epochs is None else (epochs, 'epochs')
    if loop.val_begin > length:
        yield (
            f'train_cfg.val_begin is {loop.val_begin}, but the run ends after {length} {unit}: '
            'nothing is ever validated'
        )
    elif loop.val_interval > length:
        yield (
            f'train_cfg.val_interval is {loop.val_interval}, but the run ends after {length} '
            f'{unit}: it is validated at its end only'
        )


def _checkpoints(runner: Runner, epochs: int | None) -> Iterator[str]:
    for hook in runner.hooks:
        if not isinstance(hook, CheckpointHook):
            continue
        if hook.by_epoch and epochs is None:
            yield (
                'the checkpoint hook has by_epoch=True in a run by iterations: '
                + _consequence(hook)
                + '; set default_hooks.checkpoint.by_epoch=False and count in iterations'
            )
            continue
        length = epochs if hook.by_epoch else runner.train_loop.max_iters
        unit = 'epochs' if hook.by_epoch else 'iterations'
        if hook.interval > (length or 0):
            yield (
                f'default_hooks.checkpoint.interval is {hook.interval}, but the run ends after '
                f'{length} {unit}: {_consequence(hook)}'
            )


def _consequence(hook: CheckpointHook) -> str:
    return 'it is saved at its end only' if hook.save_last else 'nothing is saved'


def _check_averages(runner: Runner, epochs: int | None) -> None:
    """Refuse averages that begin after the end, which MMEngine asserts without a word."""
    for hook in runner.hooks:
        if not isinstance(hook, EMAHook):
            continue
        for key, length in (('epoch', epochs or 1), ('iter', runner.train_loop.max_iters)):
            begin = getattr(hook, f'begin_{key}')
            if begin > length:
                raise UserError(
                    f'EMAHook begins at {key} {begin} (begin_{key}), but the run ends after '
                    f'{length}'
                )
