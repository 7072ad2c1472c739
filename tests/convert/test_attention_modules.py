"""Official names of attention modules in ResNets; names written out independently."""

import re

import pytest
import torch

from hybrid_mm.convert import SOURCES, convert, detect
from hybrid_mm.convert.attention_modules import NAME

ResNet = pytest.importorskip('mmdet.models').ResNet
AttentionResNet = pytest.importorskip('hybrid_mm.plugins').AttentionResNet

SMALL = dict(depth=50, base_channels=8, stem_channels=8)


def after_conv3(name, **cfg):
    plugins = [dict(cfg=dict(type=f'hybrid_mm.{name}', **cfg), position='after_conv3')]
    return lambda: ResNet(plugins=plugins, **SMALL)


def conv2(name, **cfg):
    entry = dict(cfg=dict(type=f'hybrid_mm.{name}', **cfg))
    return lambda: AttentionResNet(ResNet, conv2=entry, **SMALL)


def bam():
    entry = dict(cfg=dict(type='hybrid_mm.BAM', ratio=4), stages=(True, True, True, False))
    return AttentionResNet(ResNet, stage_plugins=entry, **SMALL)


BAM = 'channel_att.gate_c.gate_c_', 'spatial_att.gate_s.gate_s_'
GATES = dict(cw='ChannelGateH', hc='ChannelGateW', hw='SpatialGate')
# name: (our network, (our name, official name) within a block or of the whole key)
CASES = {
    'cbam': (after_conv3('CBAM', ratio=4), [
        ('cbam.channel_gate.fc1', 'cbam.ChannelGate.mlp.1'),
        ('cbam.channel_gate.fc2', 'cbam.ChannelGate.mlp.3'),
        ('cbam.spatial_gate.conv', 'cbam.SpatialGate.spatial.conv'),
        ('cbam.spatial_gate.norm', 'cbam.SpatialGate.spatial.bn')]),
    'bam': (bam, [
        ('layer{s}.bam.channel_fcs.0', f'bam{{s}}.{BAM[0]}fc_0'),
        ('layer{s}.bam.channel_norms.0', f'bam{{s}}.{BAM[0]}bn_1'),
        ('layer{s}.bam.channel_out', f'bam{{s}}.{BAM[0]}fc_final'),
        ('layer{s}.bam.spatial_convs.0', f'bam{{s}}.{BAM[1]}conv_reduce0'),
        ('layer{s}.bam.spatial_norms.0', f'bam{{s}}.{BAM[1]}bn_reduce0'),
        ('layer{s}.bam.spatial_convs.1', f'bam{{s}}.{BAM[1]}conv_di_0'),
        ('layer{s}.bam.spatial_norms.1', f'bam{{s}}.{BAM[1]}bn_di_0'),
        ('layer{s}.bam.spatial_convs.2', f'bam{{s}}.{BAM[1]}conv_di_1'),
        ('layer{s}.bam.spatial_norms.2', f'bam{{s}}.{BAM[1]}bn_di_1'),
        ('layer{s}.bam.spatial_out', f'bam{{s}}.{BAM[1]}conv_final')]),
    'eca': (after_conv3('ECA'), []),
    'se-timm': (after_conv3('SE'), []),
    'se-mmpretrain': (after_conv3('SE'), [
        ('se.fc1', 'se_layer.conv1.conv'), ('se.fc2', 'se_layer.conv2.conv')]),
    'ge': (after_conv3('GatherExcite', mlp=True), [
        ('ge.convs.0', 'se.gather.conv1'), ('ge.norms.0', 'se.gather.norm1'),
        ('ge.convs.1', 'se.gather.conv2'), ('ge.norms.1', 'se.gather.norm2'),
        ('ge.mlp.fc1', 'se.mlp.fc1'), ('ge.mlp.fc2', 'se.mlp.fc2')]),
    'triplet': (after_conv3('TripletAttention'), [
        (f'triplet_attention.{g}.{new}', f'triplet_attention.{g}.conv.{old}')
        for g in GATES for new, old in (('conv', 'conv'), ('norm', 'bn'))]),
    'triplet-old': (after_conv3('TripletAttention'), [
        (f'triplet_attention.{g}.{new}', f'triplet_attention.{name}.spatial.{old}')
        for g, name in GATES.items() for new, old in (('conv', 'conv'), ('norm', 'bn'))]),
    'coordinate': (after_conv3('CoordinateAttention'), [('coord_att.norm', 'coord_att.bn1')]),
    'sk': (conv2('SelectiveKernel'), [
        ('conv1', 'conv1.conv'), ('bn1', 'conv1.bn'), ('conv3', 'conv3.conv'), ('bn3', 'conv3.bn'),
        ('conv2.paths.0.norm', 'conv2.paths.0.bn'), ('conv2.paths.1.norm', 'conv2.paths.1.bn'),
        ('conv2.reduce', 'conv2.attn.fc_reduce'), ('conv2.norm', 'conv2.attn.bn'),
        ('conv2.select', 'conv2.attn.fc_select')]),
    'lambda': (conv2('LambdaLayer', window=3), [('conv2.position', 'conv2.conv_lambda')]),
    'lambda-table': (conv2('LambdaLayer', window=5, position_bias=False),
                     [('conv2.position.weight', 'conv2.pos_emb')]),
}  # fmt: skip


