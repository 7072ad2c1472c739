"""Layer-wise learning-rate decay."""

import math

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from hybrid_mm.backbones import VAN, HorNet, RepLKNet


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


def exponents(groups, rate, base=1.0):
    """Exponent of the decay rate in the learning rate of each parameter."""
    return {name: round(math.log(group['lr'] / base, rate), 6) for name, group in groups.items()}


def of_prefixes(names, table):
    """The entry of the table for each name, by its prefix."""
    found = {}
    for name in names:
        (found[name],) = (e for prefix, e in table.items() if name.startswith(prefix))
    assert len(set(found.values())) == len(set(table.values()))
    return found


def hornet():
    arch = dict(depths=[1, 2, 5, 2], dims=[4, 8, 12, 16], orders=[2, 2, 2, 2])
    return HorNet({**arch, 'filter_sizes': [None] * 4})


def test_rates_of_a_convnext_by_hand():
    """Six layers, the third stage in pairs; by stages all down-samplings are the lowest."""
    layers = {
        'backbone.stages.0.embed': 7,
        'backbone.stages.0.blocks': 6,
        'backbone.stages.0.norm': 0,
        'backbone.stages.1.downsample': 5,
        'backbone.stages.1.blocks': 5,
        'backbone.stages.1.norm': 0,
        'backbone.stages.2.downsample': 4,
        'backbone.stages.2.norm': 0,
        'backbone.stages.2.blocks.0': 4,
        'backbone.stages.2.blocks.1': 4,
        'backbone.stages.2.blocks.2': 3,
        'backbone.stages.2.blocks.3': 3,
        'backbone.stages.2.blocks.4': 2,
        'backbone.stages.3.downsample': 1,
        'backbone.stages.3.blocks': 1,
        'backbone.stages.3.norm': 0,
        'head': 0,
    }
    stages = {
        'backbone.stages.0.embed': 7,
        **{f'backbone.stages.{i}.downsample': 7 for i in (1, 2, 3)},
        **{f'backbone.stages.{i}.blocks': 6 - i for i in range(4)},
        **{f'backbone.stages.{i}.norm': 0 for i in range(4)},
        'head': 0,
    }
    # a recipe that counts twelve layers: all rates are lower, except the full one
    twelve = {k: e and e + 6 for k, e in layers.items()}
    by_stage = dict(layer_decay_by='stage')
    for table, settings in (
        (layers, {}),
        (stages, by_stage),
        (layers, dict(num_layers=6)),
        (twelve, dict(num_layers=12)),
        ({k: e and e + 6 for k, e in stages.items()}, dict(num_layers=12, **by_stage)),
    ):
        groups = build(hornet(), layer_decay_rate=0.7, **settings)
        assert exponents(groups, 0.7) == of_prefixes(groups, table)


def test_rates_of_blocks_by_hand():
    table = {
        'backbone.stages.0.embed': 4,
        'backbone.stages.0.blocks.0': 3,
        'backbone.stages.0.norm': 3,
        'backbone.stages.1.embed': 2,
        'backbone.stages.1.blocks.0': 2,
        'backbone.stages.1.blocks.1': 1,
        'backbone.stages.1.norm': 1,
        'head': 0,
    }
    groups = build(van(), layer_decay_rate=0.8)
    assert exponents(groups, 0.8) == of_prefixes(groups, table)
    assert {g['lr'] for g in build(van(), layer_decay_rate=1).values()} == {1.0}


def test_rates_of_replknet_by_hand():
    """As the authors count for the depths (2, 2, 18, 2): four blocks of the third stage a layer.

    Kernels and feed-forward networks are blocks; a down-sampling is of the stage before it.
    """
    table = {
        'backbone.stem.': 13,
        'backbone.stages.0.blocks.': 12,
        'backbone.stages.1.downsample.': 12,
        'backbone.stages.1.blocks.': 11,
        'backbone.stages.2.downsample.': 11,
        **{f'backbone.stages.2.blocks.{i}.': 10 - i // 4 for i in range(36)},
        'backbone.stages.3.downsample.': 2,
        'backbone.stages.3.blocks.': 1,
        'backbone.stages.3.norm.': 0,
        'head.': 0,
    }
    arch = dict(depths=[2, 2, 18, 2], kernel_sizes=[3] * 4, channels=[4] * 4, dw_ratio=1)
    backbone = RepLKNet(arch | dict(small_kernel=None), norm_outputs='last')
    groups = build(backbone, layer_decay_rate=0.7)
    assert exponents(groups, 0.7) == of_prefixes(groups, table)
    # another depth: the down-sampling after the third stage goes with its last four blocks
    short = RepLKNet(arch | dict(depths=[2, 2, 3, 1], small_kernel=None))
    names = [
        'stages.2.blocks.3.a',
        'stages.2.blocks.4.a',
        'stages.3.downsample.a',
        'stages.3.blocks.0.a',
    ]
    assert [short.get_layer_depth(name) for name in names] == [(3, 7), (4, 7), (4, 7), (5, 7)]


def test_other_keys_keep_their_meaning():
    """Factors of a part multiply those of the layers; weight decay is MMEngine's."""
    plain = build(van(), layer_decay_rate=0.5)
    keys = {'backbone.stages.1': dict(lr_mult=0.1), 'head': dict(lr_mult=3.0, decay_mult=0.5)}
    groups = build(van(), layer_decay_rate=0.5, bias_decay_mult=0.0, custom_keys=keys)
    for name, group in groups.items():
        factor = 0.1 if 'stages.1' in name else 3.0 if name.startswith('head') else 1.0
        assert group['lr'] == pytest.approx(factor * plain[name]['lr']), name
    assert groups['head.weight']['weight_decay'] == pytest.approx(0.05)
    assert groups['backbone.stages.0.embed.conv.weight']['weight_decay'] == 0.1
    assert groups['backbone.stages.0.embed.conv.bias']['weight_decay'] == 0.0


def test_schedulers_keep_the_ratios():
    model = Model(van())
    wrapper = build_optim_wrapper(
        model,
        dict(
            optimizer=dict(type='SGD', lr=1.0),
            constructor='hybrid_mm.LayerDecayOptimWrapperConstructor',
            paramwise_cfg=dict(layer_decay_rate=0.5),
        ),
    )
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
