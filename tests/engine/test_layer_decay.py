"""Layer-wise learning-rate decay."""

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from hybrid_mm.backbones import VAN


class Model(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(6, 2)


def build(backbone, **paramwise):
    cfg = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1),
        constructor='hybrid_mm.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=paramwise,
    )
    model = Model(backbone)
    wrapper = build_optim_wrapper(model, cfg)
    names = {id(p): n for n, p in model.named_parameters()}
    return {names[id(g['params'][0])]: g for g in wrapper.optimizer.param_groups}


def van(**kwargs):
    arch = dict(embed_dims=[4, 6], depths=[1, 2], mlp_ratios=[2, 2])
    return VAN(arch, out_indices=(0, 1), **kwargs)


def test_rates_by_layer():
    groups = build(van(), layer_decay_rate=0.5, flat_decay_mult=0.0)
    expected = {
        'backbone.stages.0.embed.conv.weight': 1 / 16,
        'backbone.stages.0.blocks.0.attn.proj_in.weight': 1 / 8,
        'backbone.stages.0.norm.weight': 1 / 8,
        'backbone.stages.1.embed.conv.weight': 1 / 4,
        'backbone.stages.1.blocks.1.mlp.fc1.weight': 1 / 2,
        'head.weight': 1,
    }
    assert {n: groups[n]['lr'] for n in expected} == expected
    assert groups['backbone.stages.0.blocks.0.layer_scale_1']['weight_decay'] == 0
    assert groups['head.weight']['weight_decay'] == 0.1
    assert len(groups) == len(list(van().parameters())) + 2


def test_schedulers_keep_the_ratios():
    model = Model(van())
    wrapper = build_optim_wrapper(model, dict(
        optimizer=dict(type='SGD', lr=1.0),
        constructor='hybrid_mm.LayerDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=0.5),
    ))  # fmt: skip
    scheduler = torch.optim.lr_scheduler.StepLR(wrapper.optimizer, 1, gamma=0.1)
    before = [g['lr'] for g in wrapper.optimizer.param_groups]
    wrapper.optimizer.step()
    scheduler.step()
    after = [g['lr'] for g in wrapper.optimizer.param_groups]
    assert after == pytest.approx([0.1 * lr for lr in before])
    assert len(set(before)) == 5


@pytest.mark.parametrize('rate', [None, 0, 1.5])
def test_bad_rate(rate):
    paramwise = {} if rate is None else dict(layer_decay_rate=rate)
    with pytest.raises(ValueError, match='layer_decay_rate'):
        build(van(), **paramwise)


def test_backbone_without_layers():
    with pytest.raises(TypeError, match='get_layer_depth, which Linear lacks'):
        build(nn.Linear(2, 2), layer_decay_rate=0.5)
