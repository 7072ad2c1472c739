"""Layout of the official LESA checkpoints."""

import pytest
import torch

from hybrid_mm.backbones import LESAResNet
from hybrid_mm.convert import convert, unwrap

ARCH = dict(stem=8, bottleneck=True, depths=[1, 2], widths=[8, 16], out_channels=[16, 24])
COMMON = dict(
    strides=(1, 2),
    dilations=(1, 1),
    out_indices=(0, 1),
    groups=2,
    canvas_size=(64, 64),
    lesa=(False, True),
    first_conv=(True, False),
)
MODELS = {
    'axial': lambda: LESAResNet(ARCH, deformable=(False, False), **COMMON),
    'deformable': lambda: LESAResNet(ARCH, deformable=(True, True), **COMMON),
    'flat': lambda: LESAResNet(ARCH, deformable=(False, False), positions='flat', **COMMON),
}
INNER = {
    'local.conv_offset': 'x_transform.0.conv_offset', 'local': 'x_transform.0',
    'mix': 'x_transform.1', 'norm_local': 'bn_x', 'qkv': 'qkv_transform', 'norm_qkv': 'bn_qkv',
    'norm_logits': 'bn_similarity', 'norm_context': 'bn_output', 'reason': 'reasoning.1',
    'norm_reason': 'reasoning.2', 'project': 'projection.0', 'norm_project': 'projection.1',
    'rel': 'relative', 'rel_h': 'rel_height', 'rel_w': 'rel_width',
}  # fmt: skip


def official(model):
    """Weights under the official names, written out independently."""
    state = {}
    for key, value in model.state_dict().items():
        if key.startswith('stem'):
            state[key.replace('stem.conv', 'conv1').replace('stem.norm', 'bn1')] = value
            continue
        _, stage, _, block, *rest = key.split('.')
        inner = '.'.join(rest).replace('shortcut.conv', 'downsample.0')
        inner = inner.replace('shortcut.norm', 'downsample.1')
        for i in '123':
            inner = inner.replace(f'norm{i}.', f'bn{i}.')
        name, _, leaf = inner.removeprefix('conv2.').rpartition('.')
        if inner.startswith('conv2.') and (name in INNER or leaf in INNER):
            inner = f'conv2.{INNER[name]}.{leaf}' if name else f'conv2.{INNER[leaf]}'
        state[f'layer{int(stage) + 1}.{block}.{inner}'] = value
    return state


@pytest.mark.parametrize('name', MODELS)
def test_round_trip(round_trip, name):
    index = {'layer2.1.conv2.flatten_index': torch.arange(4)} if name == 'flat' else None
    strange = 'layer2.0.conv2.gain'
    _, state, _ = round_trip(MODELS[name], official, 'lesa', strange=strange, extra=index)
    assert 'layer2.1.conv2.bn_similarity.weight' in state


def test_file_of_the_official_code(tmp_path):
    """A classifier's checkpoint in a detector: no offsets of deformable convolutions, no head."""
    state = official(MODELS['axial']())
    state |= {'fc.weight': torch.ones(3, 24), 'fc.bias': torch.ones(3)}
    saved = {'net': {f'module.{k}': v for k, v in state.items()}, 'acc': 79.5, 'epoch': 94}
    assert convert(unwrap(saved))['head.weight'].shape == (3, 24)
    torch.save(saved, tmp_path / 'lesa.pth')
    model = MODELS['deformable']()
    model.load_pretrained(str(tmp_path / 'lesa.pth'))
    own, offsets = model.state_dict(), 0
    for key, value in convert(unwrap(saved)).items():
        if not key.startswith('head.'):
            assert torch.equal(own.pop(key), value), key
    for key, value in own.items():
        assert '.conv_offset.' in key
        assert not value.any()
        offsets += 1
    assert offsets == 6


def test_unknown_keys_are_named():
    state = official(MODELS['axial']())
    with pytest.raises(ValueError, match=r"lesa: do not know the key 'layer2.0.conv2.extra'"):
        convert(state | {'layer2.0.conv2.extra': torch.ones(1)}, 'lesa')
