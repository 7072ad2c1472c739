"""The order of our hooks among MMEngine's, which their priorities decide, and why."""

from collections import OrderedDict

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from hybrid_mm.engine import (
    AtomicCheckpointHook,
    CompileHook,
    ExactResumeHook,
    MixingRatesHook,
    NonFiniteLossHook,
    SparsityHook,
)
from hybrid_mm.engine.hooks.strict_loading import StrictLoadingHook

ORDER = [
    ('NonFiniteLossHook', 'IterTimerHook', 'the batch is known before anything can fail on it'),
    ('ExactResumeHook', 'IterTimerHook', 'hooks of the usual priority may draw random numbers'),
    ('ExactResumeHook', 'DistSamplerSeedHook', 'a validation made up for is of the last epoch'),
    ('ExactResumeHook', 'EMAHook', 'a validation made up for has the averages it had'),
    ('EMAHook', 'SparsityHook', 'the average is masked too'),
    ('SparsityHook', 'AtomicCheckpointHook', 'what is saved is masked'),
    ('MixingRatesHook', 'AtomicCheckpointHook', 'the curves reach as far as a checkpoint'),
    ('ParamSchedulerHook', 'AtomicCheckpointHook', 'a resumed run has the next learning rate'),
    ('LoggerHook', 'AtomicCheckpointHook', 'the log reaches as far as a checkpoint'),
    ('EMAHook', 'AtomicCheckpointHook', 'an iteration has its average in its checkpoint'),
    ('EMAHook', 'StrictLoadingHook', 'averages of a checkpoint are exchanged before the check'),
    ('AtomicCheckpointHook', 'StrictLoadingHook', 'nothing changes the checkpoint after it'),
]


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 4, 3), nn.Linear(4, 6)

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.fc(self.conv(inputs).mean((2, 3))).pow(2).mean())


def runner(folder, custom, checkpoint, iterations=6):
    torch.manual_seed(0)
    images = [dict(inputs=torch.rand(1, 4, 4)) for _ in range(8)]
    return Runner(
        Net(),
        str(folder),
        train_dataloader=dict(
            dataset=images,
            batch_size=2,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='InfiniteSampler'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=100),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.3, momentum=0.9)),
        default_hooks=dict(checkpoint=checkpoint),
        custom_hooks=custom,
        default_scope='mmengine',
        randomness=dict(seed=0),
        experiment_name=folder.name,
    )


@pytest.fixture(autouse=True)
def _no_scope_left(monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())


def test_order(tmp_path):
    ours = [
        SparsityHook(),
        StrictLoadingHook('x.pth'),
        MixingRatesHook(),
        ExactResumeHook(),
        NonFiniteLossHook(),
        CompileHook(),
    ]
    for custom in (ours, ours[::-1]):  # the order of a config does not matter
        custom = [dict(type='EMAHook'), *custom]
        run = runner(tmp_path, custom, dict(type='hybrid_mm.AtomicCheckpointHook'))
        names = [type(hook).__name__ for hook in run.hooks]
        assert len(names) == len(set(names)) and AtomicCheckpointHook.__name__ in names
        for first, second, reason in ORDER:
            assert names.index(first) < names.index(second), reason


@pytest.mark.parametrize('saver', ['CheckpointHook', 'hybrid_mm.AtomicCheckpointHook'])
def test_checkpoints_of_iterations_are_sparse(tmp_path, saver):
    """Weights and their average, after steps that moved all of them and after exchanges."""
    hook = SparsityHook(0.5, interval=2)
    masks = {}

    class Watch(Hook):
        priority = 'LOWEST'

        def after_train_iter(self, runner, *args, **kwargs):
            masks[runner.iter + 1] = {name: mask.clone() for name, mask in hook.masks.items()}

    checkpoint = dict(type=saver, by_epoch=False, interval=1, max_keep_ckpts=-1)
    custom = [hook, dict(type='EMAHook', momentum=0.3), Watch()]
    runner(tmp_path, custom, checkpoint).train()
    assert set(masks) == {1, 2, 3, 4, 5, 6}
    for number, found in masks.items():
        saved = torch.load(tmp_path / f'iter_{number}.pth', weights_only=False)
        assert found.keys() == saved['hybrid_mm_sparsity'].keys() == {'conv.weight', 'fc.weight'}
        for name, mask in found.items():
            assert torch.equal(saved['hybrid_mm_sparsity'][name], mask)
            assert (~mask).any() and mask.any()
            assert (saved['state_dict'][name][~mask] == 0).all()
            assert (saved['ema_state_dict'][f'module.{name}'][~mask] == 0).all()
    changed = [
        n
        for n in range(2, 7)
        if any(not torch.equal(masks[n][name], masks[n - 1][name]) for name in masks[n])
    ]
    assert changed == [2, 4]  # the last ones are all trained
