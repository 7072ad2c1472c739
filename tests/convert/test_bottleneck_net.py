"""Layouts of timm's ByobNet and of distribuuuu's botnet50."""

import pytest
import torch

from hybrid_mm.backbones import BoTNet, HaloNet
from hybrid_mm.convert import convert

TINY = dict(
    depths=[1, 1, 1, 2],
    channels=[8, 16, 16, 16],
    heads=[2] * 4,
    attention=[False, False, (0,), True],
    stem=dict(kind='tiered', channels=16, pool=True),
    final=24,
)
SE, ECA = dict(kind='se', place='mid', ratio=4), dict(kind='eca', place='mid')
RESNET = dict(
    TINY, attention=[False, False, False, True], stem=dict(kind='7x7', channels=8, pool=True)
)
BARE = dict(kind='3x3', channels=8, pool=False)
MODELS = {
    'halo-se': lambda: HaloNet(dict(TINY, gate=SE), final_conv=True),
    'halo-bias': lambda: HaloNet(
        dict(TINY, stem=BARE, strides=[2] * 4, shortcut=False), qkv_bias=True
    ),
    'bot-eca': lambda: BoTNet(dict(TINY, gate=ECA), canvas_size=(64, 96), final_conv=True),
    'resnet': lambda: BoTNet(RESNET, canvas_size=(64, 96)),
}
LAST = {'conv1': 'conv1_1x1.conv', 'norm1': 'conv1_1x1.bn', 'conv3': 'conv3_1x1.conv',
        'norm3': 'conv3_1x1.bn', 'gate': 'attn', 'shortcut.conv': 'shortcut.conv',
        'shortcut.norm': 'shortcut.bn', 'relative.rel_h': 'pos_embed.height_rel',
        'relative.rel_w': 'pos_embed.width_rel'}  # fmt: skip


def timm(model):
    """Weights under timm's names, written out independently."""
    state, own = {}, model.state_dict()
    for key, value in own.items():
        parts = key.split('.')
        if parts[0] == 'stem':
            single = len(model.stem.layers) == 1 and isinstance(model.stem.pool, torch.nn.Identity)
            number = '' if single else f'conv{int(parts[2]) + 1}.'
            new = f'stem.{number}' + '.'.join(parts[3:]).replace('norm', 'bn')
        elif parts[2] == 'final':
            new = 'final_conv.' + '.'.join(parts[3:]).replace('norm', 'bn')
        else:
            inner = '.'.join(parts[4:])
            attends = f'{".".join(parts[:4])}.conv2.relative.rel_h' in own
            for old, name in LAST.items():
                inner = inner.replace(old, name)
            if attends:
                inner = inner.replace('conv2.', 'self_attn.').replace('norm2', 'post_attn')
                value = value[0] if 'pos_embed' in inner else value
            else:
                inner = inner.replace('conv2.', 'conv2_kxk.conv.').replace('norm2', 'conv2_kxk.bn')
            new = f'stages.{parts[1]}.{parts[3]}.{inner}'
        state[new] = value
    return state


def distribuuuu(model):
    """Weights under distribuuuu's names, written out independently."""
    state = {}
    for key, value in model.state_dict().items():
        parts, leaf = key.split('.'), key.split('.')[-1]
        if parts[0] == 'stem':
            state[f'{0 if parts[3] == "conv" else 1}.{leaf}'] = value
        elif parts[1] == '3':
            prefix, inner = f'7.net.{parts[3]}.', '.'.join(parts[4:])
            if inner == 'conv2.qkv.weight':
                third = len(value) // 3
                state[f'{prefix}net.3.to_qk.weight'] = value[: 2 * third]
                state[f'{prefix}net.3.to_v.weight'] = value[2 * third :]
                continue
            names = {
                'conv1': 'net.0',
                'norm1': 'net.1',
                'norm2': 'net.5',
                'conv3': 'net.7',
                'norm3': 'net.8',
            }
            if parts[4] == 'shortcut':
                inner = f'shortcut.{0 if parts[5] == "conv" else 1}.{leaf}'
            elif parts[4] == 'conv2':
                axis = dict(rel_h='rel_height', rel_w='rel_width')[leaf]
                inner, value = f'net.3.pos_emb.{axis}', value[0]
            else:
                inner = f'{names[parts[4]]}.{leaf}'
            state[prefix + inner] = value
        else:
            inner = '.'.join(parts[4:]).replace('shortcut.conv', 'downsample.0')
            inner = inner.replace('shortcut.norm', 'downsample.1').replace('norm', 'bn')
            state[f'{int(parts[1]) + 4}.{parts[3]}.{inner}'] = value
    return state


CASES = [(name, timm, 'timm-byobnet') for name in MODELS]
CASES.append(('resnet', distribuuuu, 'distribuuuu-botnet'))


@pytest.mark.parametrize(
    ('name', 'official', 'source'), CASES, ids=[f'{c[0]}-{c[2]}' for c in CASES]
)
def test_round_trip(round_trip, name, official, source, tmp_path):
    strange = dict(timm='stages.0.0.self_attn.gain', distribuuuu='4.0.gain')[official.__name__]
    model, state, _ = round_trip(MODELS[name], official, source, strange=strange)
    own = model.state_dict()

    head = {'timm-byobnet': 'head.fc.', 'distribuuuu-botnet': '10.'}[source]
    state |= {f'{head}weight': torch.zeros(5, 16), f'{head}bias': torch.zeros(5)}
    assert {'head.weight', 'head.bias'} <= convert(state).keys()
    torch.save({'state_dict': {f'module.{k}': v for k, v in state.items()}}, tmp_path / 'x.pth')
    target = MODELS[name]()
    target.load_pretrained(str(tmp_path / 'x.pth'))
    assert all(torch.equal(target.state_dict()[k], own[k]) for k in own)


def test_unknown_keys_are_named():
    state = timm(MODELS['halo-se']())
    with pytest.raises(ValueError, match=r"do not know the key 'stages.0.0.self_attn.extra'"):
        convert(state | {'stages.0.0.self_attn.extra': torch.ones(1)})
    state = distribuuuu(MODELS['resnet']())
    del state['7.net.1.net.3.to_v.weight']
    with pytest.raises(ValueError, match=r'blocks.1.conv2.to_qk.weight without .*to_v'):
        convert(state)
