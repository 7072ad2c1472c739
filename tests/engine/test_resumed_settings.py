"""A resumed run with another config: what each change does, with a small model."""

import itertools
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import EMAHook, Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import DATASETS, METRICS, MODELS, OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.runner import Runner
from torch import nn

from hybrid_mm.engine.hooks.resumed_settings import ResumedSettingsHook
from hybrid_mm.errors import UserError

NUMBERS = itertools.count()


@DATASETS.register_module(force=True)
class ToyData(torch.utils.data.Dataset):
    def __init__(self, length=8, classes=('a', 'b')):
        self.length, self.metainfo = length, dict(classes=classes)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return dict(inputs=torch.full((3,), index / 8))


@MODELS.register_module(force=True)
class ToyModel(BaseModel):
    def __init__(self, width=2):
        super().__init__()
        self.first, self.norm, self.last = (
            nn.Linear(3, width),
            nn.LayerNorm(width),
            nn.Linear(width, 1),
        )

    def train_step(self, data, optim_wrapper):
        if not isinstance(optim_wrapper, OptimWrapperDict):
            return super().train_step(data, optim_wrapper)
        losses = self(**data, mode='loss')
        losses['loss'].backward()
        for wrapper in optim_wrapper.values():
            wrapper.step()
            wrapper.zero_grad()
        return losses

    def forward(self, inputs, mode='tensor'):
        x = torch.stack(list(inputs))
        y = self.last(self.norm(self.first(x)))
        return dict(loss=(y - x.sum(1, keepdim=True)).square().mean()) if mode == 'loss' else [y]


@METRICS.register_module(force=True)
class ToyMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(score=0.5, other=0.25)


@OPTIM_WRAPPER_CONSTRUCTORS.register_module(force=True)
class TwoOptimizers:
    def __init__(self, optim_wrapper_cfg, paramwise_cfg=None):
        self.cfg = dict(optim_wrapper_cfg)

    def __call__(self, model):
        rates = self.cfg['rates']
        return OptimWrapperDict(
            **{
                name: OptimWrapper(torch.optim.SGD(getattr(model, name).parameters(), lr=rate))
                for name, rate in rates.items()
            }
        )


class Rates(Hook):
    """Notes what the optimizer uses in every step."""

    priority = 'LOWEST'

    def __init__(self):
        self.seen = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        wrapper = runner.optim_wrapper
        wrappers = wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]
        self.seen[runner.iter] = [
            {k: v for k, v in group.items() if k in ('lr', 'momentum', 'betas', 'weight_decay')}
            for one in wrappers
            for group in one.optimizer.param_groups
        ]


EPOCHS = dict(by_epoch=True, max_epochs=4)
ITERATIONS = dict(type='IterBasedTrainLoop', max_iters=16)
SGD = dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.01)


def config(**changes):
    base = dict(
        model=dict(type='ToyModel'),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            dataset=dict(type='ToyData'),
            sampler=dict(type='DefaultSampler', shuffle=True),
        ),
        train_cfg=EPOCHS,
        optim_wrapper=dict(optimizer=SGD),
        param_scheduler=None,
        custom_hooks=[dict(type='hybrid_mm.ExactResumeHook')],
        default_hooks=dict(
            checkpoint=dict(
                type='CheckpointHook',
                by_epoch='max_epochs' in changes.get('train_cfg', EPOCHS),
                interval=4 if 'max_iters' in changes.get('train_cfg', {}) else 1,
            ),
        ),
        randomness=dict(seed=0),
        log_level='ERROR',
    )
    return Config(base | changes)


@pytest.fixture(scope='module')
def done():
    """Runs of this file by their config: runner, rates, and what was written to stderr."""
    return {}


@pytest.fixture
def train(tmp_path_factory, done):
    """Train with a config, from a checkpoint if one is named; return the runner and the rates."""

    def run(cfg, checkpoint=None):
        key = str(cfg.to_dict())
        if checkpoint is None and key in done:
            return done[key]
        cfg = Config(cfg.to_dict())
        cfg.experiment_name = f'toy{next(NUMBERS)}'
        cfg.work_dir = str(tmp_path_factory.mktemp('toy'))
        cfg.resume, cfg.load_from = checkpoint is not None, checkpoint and str(checkpoint)
        runner, rates = Runner.from_cfg(cfg), Rates()
        runner.register_hook(rates)
        if checkpoint:
            runner.register_hook(ResumedSettingsHook(str(checkpoint)))
        runner.train()
        if checkpoint is None:
            done[key] = runner, rates.seen
        return runner, rates.seen

    return run


def checkpoint_of(runner, number):
    (path,) = Path(runner.work_dir).glob(f'*_{number}.pth')
    return path


def same_weights(*runners):
    a, b = (runner.model.state_dict() for runner in runners)
    for key, value in a.items():
        assert torch.equal(value, b[key]), key


