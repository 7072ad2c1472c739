"""Warnings of schedules that do not fit the length of their run."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop

from hybrid_mm.errors import UserError
from hybrid_mm.run.checks.schedule import ScheduleHook, misfits

WARM = dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=20)
STEPS = dict(type='MultiStepLR', milestones=[8, 11], end=12)
COSINE = dict(type='CosineAnnealingLR', begin=5)


def found(*schedulers, epochs=12, iters=120):
    """Messages for a run of 12 epochs of 10 iterations, or of 120 iterations, with two rates."""
    groups = [dict(params=[torch.zeros(1)], lr=lr) for lr in (0.1, 0.01)]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    built = []
    for settings in schedulers:
        end = epochs if settings.get('by_epoch', True) else iters
        default = dict(optimizer=optimizer, epoch_length=10)
        built.append(PARAM_SCHEDULERS.build(dict(end=end) | settings, default_args=default))
    return list(misfits(built, epochs, iters))


@pytest.mark.parametrize('schedulers', [
    [],
    [WARM],  # and then constant
    [WARM, STEPS],
    [WARM, STEPS | dict(convert_to_iter_based=True)],
    [WARM, COSINE],
    [COSINE | dict(T_max=7)],
    [COSINE | dict(convert_to_iter_based=True)],
    [dict(type='PolyLR', by_epoch=False, begin=20)],
    [dict(type='OneCycleLR', eta_max=0.2, total_steps=12)],
    [dict(type='ConstantLR', factor=0.1, by_epoch=False, end=30)],
    [dict(type='StepLR', step_size=5)],
    [dict(type='ExponentialLR', gamma=0.9)],
    [dict(type='CosineRestartLR', eta_min=0.0, periods=[6, 6], restart_weights=[1, 1])],
    [dict(type='ReduceOnPlateauLR')],
    # constant at the end, and said so; a cool-down
    [dict(type='CosineAnnealingLR', end=9), dict(type='ConstantLR', factor=1.0, begin=9)],
    [dict(type='CosineAnnealingLR', by_epoch=False, end=110)],
    [STEPS, dict(type='LinearMomentum', start_factor=0.5, end=3)],
    # floors below all rates, or of each
    [dict(type='CosineAnnealingLR', eta_min=0.01)],
    [WARM, dict(type='CosineAnnealingLR', eta_min_ratio=0.75)],
    [dict(type='PolyLR', eta_min=0.001)],
])  # fmt: skip
def test_good_schedules(schedulers):
    assert found(*schedulers) == []


@pytest.mark.parametrize(('schedulers', 'message'), [
    ([WARM, dict(type='CosineAnnealingLR', eta_min=0.02)],
     '1 (CosineAnnealingLR) has eta_min of 0.02, but the lr of some parameters starts at 0.01, and '
     'rises to it; eta_min_ratio gives each'),
    ([dict(type='PolyLR', eta_min=0.02)],
     '0 (PolyLR) has eta_min of 0.02, but the lr of some parameters starts at 0.01, and rises to '
     'it; set a lower one'),
    ([WARM | dict(end=500), STEPS],
     '0 (LinearLR) lasts until iteration 500, but the run ends after 120: the lr does not get to '
     'its last value'),
    ([dict(type='ConstantLR', factor=0.1, by_epoch=False, end=200)],
     '0 (ConstantLR) lasts until iteration 200'),
    ([WARM, STEPS | dict(milestones=[8, 16, 22], end=24)],
     '1 (MultiStepLR) has a step at epoch 16, 22, but the run ends after 12'),
    ([STEPS | dict(milestones=[8, 16], end=24, convert_to_iter_based=True)],
     '0 (MultiStepLR) has a step at iteration 160, but the run ends after 120'),
    ([STEPS | dict(milestones=[8, 11], begin=2)], '0 (MultiStepLR) has a step at epoch 13'),
    ([dict(type='StepLR', step_size=30)],
     '0 (StepLR) has a first step at epoch 30, but the run ends after 12'),
    ([WARM, STEPS | dict(milestones=[3, 4], end=6)],
     '1 (MultiStepLR) ends at epoch 6, but the run after 12: the lr stays as it is from there on'),
    ([dict(type='PolyLR', by_epoch=False, end=60)], '0 (PolyLR) ends at iteration 60'),
    ([COSINE | dict(T_max=3)],
     '0 (CosineAnnealingLR) has T_max of 3, but lasts 7 epochs (begin=5, end=12): the lr rises'),
    ([COSINE | dict(T_max=300)],
     'T_max of 300, but lasts 7 epochs (begin=5, end=12): the lr does not get to its last value'),
    ([dict(type='OneCycleLR', eta_max=0.2, total_steps=40)], 'has total_steps of 40, but lasts 12'),
    ([dict(type='CosineRestartLR', eta_min=0.0, periods=[4, 4], restart_weights=[1, 1])],
     'has periods of 8, but lasts 12 epochs (begin=0, end=12): the lr stays as it is after them'),
    ([STEPS, dict(type='PolyLR', begin=20, end=30)],
     '1 (PolyLR) begins at epoch 20, but the run ends after 12'),
    ([STEPS, dict(type='CosineAnnealingMomentum', eta_min=0.1, end=5)],
     '1 (CosineAnnealingMomentum) ends at epoch 5, but the run after 12: the momentum stays'),
])  # fmt: skip
def test_misfits(schedulers, message):
    (text,) = found(*schedulers)
    assert text.startswith('param_scheduler.') and message in text


def test_by_epoch_in_a_run_by_iterations():
    (text,) = found(WARM, dict(STEPS, by_epoch=True), epochs=None)
    assert text.startswith('param_scheduler.1 (MultiStepLR) has by_epoch=True in a run by iterat')


def loop(epochs=None, iters=120, **changes):
    cls = type('Loop', (EpochBasedTrainLoop if epochs else object,), dict(max_epochs=epochs))
    cls.max_iters = iters
    made = object.__new__(cls)
    vars(made).update(dict(val_begin=1, val_interval=4) | changes)
    return made


def warnings_of(capsys, train_loop, *hooks, val_loop=True, schedulers=None):
    run = SimpleNamespace(
        train_loop=train_loop, hooks=hooks, val_loop=val_loop or None, param_schedulers=schedulers
    )
    ScheduleHook().before_run(run)
    return capsys.readouterr().err


def test_validations_and_checkpoints(capsys):
    def saving(**settings):
        return CheckpointHook(**settings)

    for good in (
        warnings_of(capsys, loop(12), saving(interval=12)),
        warnings_of(capsys, loop(12), saving(interval=50, by_epoch=False)),
        warnings_of(capsys, loop(), saving(interval=50, by_epoch=False)),
        warnings_of(capsys, loop(12), saving(interval=-1)),
        warnings_of(capsys, loop(12, val_interval=99), val_loop=False),
    ):
        assert good == ''
    for text, expected in (
        (warnings_of(capsys, loop(12, val_interval=20)),
         'val_interval is 20, but the run ends after 12 epochs: it is validated at its end only'),
        (warnings_of(capsys, loop(val_begin=121)),
         'val_begin is 121, but the run ends after 120 iterations: nothing is ever validated'),
        (warnings_of(capsys, loop(12), saving(interval=13)),
         'checkpoint.interval is 13, but the run ends after 12 epochs: it is saved at its end'),
        (warnings_of(capsys, loop(), saving(interval=200, by_epoch=False, save_last=False)),
         'checkpoint.interval is 200, but the run ends after 120 iterations: nothing is saved'),
        (warnings_of(capsys, loop(), saving(interval=1)),
         'has by_epoch=True in a run by iterations: it is saved at its end only'),
    ):  # fmt: skip
        assert text.startswith('warning: ') and text.count('\n') == 1
        assert expected in text


def test_averages_after_the_end(capsys):
    for train_loop, settings in ((loop(12), dict(begin_epoch=13)), (loop(), dict(begin_iter=121))):
        with pytest.raises(UserError, match=r'EMAHook begins at \w+ 1\d+ .*, but the run ends aft'):
            warnings_of(capsys, train_loop, EMAHook(**settings))
    assert warnings_of(capsys, loop(12), EMAHook(begin_epoch=12), EMAHook(begin_iter=120)) == ''


def test_in_training_and_dry_run(tool, det_config, tmp_path):
    det_config.write_text(
        det_config.read_text() + f'\nparam_scheduler = [{WARM | dict(end=500)}]\n'
    )
    flags = ('--work-dir', tmp_path / 'w', '--cfg-options', 'train_cfg.val_interval=2')
    for more in ([], ['--dry-run']):
        status, err = tool('train', det_config, *more, *flags)
        assert status == 0
        assert 'warning: param_scheduler.0 (LinearLR) lasts until iteration 500' in err


def test_several_optimizers(capsys):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    one = PARAM_SCHEDULERS.build(STEPS, default_args=dict(optimizer=optimizer))
    text = warnings_of(capsys, loop(6, 60), schedulers=dict(first=[one], second=[]))
    assert 'param_scheduler.first.0 (MultiStepLR) has a step at epoch 8, 11' in text
