"""The rates of recipes with timm's schedule, from the first iteration to the last."""

import math

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

from .loading import CONFIGS, look_at

LENGTH = 4  # iterations an epoch


def rates(cfg) -> list[float]:
    """Rate of every iteration, as a runner sets it."""
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], cfg.optim_wrapper.optimizer.lr)
    defaults = dict(optimizer=optimizer, epoch_length=LENGTH)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(s), default_args=defaults) for s in cfg.param_scheduler
    ]
    found = []
    for iteration in range(cfg.train_cfg.max_epochs * LENGTH):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or (iteration + 1) % LENGTH == 0:
                scheduler.step()
    return found


@pytest.mark.parametrize(
    ('name', 'warm', 'by_epoch'),
    [
        pytest.param(name, warm, by_epoch, marks=pytest.mark.part_of(f'tree:{name.split("/")[0]}'))
        for name, warm, by_epoch in (
            ('acmix/pvt-t_8xb128-300e_in1k', 5, True),
            ('acmix/swin-t-acmix_8xb128-300e_in1k', 20, False),
            ('cvt/cvt-21_16xb128-300e_in1k', 5, True),
        )
    ],
)
def test_the_cosine_begins_under_the_warm_up(name, warm, by_epoch):
    cfg = look_at(CONFIGS / f'{name}.py')
    found, peak, start, floor = rates(cfg), cfg.optim_wrapper.optimizer.lr, 1e-6, 1e-5
    assert found[0] == pytest.approx(start)
    for iteration, rate in enumerate(found):
        epoch = iteration / LENGTH
        if epoch < warm:
            expected = start + epoch / warm * (peak - start)
            # MMEngine's warm-up ends an iteration early
            assert rate == pytest.approx(expected, abs=(0.01 + 1 / warm / LENGTH) * peak)
        else:
            epoch = int(epoch) if by_epoch else epoch
            expected = floor + (peak - floor) * (1 + math.cos(math.pi * epoch / 300)) / 2
            assert rate == pytest.approx(expected, abs=5e-4 * peak)
