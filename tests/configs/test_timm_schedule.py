"""The rates of recipes with schedules of timm and MMCV, whose decay begins under the warm-up."""

import math

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

from .loading import CONFIGS, look_at

LENGTH = 4  # iterations an epoch


def rates(cfg, length: int | None = None) -> list[float]:
    """Rate of every iteration, or of the first ones, as a runner sets it."""
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], cfg.optim_wrapper.optimizer.lr)
    defaults = dict(optimizer=optimizer, epoch_length=LENGTH)
    schedulers = [
        PARAM_SCHEDULERS.build(dict(s), default_args=defaults) for s in cfg.param_scheduler
    ]
    found = []
    for iteration in range(length or cfg.train_cfg.max_epochs * LENGTH):
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
            ('van/van-b0_8xb128_in1k', 5, True),
            ('lska/van-lska-tiny_4xb128_in1k', 5, True),
        )
    ],
)
def test_the_cosine_begins_under_the_warm_up(name, warm, by_epoch):
    cfg = look_at(CONFIGS / f'{name}.py')
    found, peak, start = rates(cfg), cfg.optim_wrapper.optimizer.lr, 1e-6
    first, floor = cfg.param_scheduler[0], cfg.param_scheduler[1].eta_min
    assert found[0] == pytest.approx(start)
    for iteration, rate in enumerate(found):
        epoch = iteration / LENGTH
        if epoch < warm:
            steps = iteration / (warm * LENGTH - 1)  # MMEngine's warm-up ends a step early
            if first.by_epoch and not first.get('convert_to_iter_based'):
                steps = int(epoch) / (warm - 1)
            assert rate == pytest.approx(start + steps * (peak - start), abs=0.02 * peak)
        else:
            epoch = min(int(epoch) if by_epoch else epoch, 300)
            expected = floor + (peak - floor) * (1 + math.cos(math.pi * epoch / 300)) / 2
            assert rate == pytest.approx(expected, abs=5e-4 * peak)


@pytest.mark.parametrize('name', ['van-b0', 'hornet-tiny', 'nat-mini'])
def test_the_linear_decay_begins_under_the_warm_up(name):
    """As MMCV multiplies them, with which UperNets were trained."""
    tree = name.split('-')[0]
    cfg = look_at(CONFIGS / f'{tree}/{name}_upernet_8xb2-160k_ade20k-512x512.py')
    peak, warm, whole = cfg.optim_wrapper.optimizer.lr, 1500, 160000
    for iteration, rate in enumerate(rates(cfg, 2 * warm)):
        factor = min(1e-6 + (1 - 1e-6) * iteration / (warm - 1), 1)  # MMEngine's, see above
        assert rate == pytest.approx(peak * factor * (1 - iteration / whole), rel=1e-6)
