"""A part of the model is compiled, and nothing else changes."""

from collections import OrderedDict

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from hybrid_mm.engine import CompileHook
from hybrid_mm.engine.hooks import compile_parts
from hybrid_mm.errors import UserError


class Part(nn.Linear):
    def forward(self, x):  # a class of torch itself is not compiled by torch < 2.2
        return super().forward(x)


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = Part(2, 3), nn.Linear(3, 1)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return dict(loss=self.head(self.backbone(torch.stack(inputs)).relu()).pow(2).mean())


def run(work_dir, monkeypatch, *hooks):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    torch.manual_seed(0)
    runner = Runner(
        Net(),
        str(work_dir),
        train_dataloader=dict(
            dataset=[dict(inputs=torch.rand(2)) for _ in range(4)],
            batch_size=2,
            num_workers=0,
            collate_fn=dict(type='pseudo_collate'),
            sampler=dict(type='DefaultSampler', shuffle=False),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        custom_hooks=list(hooks),
        default_scope='mmengine',
        experiment_name=work_dir.name,
    )
    runner.train()
    return torch.load(work_dir / 'epoch_2.pth', weights_only=False)['state_dict']


def test_only_the_part_is_compiled(tmp_path, monkeypatch):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph

    plain = run(tmp_path / 'plain', monkeypatch)
    assert not graphs
    compiled = run(tmp_path / 'compiled', monkeypatch, CompileHook(backend=backend, dynamic=True))
    torch._dynamo.reset()
    assert len(graphs) == 1
    assert list(compiled) == list(plain)
    assert all(torch.equal(compiled[key], plain[key]) for key in plain)


@pytest.mark.parametrize('given', [dict(dynamic=True), dict(mode='default'), dict(options={})])
def test_memory_format_stays_on_a_cpu(given, tmp_path, monkeypatch):
    called = {}
    monkeypatch.setattr(Part, 'compile', lambda self, **options: called.update(options))
    run(tmp_path, monkeypatch, CompileHook(**given))
    kept = (
        {} if given.keys() & {'mode', 'options'} else dict(options={'layout_optimization': False})
    )
    assert called == given | kept


def test_a_part_that_does_not_exist(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"Net has no part 'backbon'; did you mean backbone\?"):
        run(tmp_path / 'x', monkeypatch, CompileHook('backbon'))


@pytest.mark.parametrize('compiles', [True, False])
def test_a_network_that_an_old_torch_cannot_compile(compiles, tmp_path, monkeypatch):
    monkeypatch.setattr(compile_parts, 'COMPILES', compiles)
    monkeypatch.setattr(Part, 'forward', torch.compiler.disable(Part.forward))
    texts = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *args: texts.append(text))
    run(tmp_path / 'x', monkeypatch, CompileHook(backend='eager'))
    torch._dynamo.reset()
    assert [text for text in texts if 'CompileHook' in text] == (
        []
        if compiles
        else [
            f'CompileHook: torch {torch.__version__} cannot compile the networks of this package, '
            'which run as they are; torch 2.4 or newer can'
        ]
    )
