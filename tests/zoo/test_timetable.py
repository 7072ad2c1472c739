"""Lengths that users ask for: what happens when, with numbers by hand and MMEngine's schedulers."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from hybrid_mm.errors import UserError
from hybrid_mm.zoo.new_backbone import Backbone
from hybrid_mm.zoo.new_config import summary, write_config
from hybrid_mm.zoo.plan import make_plan
from hybrid_mm.zoo.splits import Split, UserData
from hybrid_mm.zoo.timetable import timetable

BACKBONE = Backbone('van-b0', dict(type='hybrid_mm.VAN', arch='b0'), [32, 64, 160, 256], 'x', [])
HEADS = dict(coco='retinanet', masks='semantic-fpn')


def data_set(layout: str, train: int, val: int = 7) -> UserData:
    splits = {
        name: Split(f'images/{name}', f'labels/{name}', number)
        for name, number in (('train', train), ('val', val))
    }
    suffixes = ('', '') if layout == 'coco' else ('.jpg', '.png')
    return UserData(Path('/x'), layout, ['cat', 'dog'], splits, (480, 360), suffixes=suffixes)


@pytest.fixture
def config(tmp_path):
    """Config of a length, and what was printed."""

    def write(data: UserData, **length) -> tuple[Config, str, str]:
        plan, out = make_plan(data, 4, **length), tmp_path / 'mine.py'
        out.unlink(missing_ok=True)
        write_config(str(out), data, HEADS[data.layout], BACKBONE, plan, 'new')
        return Config.fromfile(out), out.read_text(), summary(data, BACKBONE, plan)

    return write


def test_sixty_iterations(config):
    """CamVid: 240 crops are 0.65 epochs, and two times its 101 images of validation."""
    cfg, text, printed = config(data_set('masks', 367, 101), iterations=60)
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=60, val_interval=30)
    warm, poly = cfg.param_scheduler
    assert (warm.begin, warm.end, poly.begin, poly.end) == (0, 6, 6, 60)
    hooks = cfg.default_hooks
    assert (hooks.checkpoint.interval, hooks.logger.interval) == (30, 6)
    assert not hooks.checkpoint.by_epoch and not hooks.logger.log_metric_by_epoch
    for line in (
        '# 60 steps x 4 crops / 367 images = 0.65 epochs.',
        '# Length: --iterations 60, as asked for.',
        '# Warm-up in the first 6 iterations: a tenth of the run, at most 1,500.',
        '# Evaluation and checkpoint every 30 iterations, and at the end: each tenth, or',
    ):
        assert line in text
    assert '60 iterations (0.65 epochs), learning rate 5e-05; 6 iterations of warm-up' in printed


def test_iterations_of_a_detector(config):
    """A loop by iterations wants its own sampler, hooks and log."""
    cfg, text, printed = config(data_set('coco', 100, 10), iterations=60)
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=60, val_interval=5)
    warm, steps = cfg.param_scheduler
    assert (warm.end, steps.by_epoch, steps.end, steps.milestones) == (3, False, 60, [40, 55])
    assert cfg.train_dataloader.sampler.type == 'InfiniteSampler'
    assert cfg.log_processor.by_epoch is False
    hooks = cfg.default_hooks
    assert (hooks.checkpoint.by_epoch, hooks.checkpoint.interval) == (False, 5)
    assert hooks.logger == dict(type='LoggerHook', interval=6, log_metric_by_epoch=False)
    assert '# A tenth of the rate after 40 and 55 of 60 iterations: 8 and 11 twelfths.' in text
    assert '60 iterations (2.4 epochs)' in printed


def test_epochs(config):
    cfg, text, printed = config(data_set('coco', 100), epochs=3)
    assert cfg.train_cfg == dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=1)
    assert cfg.param_scheduler[1].milestones == [50, 68]  # of 75 iterations
    assert cfg.train_dataloader.sampler.type == 'DefaultSampler'
    assert '100 images / 4 = 25 steps an epoch; 3 epochs are 75 steps.' in text
    assert '3 epochs, learning rate' in printed
    cfg, *_ = config(data_set('coco', 100), epochs=24)
    assert (cfg.param_scheduler[1].milestones, cfg.train_cfg.val_interval) == ([16, 22], 2)
    cfg, text, _ = config(data_set('masks', 101), epochs=3)  # 75.75 steps
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=76, val_interval=8)
    assert '# Length: --epochs 3, as asked for.' in text


@pytest.mark.parametrize('layout', HEADS)
@pytest.mark.parametrize('unit', ['iterations', 'epochs'])
def test_rates_of_short_runs(layout, unit, config):
    """The rate gets to its full value, nothing is due after the end, all is due once at least."""
    for number in (1, 2, 3, 9, 10, 11, 12, 25):
        for count in (3, 50):
            data = data_set(layout, count, 101)
            cfg, *_ = config(data, **{unit: number})
            plan = make_plan(data, 4, **{unit: number})
            optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
            schedulers = [
                PARAM_SCHEDULERS.build(dict(each, optimizer=optimizer))
                for each in cfg.param_scheduler
            ]
            epoch, rates = -(-count // 4), []
            for i in range(plan.iterations):
                rates.append(optimizer.param_groups[0]['lr'])
                optimizer.step()
                for each in schedulers:
                    if not each.by_epoch or (i + 1) % epoch == 0:
                        each.step()
            case = unit, number, count, rates
            assert max(rates) == pytest.approx(1.0), case
            assert (rates[0] < 0.01) == (len(rates) >= 10), case
            if len(rates) > 1:
                assert rates[-1] < 0.11, case
            loop = cfg.train_cfg
            length = loop.get('max_epochs') or loop.max_iters
            assert 1 <= loop.val_interval <= length, case
            assert cfg.default_hooks.checkpoint.interval == loop.val_interval
            assert 1 <= cfg.default_hooks.logger.interval <= max(1, plan.iterations // 10)
            evaluated = 101 * -(-length // loop.val_interval)
            if loop.type == 'IterBasedTrainLoop':
                assert evaluated <= max(101, 4 * plan.iterations), case


def test_lengths_that_nobody_means():
    data = data_set('coco', 1000)
    assert make_plan(data, 4, iterations=10_000_000).iterations == 10_000_000
    for length in (dict(iterations=10_000_001), dict(epochs=40_001)):
        with pytest.raises(UserError, match='expected at most 10,000,000'):
            make_plan(data, 4, **length)
    assert timetable(data, make_plan(data, 4, iterations=10_000_000)).log == 50
