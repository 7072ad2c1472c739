"""Layouts of ResNets with other operators in the place of 3x3 convolutions."""

import pytest
import torch

from hybrid_mm.backbones import AAResNet, SASAResNet
from hybrid_mm.convert import convert, detect

ARCH = dict(stem=8, bottleneck=True, depths=[1, 2], widths=[4, 8], out_channels=[8, 12])
COMMON = dict(strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
AA = dict(heads=2, min_key_dim=2, augmented=(False, True), attn_downsample=False)
MODELS = {
    'aa-resnet': lambda: AAResNet(ARCH, **COMMON, **AA),
    'aa-resnet-basic': lambda: AAResNet(
        {**ARCH, 'bottleneck': False, 'widths': ARCH['out_channels']}, **COMMON, **AA
    ),
    'sasa-resnet': lambda: SASAResNet(ARCH, heads=2, **COMMON),
    'sasa-resnet-stem': lambda: SASAResNet(ARCH, 'attention', heads=2, stem_heads=2, **COMMON),
    'sasa-resnet-only-stem': lambda: SASAResNet(ARCH, 'attention', heads=0, stem_heads=2, **COMMON),
    'torchvision-resnet': lambda: SASAResNet(ARCH, heads=0, **COMMON),
}


def official(model):
    """Weights under the names of torchvision and of the operators, written out independently."""
    state = {}
    for key, value in model.state_dict().items():
        if key.startswith('stem.attn'):
            new = key
        elif key.startswith('stem.norm'):
            prefix = 'stem.bn' if hasattr(model.stem, 'attn') else 'bn1'
            new = key.replace('stem.norm', prefix)
        elif key.startswith('stem'):
            new = key.replace('stem.conv', 'conv1')
        else:
            _, stage, _, block, *rest = key.split('.')
            inner = '.'.join(rest).replace('norm1', 'bn1').replace('norm2', 'bn2')
            inner = inner.replace('norm3', 'bn3').replace('shortcut.conv', 'downsample.0')
            inner = inner.replace('shortcut.norm', 'downsample.1')
            if '.relative.' in inner:
                inner = inner.replace('relative.rel', 'key_rel')
                value = value.squeeze(0)
            new = f'layer{int(stage) + 1}.{block}.{inner}'
        state[new] = value
    return state


@pytest.mark.parametrize('name', MODELS)
def test_round_trip(round_trip, name):
    source = name.removesuffix('-basic').removesuffix('-stem').removesuffix('-only')
    round_trip(MODELS[name], official, source, strange='layer2.1.conv2.gain')


def test_classifier_and_detector():
    state = official(MODELS['aa-resnet']())
    for head in ('fc', 'head.fc'):
        out = convert(state | {f'{head}.weight': torch.zeros(3, 12)})
        assert out['head.weight'].shape == (3, 12)
    whole = {f'backbone.{k}': v for k, v in state.items()} | {'neck.w': torch.ones(1)}
    assert {'neck.w', 'backbone.stem.conv.weight'} <= set(convert(whole))


def test_unknown_keys_are_named():
    state = official(MODELS['sasa-resnet']())
    with pytest.raises(ValueError, match=r"sasa-resnet: do not know the key 'layer1.0.extra'"):
        convert(state | {'layer1.0.extra': torch.ones(1)})
    with pytest.raises(ValueError, match=r"know the key 'layer1.0.conv2.other'"):
        convert(state | {'layer1.0.conv2.other': torch.ones(1)}, 'sasa-resnet')


def test_operators_of_others_are_not_claimed():
    for name in MODELS:
        state = official(MODELS[name]())
        assert detect(state | {'layer2.1.conv2.gain': torch.ones(1)}) is None, name
