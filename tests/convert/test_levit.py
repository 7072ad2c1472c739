"""Layouts of LeViT: the authors' two, MMPretrain's and timm's."""

import pytest
import torch

from hybrid_mm.backbones import LeViT
from hybrid_mm.convert import convert, detect

ARCH = dict(
    embed_dims=[16, 20, 24],
    key_dims=[4] * 3,
    heads=[2, 3, 4],
    depths=[1, 2, 1],
    mlp_ratios=[2] * 3,
    value_ratios=[2] * 3,
    shrink_heads=[None, 4, 5],
    shrink_key_dims=[None, 4, 4],
    shrink_value_ratios=[None, 4, 4],
    shrink_mlp_ratios=[None, 2, 2],
)
HEADS = {'head.bn.weight': torch.ones(24), 'head.linear.weight': torch.ones(5, 24),
         'head.dist.linear.bias': torch.ones(5)}  # fmt: skip
# the entries of the flat list: stage, block (None: what shrinks before it), part
ORDER = [(2, 0, 'attn'), (2, 0, 'mlp'), (3, None, 'attn'), (3, None, 'mlp'), (3, 0, 'attn'),
         (3, 0, 'mlp'), (3, 1, 'attn'), (3, 1, 'mlp'), (4, None, 'attn'), (4, None, 'mlp'),
         (4, 0, 'attn'), (4, 0, 'mlp')]  # fmt: skip
STEM = ['stem.', 'stages.0.downsample.', 'stages.1.downsample.', 'stages.2.downsample.']


@pytest.fixture(scope='module')
def model():
    return make()


def make():
    return LeViT(ARCH, img_size=64, out_indices=(4,))


def official(model, conv=False):
    """Weights under the official names, written out independently."""
    state = {}
    for number, (stage, block, part) in enumerate(ORDER):
        ours = f'stages.{stage}.{"downsample" if block is None else f"blocks.{block}"}.{part}.'
        wrapped = 'm.' if block is not None or part == 'mlp' else ''
        names = {'qkv': 'qkv', 'q': 'q.1', 'kv': 'kv', 'proj': 'proj.1', 'fc1': '0', 'fc2': '2'}
        for key, value in model.state_dict().items():
            if not key.startswith(ours):
                continue
            layer, *rest = key[len(ours) :].split('.')
            if layer == 'distance_bias':
                name, value = 'attention_biases', value.flatten(1)
            else:
                short = {'linear': 'c', 'norm': 'bn'}[rest[0]]
                name = f'{names[layer]}.{short}.{rest[1]}'
                value = value[..., None, None] if conv and short == 'c' else value
            state[f'blocks.{number}.{wrapped}{name}'] = value
        if part == 'attn':
            state[f'blocks.{number}.{wrapped}attention_bias_idxs'] = torch.zeros(4, 4).long()
    for number, ours in zip((0, 2, 4, 6), STEM, strict=True):
        for key, value in model.state_dict().items():
            if key.startswith(f'{ours}conv.'):
                name = key[len(ours) + 5 :].replace('conv.', 'c.').replace('norm.', 'bn.')
                state[f'patch_embed.{number}.{name}'] = value
    return state


def check(state, source, model, heads=()):
    assert detect(state) == source
    out, own = convert(state), model.state_dict()
    assert out.keys() == own.keys() | set(heads)
    assert all(torch.equal(out[k], own[k]) for k in own)
    assert detect(out) is None
    with pytest.raises(ValueError, match=f"{source}: do not know the key 'blocks.1.extra.weight'"):
        convert(state | {'blocks.1.extra.weight': torch.ones(1)})


@pytest.mark.parametrize('conv', [False, True])
def test_round_trip(round_trip, conv):
    def layout(model):
        return official(model, conv)

    round_trip(make, layout, 'levit', strange='blocks.0.m.gain')


@pytest.mark.parametrize('conv', [False, True])
def test_official(model, drawn, conv):
    drawn(model)
    heads = {
        'head.bn.weight': torch.ones(24),
        'head.l.weight': torch.ones(5, 24),
        'head_dist.l.bias': torch.ones(5),
    }
    check(official(model, conv) | heads, 'levit', model, HEADS)
    state = official(model)
    state['blocks.0.m.attention_biases'] = torch.ones(2, 15)
    with pytest.raises(ValueError, match=r'distance_bias of \(2, 15\) is not of a square map'):
        convert(state)


def test_mmpretrain(model):
    """Its own network, and the outputs of ours with its weights."""
    mmpretrain = pytest.importorskip('mmpretrain.models')
    theirs = mmpretrain.LeViT('128s', out_indices=(0, 1, 2))
    theirs.eval()
    ours = LeViT('128s', out_indices=(2, 3, 4)).eval()
    state = theirs.state_dict()
    check(state, 'levit-mmpretrain', _fill(ours, state))
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        for a, b in zip(ours(x), theirs(x), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def _fill(model, state):
    """The model with the weights of a file."""
    model.load_strictly(convert(state), 'file')
    return model


def timm_name(key):
    """The name of a tensor in timm, written out independently."""
    names = {'q': 'q.ln', 'kv': 'kv', 'qkv': 'qkv', 'proj': 'proj.ln', 'fc1': 'ln1', 'fc2': 'ln2'}
    for number, ours in enumerate(STEM, 1):
        if key.startswith(f'{ours}conv.'):
            name = key[len(ours) + 5 :].replace('conv.', 'linear.').replace('norm.', 'bn.')
            return f'stem.conv{number}.{name}'
    _, stage, *rest = key.split('.')
    out = ['stages', str(int(stage) - 2)]
    if rest[0] == 'downsample':
        out += ['downsample', {'attn': 'attn_downsample', 'mlp': 'mlp'}[rest[1]]]
        rest = rest[2:]
    else:
        out += rest[:3]
        rest = rest[3:]
    if rest == ['distance_bias']:
        return '.'.join([*out, 'attention_biases'])
    return '.'.join([*out, names[rest[0]], rest[1].replace('norm', 'bn'), rest[2]])


def timm(model):
    state = {}
    for key, value in model.state_dict().items():
        name = timm_name(key)
        state[name] = value.flatten(1) if name.endswith('biases') else value
    return state


def test_timm(model, round_trip):
    _, state, _ = round_trip(make, timm, 'levit-timm', strange='stages.0.blocks.0.gain')
    state = timm(model)
    check(state | HEADS_OF_TIMM, 'levit-timm', model, HEADS)


HEADS_OF_TIMM = {'head.bn.weight': torch.ones(24), 'head.linear.weight': torch.ones(5, 24),
                 'head_dist.linear.bias': torch.ones(5)}  # fmt: skip


def test_timm_itself():
    timm = pytest.importorskip('timm')
    theirs = timm.create_model('levit_128s').eval()
    state = convert(theirs.state_dict())
    ours = LeViT('128s', pooled=True, out_indices=(4,)).eval()
    _fill(ours, {k: v for k, v in state.items() if not k.startswith('head.')})
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        features = theirs.forward_features(x).mean(1)
        torch.testing.assert_close(ours(x)[0], features, rtol=1e-4, atol=1e-4)
