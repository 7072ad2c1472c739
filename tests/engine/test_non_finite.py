"""Training stops at a loss that is not finite, before it reaches the weights."""

from collections import OrderedDict

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn

from hybrid_mm.engine.hooks.non_finite import NonFiniteLossHook, image_paths
from hybrid_mm.errors import UserError


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 1)

    def forward(self, inputs, data_samples, mode='tensor'):
        return dict(loss=self.fc(torch.stack(inputs)).pow(2).mean())


def runner(tmp_path, values, name):
    data = [
        dict(inputs=torch.tensor([v]), data_samples=BaseDataElement(metainfo=dict(img_path=f'{i}')))
        for i, v in enumerate(values)
    ]
    return Runner(
        Net(),
        str(tmp_path),
        train_dataloader=dict(
            dataset=data,
            batch_size=1,
            num_workers=0,
            collate_fn=dict(type='pseudo_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        custom_hooks=[NonFiniteLossHook()],
        default_scope='mmengine',
        experiment_name=name,
    )


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_stop(tmp_path, monkeypatch, bad):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    run = runner(tmp_path, [1.0, 2.0, bad, 4.0], f'non_finite_{bad}')
    with pytest.raises(UserError, match=rf'loss of iteration 3 is {bad}; images of the batch: 2\.'):
        run.train()
    assert all(p.isfinite().all() for p in run.model.parameters())
    saved = torch.load(tmp_path / 'non_finite_iter_2.pth', weights_only=False)
    assert torch.equal(saved['state_dict']['fc.weight'], run.model.fc.weight)
    assert saved['meta']['iter'] == 2
    assert saved['optimizer']['state']


def test_nothing_is_left_of_the_check(tmp_path, monkeypatch):
    """The optimizer's step is MMEngine's again, whoever takes the next one."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    run = runner(tmp_path, [1.0, 2.0], 'non_finite_none')
    run.train()
    (hook,) = (h for h in run.hooks if isinstance(h, NonFiniteLossHook))
    step = run.optim_wrapper.update_params
    assert step.__self__ is run.optim_wrapper and step.__func__ is OptimWrapper.update_params
    hook.after_train(run)  # once more does no harm


def test_images_of_a_batch():
    def sample(path):
        return BaseDataElement(metainfo={} if path is None else dict(img_path=path))

    batch = dict(inputs=[], data_samples=[sample('a/b.png'), sample(None), sample('c.png')])
    assert image_paths(batch) == ['a/b.png', 'c.png']
    for other in ([1, 2], None, dict(inputs=[]), dict(data_samples=[3])):
        assert image_paths(other) == []


def test_healthy_training_is_left_alone(tool, det_config, tmp_path):
    option = 'default_hooks.stop.type=hybrid_mm.NonFiniteLossHook'
    assert tool('train', det_config, '--work-dir', tmp_path, '--cfg-options', option)[0] == 0
    assert not list(tmp_path.glob('non_finite*'))


def test_named_by_the_tool(fails, det_config, tmp_path):
    options = ('optim_wrapper.optimizer.lr=1e30', 'train_cfg.max_iters=9')
    hook = 'default_hooks.stop.type=hybrid_mm.NonFiniteLossHook'
    text = fails('train', det_config, '--work-dir', tmp_path, '--cfg-options', *options, hook)
    assert 'the loss of iteration' in text and '.png' in text
    assert list(tmp_path.glob('non_finite_iter_*.pth'))
