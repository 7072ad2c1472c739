"""Runs here are of few iterations, without the slow parts of MMEngine's set-up."""

import os
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from torch import nn


@pytest.fixture(autouse=True)
def _plain(plain_runs):
    pass


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, inputs, mode='tensor'):
        out = self.fc(inputs)
        return dict(loss=out.pow(2).mean()) if mode == 'loss' else [out]


class Score(BaseMetric):
    """A metric that grows, and falls in every third validation; another one that only grows."""

    calls = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        Score.calls += 1
        return dict(score=float(Score.calls % 3), other=float(Score.calls))


@pytest.fixture
def runner(monkeypatch):
    """Function that makes a runner of a tiny model: epochs of two steps, a checkpoint each."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    monkeypatch.setattr(Score, 'calls', 0)
    figure = SimpleNamespace(get_dpi=lambda: 100)  # nothing is drawn
    monkeypatch.setattr(Visualizer, '_initialize_fig', lambda self, cfg: (None, figure, None))

    def make(work_dir, epochs=3, validate=False, resume=None, **hook):
        loader = dict(
            dataset=[torch.ones(3)] * 4,
            batch_size=2,
            num_workers=0,
            collate_fn=dict(type='default_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
        )
        model = Net()
        model.data_preprocessor.forward = lambda batch, training=False: dict(inputs=batch)
        validation = dict(
            val_dataloader=loader, val_cfg=dict(), val_evaluator=dict(type=Score, prefix='x')
        )
        settings = dict(type='hybrid_mm.AtomicCheckpointHook', interval=1, max_keep_ckpts=1) | hook
        return Runner(
            model,
            str(work_dir),
            train_dataloader=loader,
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
            default_hooks=dict(checkpoint=settings),
            default_scope='mmengine',
            randomness=dict(seed=0),
            resume=resume is not None,
            load_from=None if resume is None else str(resume),
            experiment_name=f'{work_dir.name}{epochs}{os.urandom(4).hex()}',
            **(validation if validate else {}),
        )

    make.score = Score
    return make