SCHEDULES = {
    'linear': [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=6)],
    'cosine': [dict(type='CosineAnnealingLR', eta_min=0.001, T_max=4)],
    'cosine by iterations': [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=3),
        dict(type='CosineAnnealingLR', begin=1, end=4, convert_to_iter_based=True),
    ],
    'poly': [dict(type='PolyLR', power=0.9, eta_min=1e-4, by_epoch=False)],
    'steps': [dict(type='MultiStepLR', milestones=[1, 3], gamma=0.1)],
    'step': [dict(type='StepLR', step_size=2, gamma=0.5)],
    'exponential': [dict(type='ExponentialLR', gamma=0.9)],
    'one cycle': [dict(type='OneCycleLR', eta_max=0.03, by_epoch=False)],
    'constant': [dict(type='ConstantLR', factor=0.3, by_epoch=False, end=10)],
    'restarts': [
        dict(type='CosineRestartLR', eta_min=0.0, periods=[2, 2], restart_weights=[1, 0.5])
    ],
    'momentum': [dict(type='CosineAnnealingMomentum', eta_min=0.1), dict(type='PolyLR')],
}
LONGER = {
    'linear': dict(end=11),
    'cosine': dict(T_max=8),
    'cosine by iterations': dict(end=8),
    'steps': dict(milestones=[3, 6]),
    'step': dict(step_size=3),
    'exponential': dict(gamma=0.7),
    'one cycle': dict(eta_max=0.05),
    'constant': dict(end=14),
    'restarts': dict(periods=[4, 4]),
}


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('name', SCHEDULES)
def test_longer_schedule(name, by_epoch, train):
    """The rates of the rest are those of a run that was that long from the start."""
    schedule = SCHEDULES[name]
    if not by_epoch and any(s.get('by_epoch', True) for s in schedule):
        pytest.skip('such schedules do nothing in a run by iterations')
    loop, longer = (
        (EPOCHS, dict(EPOCHS, max_epochs=8))
        if by_epoch
        else (ITERATIONS, dict(ITERATIONS, max_iters=32))
    )
    first, before = train(config(train_cfg=loop, param_scheduler=schedule))
    path = checkpoint_of(first, 2 if by_epoch else 8)
    again, rates = train(config(train_cfg=loop, param_scheduler=schedule), path)
    assert rates == {i: before[i] for i in range(8, 16)}
    same_weights(first, again)
    changed = [dict(s) for s in schedule]
    changed[-1].update(LONGER.get(name, {}))
    new = config(train_cfg=longer, param_scheduler=changed)
    _, expected = train(new)
    _, rates = train(new, path)
    assert rates == {i: expected[i] for i in range(8, 32)}


def optimizer(**changes):
    return dict(optimizer=dict(SGD, **changes))


ADAM = dict(type='AdamW', lr=0.01, betas=(0.9, 0.99))
POLY = [dict(type='PolyLR', power=1.0, by_epoch=False)]
COSINE = [dict(type='CosineAnnealingLR', eta_min_ratio=0.1, by_epoch=False)]


@pytest.mark.parametrize('schedule', [None, COSINE])
@pytest.mark.parametrize(('first', 'then', 'expected'), [
    (optimizer(), optimizer(lr=0.005), dict(lr=0.005)),
    (optimizer(), optimizer(weight_decay=0.1), dict(weight_decay=0.1)),
    (optimizer(), optimizer(momentum=0.5), dict(momentum=0.5)),
    (dict(optimizer=ADAM), dict(optimizer=dict(ADAM, betas=(0.8, 0.9))), dict(betas=(0.8, 0.9))),
    # as many groups, with other settings
    (dict(optimizer=SGD, paramwise_cfg=dict(norm_decay_mult=1.0)),
     dict(optimizer=SGD, paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys=dict(
         last=dict(lr_mult=0.5)))), dict()),
])  # fmt: skip
def test_settings_of_the_optimizer(first, then, expected, schedule, train):
    old = config(optim_wrapper=first, param_scheduler=schedule)
    new = config(optim_wrapper=then, param_scheduler=schedule)
    runner, _ = train(old)
    again, rates = train(new, checkpoint_of(runner, 2))
    whole, uninterrupted = train(new)
    assert rates == {i: uninterrupted[i] for i in range(8, 16)}
    if schedule is None:
        assert rates[8][0].items() >= expected.items()
    # its averages went on, from the middle of the other run
    states = [r.optim_wrapper.optimizer.state_dict()['state'] for r in (again, whole)]
    assert len(states[0]) == len(states[1]) > 0
    assert all('step' not in state or state['step'] == 16 for state in states[0].values())