def official(name):
    """A network of ours and its weights under the official names."""
    build, names = CASES[name]
    net, state = build(), {}
    for key, value in net.state_dict().items():
        new = key
        for ours, theirs in names:
            pattern = re.escape(ours).replace(r'\{s\}', r'(\d)')
            prefix = '' if '{s}' in ours else r'(layer\d\.\d+\.)'
            replacement = theirs.replace('{s}', r'\1') if '{s}' in ours else rf'\g<1>{theirs}'
            new, changed = re.subn(f'^{prefix}{pattern}(?=\\.|$)', replacement, key)
            if changed:
                break
        if new.endswith('conv_lambda.weight'):
            value = value.unsqueeze(-1)
        elif new.endswith('pos_emb'):
            value = value.squeeze(1).permute(1, 2, 0)
        state[new] = value
    assert (set(state) == set(net.state_dict())) == (not names)
    return net, state


@pytest.mark.parametrize('name', CASES)
def test_whole_networks(name):
    net, state = official(name)
    head = {'fc.weight': torch.rand(5, 256), 'fc.bias': torch.rand(5)}
    assert detect(state) == NAME
    converted = convert({**state, **head})
    assert converted.pop('head.weight') is head['fc.weight']
    assert converted.pop('head.bias') is head['fc.bias']
    ours = net.state_dict()
    assert set(converted) == set(ours)
    assert all(torch.equal(converted[key], ours[key]) for key in ours)
    detector = convert({f'backbone.{k}': v for k, v in state.items()} | {'neck.x': torch.ones(1)})
    assert set(detector) == {*(f'backbone.{key}' for key in ours), 'neck.x'}


def test_our_own_files_are_left_alone():
    for name in ('cbam', 'bam', 'ge', 'triplet', 'sk', 'lambda'):
        assert detect(CASES[name][0]().state_dict()) is None, name


def test_identical_names_in_an_unknown_network_are_left_alone():
    state = official('eca')[1] | {'layer1.0.context_block.conv_mask.bias': torch.zeros(1)}
    assert detect(state) is None


def test_unknown_key_is_named():
    state = official('cbam')[1] | {'layer1.0.cbam.ChannelGate.mlp.5.weight': torch.zeros(1)}
    with pytest.raises(ValueError, match=r"do not know the key 'layer1\.0\.cbam\.ChannelGate\.mlp"):
        convert(state)


def test_a_plain_resnet_is_not_claimed():
    assert not SOURCES[NAME].matches(set(ResNet(**SMALL).state_dict()))
