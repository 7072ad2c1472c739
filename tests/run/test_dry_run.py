"""Figures of a dry run, against those computed by hand."""

import itertools
import math

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from hybrid_mm.errors import UserError
from hybrid_mm.run import dry_run as module
from hybrid_mm.run.dry_run import DryRun, dry_run, show


def test_estimate_of_a_run():
    result = DryRun(1, 1, steps=1000, load=3.0, step=0.5, workers=2)
    assert result.seconds == 1500  # reading takes longer
    result.workers = 8
    assert result.seconds == 500  # computing does
    result.val_load, result.val_step = 6.0, 2.0
    result.validations, result.val_batches, result.val_workers = 3, 7, 2
    assert result.seconds == 500 + 3 * 7 * 3
    result.val_workers = 0
    assert result.seconds == 500 + 3 * 7 * 8


@pytest.mark.parametrize('begin', [0, 1, 4, 5, 11, 12])
@pytest.mark.parametrize('interval', [1, 4, 10, 11, 20])
def test_validations_are_counted_as_the_loop_makes_them(begin, interval):
    due = [n for n in range(1, 12) if n >= begin and (n % interval == 0 or n == 11)]
    assert module.validations(begin, 11, interval) == len(due)
    assert module.validations(1, 10**12, 3) == 333_333_333_334


NUMBERS = itertools.count()


def look(config):
    """A dry run of a copy of the config, under a new name, since MMEngine keeps objects by name."""
    cfg = Config(config._cfg_dict.to_dict())
    cfg.experiment_name = cfg.visualizer.name = f'dry{next(NUMBERS)}'
    return dry_run(cfg)


@pytest.fixture
def config(det_config, tool):
    cfg = Config.fromfile(det_config)
    # epochs of four batches; validated after epochs 4, 6 and 7, since val_begin is after 2
    cfg.train_cfg = dict(by_epoch=True, max_epochs=7, val_begin=3, val_interval=2)
    cfg.default_hooks.checkpoint.by_epoch = cfg.log_processor.by_epoch = True
    cfg.model.backbone.frozen_stages = 2
    cfg.launcher = 'none'
    return cfg


def test_figures(config):
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
    parameters = [p.numel() for p in model.parameters()]
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    assert 0 < sum(trained) < sum(parameters)
    numbers = {torch.float32: 4, torch.int64: 8}
    state = sum(t.numel() * numbers[t.dtype] for t in model.state_dict().values())
    found = look(config)
    assert (found.parameters, found.trainable) == (sum(parameters), sum(trained))
    assert found.steps == 7 * 4 and found.validations == 3 and found.val_batches == 4
    assert found.shape == (2, 3, 64, 64)
    assert found.checkpoint == state + 4 * sum(trained)  # and a momentum for each
    parts = [v for k, v in found.losses.items() if k.startswith('loss_')]
    assert len(parts) == 3 and found.losses['loss'] == pytest.approx(sum(parts))
    assert found.workers == found.val_workers == 0


def test_settings_of_the_run_count(config):
    """By iterations, with workers, an optimizer with two averages, and without validation."""
    config.train_cfg = dict(type='IterBasedTrainLoop', max_iters=90, val_begin=50, val_interval=40)
    config.optim_wrapper.optimizer = dict(type='AdamW', lr=0.001)
    config.train_dataloader.update(num_workers=3, batch_size=3)
    config.val_dataloader.update(num_workers=2, batch_size=3)
    first = look(config)
    assert (first.steps, first.validations, first.val_batches) == (90, 2, 2)  # after 80 and 90
    assert (first.workers, first.val_workers) == (3, 2)
    assert first.shape == (3, 3, 64, 64)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(config.model)
    state = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    trained = [p.numel() for p in model.parameters() if p.requires_grad]
    # two averages of each parameter, and the number of its steps
    assert first.checkpoint == state + 8 * sum(trained) + 4 * len(trained)
    config.launcher = 'pytorch'
    with pytest.raises(UserError, match='leave out --launcher'):
        look(config)


def test_short_and_long_first_steps(monkeypatch, config):
    """A short first step, which includes preparations, is not the one that is timed."""
    times = iter([*(0.0, 7.0), *(0.0, 2.0), *(0.0, 50.0)])
    monkeypatch.setattr(module, '_timed', lambda f: (-next(times) + next(times), f()))
    config.val_dataloader = config.val_cfg = config.val_evaluator = None
    assert look(config).step == 2
    assert look(config).step == 50


def test_table(capsys):
    result = DryRun(
        1234567,
        1234000,
        steps=90000,
        shape=(2, 3, 800, 1216),
        losses=dict(loss=1.23456),
        load=0.125,
        step=2.0,
        val_load=0.5,
        val_step=0.25,
        memory=3 * 2**30,
        growth=5 * 2**20,
        checkpoint=1536 * 2**20,
        validations=12,
        val_batches=5000,
        workers=2,
        val_workers=4,
        notes=['a note'],
    )
    show(result, 187_654_000_000)
    out = capsys.readouterr().out
    rows = [line.split('  ', 1) for line in out.splitlines() if '  ' in line.strip()]
    rows = {
        name.strip(): value.strip()
        for name, value in ((r[0] or r[1]).strip().split('  ', 1) if not r[0] else r for r in rows)
    }
    assert rows['parameters'] == '1,234,567' and rows['trained'] == '1,234,000'
    assert rows['batch'] == '2 x 3 x 800 x 1216'
    assert rows['FLOPs of an image'] == '187.65 G'
    assert rows['loss of the first step'] == '1.2346'
    assert rows['peak memory'] == '3.00 GiB, 5.0 MiB by the step'
    assert rows['reading a batch'] == '0.125 s, 2 workers'
    assert rows['training step'] == '2 s'
    assert rows['reading a validation batch'] == '0.5 s, 4 workers'
    assert rows['predicting it'] == '0.25 s'
    assert rows['steps'] == '90,000' and rows['validations'] == '12, each of 5,000 batches'
    assert rows['checkpoint'] == '1.50 GiB'
    # 90000 x 2 s + 12 x 5000 x 0.25 s = 195000 s
    assert rows['whole run, here, one process'] == 'about 2 days 6 h'
    assert 'a note' in out
    show(DryRun(1, 1, 1), None)
    out = capsys.readouterr().out
    assert 'not countable' in out and 'unknown' in out and str(math.nan) in out
    assert 'validation batch' not in out