def test_schedule_of_betas(train):
    """Which holds the momentum of Adam."""
    schedule = [dict(type='CosineAnnealingMomentum', eta_min=0.1)]
    old = config(optim_wrapper=dict(optimizer=ADAM), param_scheduler=schedule)
    new = config(
        optim_wrapper=dict(optimizer=ADAM),
        param_scheduler=schedule,
        train_cfg=dict(EPOCHS, max_epochs=6),
    )
    path = checkpoint_of(train(old)[0], 2)
    assert train(new, path)[1] == {i: train(new)[1][i] for i in range(8, 24)}


@pytest.mark.parametrize(('first', 'then', 'message'), [
    (dict(), dict(model=dict(type='ToyModel', width=4)),
     r'is not one of this model \(ToyModel\):\n  .* of another shape: first.weight'),
    (dict(), dict(optim_wrapper=dict(optimizer=SGD, paramwise_cfg=dict(norm_decay_mult=0.0))),
     '6 parameters in 1 groups, this run has 6 in 6'),
    (dict(), dict(optim_wrapper=dict(optimizer=ADAM)),
     'of momentum_buffer; AdamW with the settings of this run also needs exp_avg, exp_avg_sq'),
    (dict(optim_wrapper=dict(optimizer=ADAM)),
     dict(optim_wrapper=dict(optimizer=dict(ADAM, amsgrad=True))), 'also needs max_exp_avg_sq'),
    (dict(optim_wrapper=dict(constructor='TwoOptimizers', rates=dict(first=0.1, last=0.1))),
     dict(optim_wrapper=dict(constructor='TwoOptimizers', rates=dict(first=0.1, norm=0.1))),
     'optimizers named first, last, this run has first, norm'),
    (dict(optim_wrapper=dict(constructor='TwoOptimizers', rates=dict(first=0.1, last=0.1))),
     dict(), r'has the states of several optimizers \(first, last\), this run has one'),
])  # fmt: skip
def test_refused(first, then, message, train):
    """One message, with the ways out, instead of a traceback or a silent mixture."""
    path = checkpoint_of(train(config(**first))[0], 2)
    with pytest.raises(UserError, match=message) as error:
        train(config(**then), path)
    assert str(error.value).startswith(f'checkpoint {path} ')
    assert str(error.value).endswith(
        'it cannot be resumed so: undo the change, or start a new run from its weights with '
        f'--cfg-options load_from={path}'
    )


def test_several_optimizers(train):
    def of(first, last):
        return config(
            optim_wrapper=dict(constructor='TwoOptimizers', rates=dict(first=first, last=last)),
            param_scheduler=POLY,
        )

    path = checkpoint_of(train(of(0.1, 0.2))[0], 2)
    for rates in ((0.1, 0.2), (0.1, 0.3)):
        _, seen = train(of(*rates), path)
        assert seen == {i: train(of(*rates))[1][i] for i in range(8, 16)}


def test_averages_added_and_removed(train, capsys):
    own = config().custom_hooks
    averaged = config(custom_hooks=[*own, dict(type='EMAHook', momentum=0.5)])
    plain_run, averaged_run = train(config())[0], train(averaged)[0]
    saved = torch.load(checkpoint_of(averaged_run, 2), weights_only=False)
    key = 'first.weight'
    assert not torch.equal(saved['state_dict'][key], saved['ema_state_dict'][f'module.{key}'])
    again, _ = train(config(), checkpoint_of(averaged_run, 2))
    assert 'no longer has an EMAHook; training continues with the' in capsys.readouterr().err
    # an average does not change what is trained: the run ends like one that never had it
    same_weights(again, plain_run)
    again, _ = train(averaged, checkpoint_of(plain_run, 2))
    assert 'EMAHook is new; its averages begin with the weights' in capsys.readouterr().err
    same_weights(again, plain_run)
    (hook,) = (hook for hook in again.hooks if isinstance(hook, EMAHook))
    assert hook.ema_model.steps == 8


def with_data(length, batch):
    loader = config().train_dataloader
    loader.dataset.length, loader.batch_size = length, batch
    return dict(train_dataloader=loader)


@pytest.mark.parametrize(('length', 'batch'), [(4, 2), (12, 2), (8, 4), (8, 1)])
def test_epochs_of_another_length(length, batch, train, capsys):
    """The run goes on at the start of the same epoch, and its iterations are counted by it."""
    path = checkpoint_of(train(config(param_scheduler=POLY))[0], 2)
    capsys.readouterr()
    new = config(param_scheduler=POLY, **with_data(length, batch))
    again, rates = train(new, path)
    err, number = capsys.readouterr().err, length // batch
    assert ('training images' in err) == (length != 8)
    assert 'saved in iteration 8; this run continues at the start of its epoch 3, iteration' in err
    assert rates == {i: train(new)[1][i] for i in range(2 * number, 4 * number)}
    assert again.iter == again.max_iters


