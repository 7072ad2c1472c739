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
    ('name', 'warm', 'by_epoch', 'length', 'floor'),
    [
        pytest.param(name, *values, marks=pytest.mark.part_of(f'tree:{name.split("/")[0]}'))
        for name, *values in (
            ('acmix/pvt-t_8xb128-300e_in1k', 5, True, 300, 1e-5),
            ('acmix/swin-t-acmix_8xb128-300e_in1k', 20, False, 300, 1e-5),
            ('cvt/cvt-21_16xb128-300e_in1k', 5, True, 300, 1e-5),
            ('dinat/dinat-tiny_8xb128_in1k', 20, False, 300, 5e-6),
            ('dinat/nat-iso-base_8xb128_in1k', 50, False, 300, 5e-6),
            ('elsa/elsa-swin-t_8xb128_in1k', 20, True, 300, 1e-5),
            ('levit/levit-256_8xb256-1000e_in1k', 5, True, 1000, 1e-5),
            ('lska/van-lska-tiny_4xb128_in1k', 5, True, 300, 1e-6),
            ('nat/nat-tiny_8xb128_in1k', 20, False, 300, 5e-6),
            ('van/van-b2_8xb128_in1k', 5, True, 300, 1e-6),
            ('vit/deit-small_8xb128-300e_in1k', 5, True, 300, 1e-5),
        )
    ],
)
def test_the_cosine_begins_under_the_warm_up(name, warm, by_epoch, length, floor):
    cfg = look_at(CONFIGS / f'{name}.py')
    found, peak, start = rates(cfg), cfg.optim_wrapper.optimizer.lr, 1e-6
    assert found[0] == pytest.approx(start)
    # MMEngine multiplies both schedules, and its warm-up ends a step early
    near = (1 - math.cos(math.pi * warm / length)) / 2 + (0 if by_epoch else 1 / warm / LENGTH)
    for iteration, rate in enumerate(found):
        epoch = iteration // LENGTH if by_epoch else iteration / LENGTH
        if epoch < warm:
            expected = start + epoch / warm * (peak - start)
            assert rate == pytest.approx(expected, abs=(5e-4 + near) * peak)
        else:
            part = min(epoch / length, 1)  # then timm's cool-down
            expected = floor + (peak - floor) * (1 + math.cos(math.pi * part)) / 2
            assert rate == pytest.approx(expected, abs=5e-4 * peak)
