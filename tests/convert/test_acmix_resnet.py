"""Layouts of the official ACmix checkpoints: ResNet and Swin."""

import re

import pytest
import torch

from hybrid_mm.backbones import ACmixResNet, ACmixSwin
from hybrid_mm.convert import convert, detect

ARCH = dict(stem=8, bottleneck=True, depths=[1, 2], widths=[8, 12], out_channels=[16, 24])
KWARGS = dict(heads=4, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
NAMES = [
    (r'^stem\.conv', 'conv1'),
    (r'^stem\.norm', 'bn1'),
    (r'^stages\.0\.blocks', 'layer1'),
    (r'^stages\.1\.blocks', 'layer2'),
    (r'\.norm(\d)', r'.bn\1'),
    (r'shortcut\.conv', 'downsample.0'),
    (r'shortcut\.norm', 'downsample.1'),
    (r'conv2\.position', 'conv2.conv_p'),
    (r'conv2\.mix\.', 'conv2.'),
]


def official(model, heads):
    """Weights under the official names, written out independently."""
    state = {}
    for key, value in model.state_dict().items():
        for old, new in NAMES:
            key = re.sub(old, new, key)
        if '.qkv.' not in key:
            state[key] = value
            continue
        dim = len(value) // (3 * heads)
        for part in range(3):
            rows = [(j * 3 + part) * heads + n for n in range(heads) for j in range(dim)]
            state[key.replace('qkv', f'conv{part + 1}')] = value[rows]
    return state


def test_resnet_round_trip(round_trip):
    def make():
        return ACmixResNet(ARCH, **KWARGS)

    round_trip(make, lambda model: official(model, 4), 'acmix-resnet', strange='layer9.extra')


def test_resnet_unknown_keys_are_named():
    state = official(ACmixResNet(ARCH, **KWARGS), 4)
    with pytest.raises(ValueError, match=r"acmix-resnet: do not know the key 'layer9.extra'"):
        convert(state | {'layer9.extra': torch.ones(1)})


def official_swin(model):
    """Weights under the official names, written out independently."""
    state = {}
    for key, value in model.state_dict().items():
        key = key.replace('stages.0.embed', 'patch_embed').replace('attn.mix.', 'attn.')
        key = key.replace('stages.1.norm', 'norm').replace('stages.1.down', 'layers.0.down')
        key = key.replace('stages.', 'layers.')
        if key.endswith('relative_bias'):
            key = key.replace('relative_bias', 'relative_position_bias_table')
            heads, side, _ = value.shape
            table = torch.empty(side**2, heads)
            for row in range(side):
                for column in range(side):  # offsets of the query to the key
                    entry = value[:, side - 1 - row, side - 1 - column]
                    table[row * side + column] = entry
            value = table
        state[key] = value
    return state


def test_swin_round_trip(round_trip):
    def make():
        arch = dict(embed_dim=8, depths=[1, 2], heads=[2, 2])
        return ACmixSwin(arch, window_size=4, out_indices=(1,))

    extra = {
        'layers.1.blocks.1.attn_mask': torch.zeros(4, 16, 16),
        'layers.0.blocks.0.attn.relative_position_index': torch.zeros(16, 16),
    }
    strange = 'layers.0.extra'
    _, state, _ = round_trip(make, official_swin, 'acmix-swin', strange=strange, extra=extra)
    plain = {k: v for k, v in state.items() if not re.search(r'rate|attn\.fc|dep_conv', k)}
    assert detect(plain) == 'swin'
