"""Rates of ACmix's layers: hook, table and plot; cost of its stages."""

import math
import runpy
from collections import OrderedDict

import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from hybrid_mm.analysis.acmix_cost import first_stage_share, layer_cost, network_cost
from hybrid_mm.analysis.acmix_rates import Rates, read_rates
from hybrid_mm.backbones import PVT, SAN, ACmixResNet, ACmixSwin
from hybrid_mm.engine.hooks.mixing_rates import MixingRatesHook, mixing_layers

ARCH = dict(stem=8, bottleneck=True, depths=[1, 2], widths=[8, 12], out_channels=[16, 24])
LAYERS = ['stages.0.blocks.0.conv2', 'stages.1.blocks.0.conv2', 'stages.1.blocks.1.conv2']


class Toy(BaseModel):
    """A backbone with a loss."""

    def __init__(self, acmix=True):
        super().__init__()
        self.backbone = ACmixResNet(
            ARCH, acmix=acmix, strides=(1, 2), dilations=(1, 1), out_indices=(1,)
        )

    def forward(self, x, mode='loss'):
        return dict(loss=self.backbone(x)[0].pow(2).mean())


@pytest.fixture(autouse=True)
def own_scope(monkeypatch):
    """A runner leaves its default scope to whatever runs next in the process."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())


def run(folder, model, **hook):
    torch.manual_seed(0)
    runner = Runner(
        model,
        str(folder),
        train_dataloader=dict(
            dataset=[torch.rand(3, 32, 32) for _ in range(10)],
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=lambda items: dict(x=torch.stack(items)),
            batch_size=2,
        ),
        train_cfg=dict(by_epoch=False, max_iters=5, val_interval=100),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        custom_hooks=[dict(type='hybrid_mm.MixingRatesHook', **hook)],
        experiment_name=f'{folder.name}',
    )
    runner.train()
    return runner


def test_hook_and_tool(tmp_path, capsys, pytestconfig):
    runner = run(tmp_path / 'run', Toy(), interval=2)
    rates = read_rates(tmp_path / 'run')
    assert [r.layer for r in rates] == [f'backbone.{name}' for name in LAYERS]
    now = list(mixing_layers(runner.model))
    assert [tuple(r) for r in rates] == [pytest.approx(r) for r in now]
    assert any(abs(r.attention - 0.5) > 1e-6 for r in rates)
    text = next((tmp_path / 'run').rglob('scalars.json')).read_text()
    # before the first iteration, every second, the last one
    assert [f'"step": {s}' in text for s in (0, 2, 4, 5)] == [True] * 4

    checkpoint = tmp_path / 'net.pth'
    torch.save({'state_dict': runner.model.state_dict()}, checkpoint)
    assert [tuple(r)[1:] for r in read_rates(checkpoint)] == [tuple(r)[1:] for r in rates]
    main = runpy.run_path(str(pytestconfig.rootpath / 'tools/analysis/mixing_rates.py'))['main']
    out = tmp_path / 'rates.png'
    sources = [str(tmp_path / 'run'), str(checkpoint), '--labels', 'run', 'file']
    assert main([*sources, '--out', str(out)]) == 0
    assert out.stat().st_size > 5000
    assert f'{rates[2].attention:.4f}' in capsys.readouterr().out
    torch.save(
        ACmixResNet(
            ARCH, acmix=False, strides=(1, 2), dilations=(1, 1), out_indices=(1,)
        ).state_dict(),
        checkpoint,
    )
    assert main([str(checkpoint)]) == 2
    assert 'net.pth has no rates of ACmix' in capsys.readouterr().err


def test_hook_without_acmix(tmp_path):
    with pytest.raises(ValueError, match='the model has no layer of ACmix'):
        run(tmp_path / 'none', Toy(acmix=False))
    with pytest.raises(ValueError, match='interval must be at least 1, got 0'):
        MixingRatesHook(0)


def test_every_form_has_rates():
    swin = ACmixSwin(dict(embed_dim=8, depths=[1, 2], heads=[2, 2]), out_indices=(1,))
    assert len(list(mixing_layers(swin))) == 3
    pvt = PVT(
        dict(depths=[2], embed_dims=[8], heads=[2], mlp_ratios=[2], reductions=[2]),
        acmix=True,
        out_indices=(0,),
    )
    assert len(list(mixing_layers(pvt))) == 2
    arch = dict(
        stem_channels=32,
        stem_depth=1,
        stem_kernel_size=3,
        depths=[2],
        channels=[32],
        kernel_sizes=[3],
    )
    assert len(list(mixing_layers(SAN(arch, acmix=True, out_indices=(0,))))) == 3


def test_log_ratio():
    assert Rates('a', -1.0, math.e).log_ratio == pytest.approx(-1)
    assert Rates('a', 1.0, 0.0).log_ratio == math.inf
    assert Rates('a', 0.0, 1.0).log_ratio == -math.inf
    assert math.isnan(Rates('a', 0.0, 0.0).log_ratio)


def test_cost_of_resnet50():
    costs = network_cost()
    found = {(c.operator, c.part): (c.macs / 1e9, c.params / 1e6) for c in costs}
    expected = {  # by the formulas of the paper's table 1
        ('convolution', '9 1x1 convolutions'): (1.850, 11.32),
        ('convolution', 'shift and sum'): (0.0124, 0),
        ('self-attention', 'queries, keys, values'): (0.617, 3.77),
        ('self-attention', 'attention to 7 x 7'): (0.135, 0),
        ('ACmix', 'light FC'): (0.037, 0.0017),
        ('ACmix', 'grouped convolution'): (0.112, 0.30),
    }
    for key, (macs, params) in expected.items():
        assert found[key][0] == pytest.approx(macs, abs=0.0006), key
        assert found[key][1] == pytest.approx(params, abs=0.01), key
    assert first_stage_share(costs, 'convolution') == pytest.approx(0.993, abs=0.0005)
    assert first_stage_share(costs, 'self-attention') == pytest.approx(0.820, abs=0.0005)


def test_cost_of_a_layer_and_tool(capsys, pytestconfig):
    costs = {(c.operator, c.part): c for c in layer_cost(64, 10, 12)}
    assert costs['ACmix', 'attention to 7 x 7'].macs == 2 * 49 * 64 * 120
    assert costs['ACmix', 'light FC'].macs == 3 * 9 * 64 * 120
    assert costs['ACmix', 'grouped convolution'].params == 81 * 64
    main = runpy.run_path(str(pytestconfig.rootpath / 'tools/analysis/acmix_cost.py'))['main']
    assert main([]) == 0
    assert '99.3%' in capsys.readouterr().out
    assert main(['--layer', '64', '9', '9', '--heads', '3']) == 2
    assert 'heads must divide the 64 output channels, got 3' in capsys.readouterr().err
