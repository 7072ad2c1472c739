"""States of optimizers in checkpoints, beside the optimizer of a run."""

from collections import defaultdict
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from hybrid_mm.errors import shorten

# entries of an optimizer's state that have the shape of their parameter
_AVERAGES = ('exp_avg', 'exp_avg_sq', 'momentum_buffer', 'square_avg', 'sum')


def why_unfit(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> str | None:
    """Why an optimizer cannot go on from a state, as the predicate of a sentence about the state.

    Args:
        optimizer: That of the run.
        saved: ``state_dict()`` of the one that was saved.

    Returns:
        None if it can.
    """
    if 'param_groups' not in saved:
        return f'has the states of several optimizers ({shorten(list(saved))}), this run has one'
    ours, theirs = optimizer.param_groups, saved['param_groups']
    sizes = [[len(group['params']) for group in groups] for groups in (ours, theirs)]
    if sizes[0] != sizes[1]:
        return (
            f'has an optimizer with {sum(sizes[1])} parameters in {len(sizes[1])} groups, this run '
            f'has {sum(sizes[0])} in {len(sizes[0])} (paramwise_cfg or the constructor of '
            'optim_wrapper differ, or other layers are trained)'
        )
    numbers = [number for group in theirs for number in group['params']]
    parameters = [parameter for group in ours for parameter in group['params']]
    for number, parameter in zip(numbers, parameters, strict=True):
        for key, value in saved['state'].get(number, {}).items():
            if key in _AVERAGES and isinstance(value, Tensor) and value.shape != parameter.shape:
                return (
                    f'has an optimizer state of shape {tuple(value.shape)} for a parameter of '
                    f'shape {tuple(parameter.shape)}: the groups of parameters are in another order'
                )
    found = {key for state in saved['state'].values() for key in state}
    missing = _state_keys(optimizer) - found if found else set()
    if missing:
        return (
            f'has an optimizer state of {shorten(sorted(found))}; {type(optimizer).__name__} with '
            f'the settings of this run also needs {shorten(sorted(missing))}'
        )
    return None


def _state_keys(optimizer: torch.optim.Optimizer) -> set[str]:
    """Names of the state that an optimizer keeps for a parameter; empty if that is not known."""
    parameter = nn.Parameter(torch.zeros(2, 2))
    parameter.grad = torch.zeros(2, 2)
    probe = copy(optimizer)
    probe.param_groups = [dict(optimizer.param_groups[0], params=[parameter])]
    probe.state = defaultdict(dict)
    try:
        probe.step()
    except Exception:  # an optimizer of somebody else, which needs more than this
        return set()
    return set(probe.state[parameter])


def is_scheduled(key: str, scheduled: set[str]) -> bool:
    """Whether a key of a parameter group is a scheduled value, or belongs to one."""
    kinds = ('', 'initial_', 'max_', 'min_')
    return any(key == f'{kind}{name}' for kind in kinds for name in scheduled)


def same_settings(group: dict[str, Any], saved: dict[str, Any], scheduled: set[str]) -> bool:
    """Whether two parameter groups have the same settings; scheduled values are no settings."""
    names = set(scheduled)
    if 'momentum' in names and 'betas' in group:
        names.add('betas')  # schedules of momentum write it there
    keys = (group.keys() & saved.keys()) - {'params', *names}
    initial = {f'initial_{name}' for name in scheduled}
    return initial <= saved.keys() and all(group[key] == saved[key] for key in keys)


def set_scaler(wrapper: Any, saved: dict[str, Any]) -> None:
    """Set the constants of a gradient scaler to those of this run; its scale goes on."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    if scaler is None or not saved.get('loss_scaler'):
        saved.pop('loss_scaler', None)  # of mixed precision that is switched off
        return
    fixed = getattr(wrapper, '_scale_update_param', None) is not None
    state = scaler.state_dict()
    running = () if fixed else ('scale', '_growth_tracker')
    saved['loss_scaler'].update({k: v for k, v in state.items() if k not in running})