def test_a_checkpoint_within_an_epoch(train, capsys):
    """The epoch begins anew; at its very end it counts as done."""
    new = config(param_scheduler=POLY)
    hooks = dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1))
    runner, rates = train(config(param_scheduler=POLY, default_hooks=hooks))
    for saved, start in ((6, 4), (8, 8)):
        again, seen = train(new, checkpoint_of(runner, saved))
        assert seen == {i: rates[i] for i in range(start, 16)}
        assert again.epoch == 4


def test_parts_that_are_missing(train, tmp_path, capsys):
    """Schedules go on where they stood, even if the file has no state of them."""
    runner, rates = train(config(param_scheduler=POLY))
    content = torch.load(checkpoint_of(runner, 2), weights_only=False)
    for parts in (['param_schedulers'], ['optimizer'], ['optimizer', 'param_schedulers'],
                  ['message_hub']):  # fmt: skip
        capsys.readouterr()
        torch.save({k: v for k, v in content.items() if k not in parts}, tmp_path / 'x.pth')
        _, seen = train(config(param_scheduler=POLY), tmp_path / 'x.pth')
        assert seen == {i: rates[i] for i in range(8, 16)}
        assert ('has no optimizer state' in capsys.readouterr().err) == ('optimizer' in parts)
    for part in ('optimizer', 'message_hub'):  # empty, or without what it must have
        torch.save(content | {part: {}}, tmp_path / 'x.pth')
        _, seen = train(config(param_scheduler=POLY), tmp_path / 'x.pth')
        assert seen == {i: rates[i] for i in range(8, 16)}


def test_what_hooks_of_a_user_set_stays(train):
    """With an unchanged config nothing is reset, though it is not what the config says."""
    runner, _ = train(config())
    content = torch.load(checkpoint_of(runner, 2), weights_only=False)
    content['optimizer']['param_groups'][0]['lr'] = 0.005
    torch.save(content, Path(runner.work_dir) / 'own_2000.pth')
    _, seen = train(config(), Path(runner.work_dir) / 'own_2000.pth')
    assert seen[8][0]['lr'] == 0.005


def validated(schedule, **changes):
    data = dict(config().train_dataloader, sampler=dict(type='DefaultSampler', shuffle=False))
    return config(
        param_scheduler=schedule,
        val_dataloader=data,
        val_cfg=dict(),
        val_evaluator=dict(type='ToyMetric'),
        **changes,
    )


def plateau(**changes):
    return dict(type='ReduceOnPlateauLR', monitor='score', rule='greater', patience=0) | changes


def test_schedule_by_metrics(train):
    """Its settings may change; what it did so far cannot be computed, so that its basis may not."""
    old = validated([plateau()])
    runner, rates = train(old)
    path = checkpoint_of(runner, 2)
    assert rates[4][0]['lr'] == 0.01 and rates[12][0]['lr'] == pytest.approx(0.0001)
    new = validated([plateau(factor=0.5)], train_cfg=dict(EPOCHS, max_epochs=6),
                    optim_wrapper=optimizer(weight_decay=0.1))  # fmt: skip
    _, seen = train(new, path)
    assert min(seen) == 8 and seen[8][0]['weight_decay'] == 0.1
    assert [seen[i][0]['lr'] for i in (8, 12)] == pytest.approx([0.005, 0.0025])
    for bad in (validated([plateau()], optim_wrapper=optimizer(lr=0.1)),
                validated([*POLY, plateau()])):  # fmt: skip
        with pytest.raises(UserError, match='has no state for ReduceOnPlateauLR'):
            train(bad, path)


def test_validation_of_a_finished_run(train):
    """It is made up for, though no epoch is left to train."""
    runner, _ = train(validated(None))
    again, rates = train(validated(None), checkpoint_of(runner, 4))
    assert rates == {} and again.message_hub.get_info('validated_iter') == 16


def test_best_by_another_metric(train, capsys):
    def of(metric):
        hook = dict(type='CheckpointHook', interval=1, save_best=metric, rule='greater')
        return validated(None, default_hooks=dict(checkpoint=hook))

    runner, _ = train(of('score'))
    path = checkpoint_of(runner, 2)
    train(of('score'), path)
    assert capsys.readouterr().err == ''
    again, _ = train(of('other'), path)
    assert 'best_score_epoch_1.pth, is by another metric than other' in capsys.readouterr().err
    assert again.message_hub.get_info('best_score') == 0.25


def test_a_text_of_mmcv_is_not_run(train, tmp_path):
    runner, _ = train(config())
    content = torch.load(checkpoint_of(runner, 2), weights_only=False)
    content['meta']['config'] = f'open({str(tmp_path / "ran")!r}, "w").close()'
    torch.save(content, tmp_path / 'x.pth')
    train(config(), tmp_path / 'x.pth')
    assert not (tmp_path / 'ran').exists()
