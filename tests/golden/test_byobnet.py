"""Configs that timm's networks are told by, in words or in its fields: all is understood."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from mappings import botnet, halonet

from hybrid_mm.backbones import BoTNet, HaloNet

ARCH = dict(
    depths=[1, 2, 1, 1],
    channels=[32, 32, 64, 64],
    heads=[2] * 4,
    attention=[False, (1,), False, True],
    stem=dict(kind='tiered', channels=16, pool=False),
    act='silu',
    group_size=4,
    gate=dict(kind='se', place='mid', ratio=4),
)
CONFIG = dict(
    base='sehalonet33ts',
    stages='d=(1,2,1,1) c=(32,32,64,64) stride=(1,2,2,2) br=0.25 gs=4; '
    'stage 1 = [bottle, self_attn], stage 3 = all self_attn',
    stem='tiered, stem_chs=16 (6,8,16), no pool',
    self_attn='halo block_size=4 halo_size=1 num_heads=2 dim_head=3 qkv_bias=True',
    act='silu',
    downsample='conv1x1',
    attn_layer='se',
    attn_kwargs=dict(rd_ratio=0.25),
)


def official(model):
    """Weights in timm's names."""
    state = {}
    for key, value in model.state_dict().items():
        parts = key.split('.')
        if 'final' in parts:
            state[f'final_conv.{".".join(parts[3:]).replace("norm", "bn")}'] = value
            continue
        inner = '.'.join(parts[4:])
        if parts[0] == 'stem':
            new = f'stem.conv{int(parts[2]) + 1}.{parts[3].replace("norm", "bn")}.{parts[4]}'
        else:
            block = model.get_submodule('.'.join(parts[:4]))
            attends = not isinstance(block.conv2, torch.nn.Conv2d)
            for old, name in (
                ('conv1.', 'conv1_1x1.conv.'),
                ('norm1', 'conv1_1x1.bn'),
                ('gate', 'attn'),
                ('conv3.', 'conv3_1x1.conv.'),
                ('norm3', 'conv3_1x1.bn'),
                ('conv2.', 'self_attn.' if attends else 'conv2_kxk.conv.'),
                ('norm2', 'post_attn' if attends else 'conv2_kxk.bn'),
                ('.norm', '.bn'),
                ('relative.rel_h', 'pos_embed.height_rel'),
                ('relative.rel_w', 'pos_embed.width_rel'),
            ):
                inner = inner.replace(old, name)
            new = f'stages.{parts[1]}.{parts[3]}.{inner}'
        state[new] = value[0] if '_rel' in new else value
    return state


def test_everything_that_is_told_is_built():
    torch.manual_seed(0)
    arch = dict(ARCH, block_size=4, halo_size=1, dim_head=3)
    model = HaloNet(arch, qkv_bias=True).eval()
    same = halonet.build('ByobNet', dict(CONFIG), official(model)).eval()
    x = torch.rand(1, 3, 64, 96)
    assert all(torch.equal(a, b) for a, b in zip(model(x), same(x), strict=True))


def test_tables_have_the_size_of_the_weights():
    torch.manual_seed(0)
    model = BoTNet(ARCH, canvas_size=(64, 160)).eval()
    config = dict(CONFIG, base='x', self_attn='bottleneck num_heads=2 scale_pos_embed=True')
    same = botnet.build('ByobNet', config, official(model)).eval()
    x = torch.rand(1, 3, 64, 96)
    assert all(torch.equal(a, b) for a, b in zip(model(x), same(x), strict=True))


@pytest.mark.parametrize(('mapping', 'layer'), [(halonet, 'halo'), (botnet, 'bottleneck')])
def test_fields_of_timm_are_taken_as_they_are(mapping, layer):
    torch.manual_seed(0)
    shared = dict(s=2, gs=4, br=0.25)
    config = dict(
        blocks=[
            dict(type='bottle', d=1, c=32, s=1, gs=4, br=0.25),
            dict(types=('bottle', 'self_attn'), d=2, c=32, **shared),
            dict(type='bottle', d=1, c=64, **shared),
            dict(type='self_attn', d=1, c=64, **shared),
        ],
        stem_chs=16,
        stem_type='tiered',
        stem_pool='',
        act_layer='silu',
        attn_layer='se',
        attn_kwargs=dict(rd_ratio=0.25),
        self_attn_layer=layer,
        self_attn_kwargs=dict(num_heads=2, qkv_bias=True),
        num_features=24,
    )
    cls, kwargs = (HaloNet, {}) if layer == 'halo' else (BoTNet, dict(canvas_size=(64, 96)))
    arch = dict(ARCH, final=24, **({} if kwargs else dict(block_size=8, halo_size=3)))
    if kwargs:
        arch['scale_pos_embed'] = False
    model = cls(arch, qkv_bias=True, final_conv=True, **kwargs).eval()
    same = mapping.build('ByobNet', config, official(model)).eval()
    x = torch.rand(1, 3, 64, 96)
    assert all(torch.equal(a, b) for a, b in zip(model(x), same(x), strict=True))
    with pytest.raises(ValueError, match=r'arch\.aa_layer of'):
        mapping.build('ByobNet', dict(config, aa_layer='blur'), official(model))


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(stages=CONFIG['stages'] + ' tanh'), "cannot map stages=.*do not know 'tanh'"),
        (dict(stages=CONFIG['stages'].replace('gs=4', 'ks=5')), 'cannot map ks=5'),
        (dict(stages=CONFIG['stages'].replace('stage 3 = all', 'stage 2 = all')), 'but stage 2'),
        (dict(self_attn='halo window=3'), 'cannot map window=3'),
        (dict(self_attn='lambda'), "do not know 'lambda'"),
        (dict(stem='tiered, stem_chs=16, blur'), "cannot map stem=.*'blur'"),
        (dict(downsample='avg'), "cannot map downsample='avg'"),
        (dict(attn_kwargs=dict(rd_divisor=4)), 'cannot map rd_divisor=4'),
        (dict(aa_layer='blur'), "cannot map aa_layer='blur'"),
    ],
)
def test_what_is_not_understood_is_named(change, message):
    arch = dict(ARCH, block_size=4, halo_size=1, dim_head=3)
    weights = official(HaloNet(arch, qkv_bias=True))
    with pytest.raises(ValueError, match=message):
        halonet.build('ByobNet', {**CONFIG, **change}, weights)
