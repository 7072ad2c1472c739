"""States of optimizers in checkpoints, beside the optimizer of a run."""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch import nn

from hybrid_mm.engine.optimizer_state import set_scaler, why_unfit


def scaler(**settings):
    if hasattr(torch.amp, 'GradScaler'):
        return torch.amp.GradScaler('cpu', **settings)
    module = 'torch.cuda.amp.grad_scaler.amp_definitely_not_available'
    with mock.patch(module, lambda: False):  # torch < 2.3 has none for CPUs
        return torch.cuda.amp.GradScaler(**settings)


def test_scale_goes_on_with_the_constants_of_the_run():
    saved = scaler(init_scale=1024.0, growth_interval=10)
    state = dict(loss_scaler=saved.state_dict() | dict(_growth_tracker=7))
    run = SimpleNamespace(loss_scaler=scaler(growth_interval=50), _scale_update_param=None)
    set_scaler(run, state)
    found = state['loss_scaler']
    assert (found['scale'], found['growth_interval'], found['_growth_tracker']) == (1024.0, 50, 7)
    fixed = SimpleNamespace(loss_scaler=scaler(init_scale=8.0), _scale_update_param=8.0)
    set_scaler(fixed, state)
    assert state['loss_scaler']['scale'] == 8.0


def test_scalers_added_and_removed():
    state = dict(loss_scaler=scaler().state_dict())
    set_scaler(SimpleNamespace(), state)  # without mixed precision
    assert state == {}
    set_scaler(SimpleNamespace(loss_scaler=scaler()), state)
    assert state == {}
    # of a scaler that was switched off, which torch would refuse
    state = dict(loss_scaler={})
    set_scaler(SimpleNamespace(loss_scaler=scaler()), state)
    assert state == {}


@pytest.mark.parametrize(('first', 'settings', 'then', 'changed', 'missing'), [
    ('SGD', {}, 'SGD', dict(momentum=0.9), None),  # starts by itself
    ('SGD', dict(momentum=0.9), 'SGD', {}, None),
    ('SGD', dict(momentum=0.9), 'Adam', {}, 'exp_avg'),
    ('Adam', {}, 'AdamW', {}, None),
    ('AdamW', {}, 'AdamW', dict(amsgrad=True), 'max_exp_avg_sq'),
    ('RMSprop', {}, 'RMSprop', dict(momentum=0.9), 'momentum_buffer'),
    ('RMSprop', {}, 'RMSprop', dict(centered=True), 'grad_avg'),
    ('Adagrad', {}, 'Adagrad', dict(lr_decay=0.1), None),
    ('AdamW', {}, 'LBFGS', {}, None),  # whose state cannot be asked for: torch decides
])  # fmt: skip
def test_states_that_are_not_there(first, settings, then, changed, missing):
    model = nn.Linear(2, 3)
    trained = getattr(torch.optim, first)(model.parameters(), lr=0.1, **settings)
    model(torch.ones(1, 2)).sum().backward()
    trained.step()
    run = getattr(torch.optim, then)(model.parameters(), **dict(lr=0.1) | changed)
    reason = why_unfit(run, trained.state_dict())
    assert (missing in reason) if missing else reason is None


def test_groups_in_another_order():
    one, two = nn.Parameter(torch.zeros(2, 3)), nn.Parameter(torch.zeros(4))
    trained = torch.optim.AdamW([dict(params=[one]), dict(params=[two])])
    one.grad = torch.ones(2, 3)
    trained.step()
    run = torch.optim.AdamW([dict(params=[two]), dict(params=[one])])
    assert 'of shape (2, 3) for a parameter of shape (4,)' in why_unfit(run, trained.state_dict())
