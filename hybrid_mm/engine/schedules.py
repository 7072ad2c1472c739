"""Schedules of learning rates and other parameters, computed anew up to a place in a run."""

from collections.abc import Sequence
from copy import copy
from typing import Any

# what a scheduler of MMEngine notes while it runs; all else in it comes from the config
_NOTES = {
    *('optimizer', 'last_step', 'verbose', 'base_values', '_global_step', '_last_value'),
    *('best', 'num_bad_epochs', 'cooldown_counter'),
}


def settings_of(state: dict[str, Any]) -> dict[str, Any]:
    """Settings in the state of a scheduler (``state_dict()``), without its position and values."""
    return {k: getattr(v, '__qualname__', v) for k, v in state.items() if k not in _NOTES}


def needs_metrics(scheduler: Any) -> bool:
    """Whether a scheduler follows validations, so that it cannot be computed from its settings."""
    return bool(getattr(scheduler, 'need_val_args', False))


class _Parameters:
    """What a scheduler needs of an optimizer: groups of parameters without any."""

    def __init__(self, groups: Sequence[dict[str, Any]], defaults: dict[str, Any]) -> None:
        self.param_groups = [{k: v for k, v in g.items() if k != 'params'} for g in groups]
        self.defaults = defaults
        self._global_step = 0

    def step(self) -> None:
        """Never called; schedulers look for the mark."""

    step._with_counter = True  # type: ignore[attr-defined]


def advance(
    schedulers: Sequence[Any], groups: Sequence[dict], defaults: dict, epochs: int, iters: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Run schedulers from their start to a place in a training.

    Args:
        schedulers: Schedulers as they are built; they are not changed.
        groups: Parameter groups of their optimizer at that moment.
        defaults: ``optimizer.defaults``.
        epochs: Epochs that are done.
        iters: Iterations that are done.

    Returns:
        States of the schedulers, and the groups without their parameters.
    """
    of_kind = _kinds(schedulers, groups)
    first = [of_kind.index(kind) for kind in dict.fromkeys(of_kind)]
    light = _Parameters([groups[i] for i in first], defaults)
    moved = [copy(scheduler) for scheduler in schedulers]
    for scheduler in moved:
        scheduler.optimizer = light
        scheduler.base_values = [scheduler.base_values[i] for i in first]
    length = iters // epochs if epochs else iters
    of_iter = [s for s in moved if not s.by_epoch]
    of_epoch = [s for s in moved if s.by_epoch]
    for number in range(1, iters + 1):
        for scheduler in of_iter:
            scheduler.step()
        if number % length == 0 and number // length <= epochs:
            for scheduler in of_epoch:
                scheduler.step()
    place = {of_kind[i]: number for number, i in enumerate(first)}
    numbers = [place[kind] for kind in of_kind]
    states = []
    for scheduler in moved:
        state = scheduler.state_dict()
        for key in ('base_values', '_last_value'):
            state[key] = [state[key][number] for number in numbers]
        states.append(state)
    names = {scheduler.param_name for scheduler in schedulers}
    values = [
        {k: v for k, v in group.items() if k != 'params'}
        | {k: v for k, v in light.param_groups[number].items() if k in (*names, 'betas')}
        for group, number in zip(groups, numbers, strict=True)
    ]
    return states, values


def _kinds(schedulers: Sequence[Any], groups: Sequence[dict]) -> list[str]:
    """Mark groups that schedulers treat alike, of which layer-wise decay has hundreds."""
    known = {'base_values', '_last_value'}
    for scheduler in schedulers:
        for key, value in vars(scheduler).items():
            if isinstance(value, list) and len(value) == len(groups) and key not in known:
                return [str(i) for i in range(len(groups))]  # perhaps a value for each
    names = {scheduler.param_name for scheduler in schedulers}
    return [
        repr([(k, group[k]) for k in sorted(group) if k == 'betas' or k.endswith((*names,))])
        for group in groups
    ]
