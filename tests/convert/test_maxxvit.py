"""Layouts of MaxViT and CoAtNet in timm."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hybrid_mm.backbones import CoAtNet, MaxViT
from hybrid_mm.convert import convert, detect

ARCH = dict(
    depths=[1, 1, 2, 1],
    channels=[8, 12, 16, 24],
    stem=dict(channels=(4, 8), bias=True),
    conv=dict(),
    norm=dict(eps=1e-5, momentum=0.1),
    ln_eps=1e-6,
)
MAX = dict(ARCH, approximate='none')
COAT = dict(ARCH, kinds=['C', 'C', 'T', 'T'], attention=dict())


def official(key, maxvit):
    """The name of a tensor in timm, written out independently."""
    key = re.sub(r'(stages\.\d\.)norm\.', 'head.norm.', key)
    key = re.sub(r'conv([13])\.(weight|bias)$', r'conv\1_1x1.\2', key)
    key = key.replace('conv2.', 'conv2_kxk.').replace('.gate.', '.se.')
    key = key.replace('shortcut.', 'shortcut.expand.').replace('relative_bias.fc', 'rel_pos.mlp.fc')
    key = key.replace('relative_bias.table', 'rel_pos.relative_position_bias_table')
    key = re.sub(r'gamma(\d)', r'ls\1.gamma', key)
    if maxvit:
        key = key.replace('.grid.', '.attn_grid.').replace('.block.', '.attn_block.')
    else:
        key = re.sub(r'(stages\.[23]\.blocks\.0\.norm1)\.', r'\1.norm.', key)
    return re.sub(r'stem\.conv(\d)_\w+', r'stem.conv\1', key)


def to_timm(state, maxvit, flat):
    """A state dict as timm has it: tensors as in TensorFlow's ports, or ``flat`` as its own."""
    out = {}
    for key, value in state.items():
        heads = None
        prefix = re.sub(r'qkv\.\w+$', '', key)
        if flat and 'qkv' in key:
            leaf = (
                'relative_bias.table'
                if prefix + 'relative_bias.table' in state
                else 'relative_bias.fc2.weight'
            )
            heads = len(state[prefix + leaf])
            value = value.unflatten(0, (3, heads, -1)).transpose(0, 1).flatten(0, 2)
        if flat and key.endswith('relative_bias.table'):
            value = value.flip(1, 2).flatten(1).t()
        if not maxvit and value.ndim == 2 and 'relative' not in key:
            value = value[:, :, None, None]
        out[official(key, maxvit)] = value
    return out


@pytest.mark.parametrize('maxvit', [True, False])
@pytest.mark.parametrize('flat', [True, False])
@pytest.mark.parametrize('relative', ['table', 'log'])
def test_layouts(drawn, maxvit, flat, relative):
    if maxvit and relative == 'log':
        pytest.skip('the variants of MaxViT have tables')
    if not flat and relative == 'log':
        pytest.skip("timm's own networks have the rows by heads")
    if maxvit:
        model = drawn(MaxViT(MAX, window_size=(3, 4), head_width=4))
    else:
        attention = dict(relative=relative, layer_scale=0.5)
        model = drawn(CoAtNet(dict(COAT, attention=attention), img_size=(64, 96), head_width=4))
    state = to_timm(model.state_dict(), maxvit, flat)
    assert detect(state) == ('maxvit' if maxvit else 'coatnet')
    head = {
        'head.norm.weight': torch.ones(24),
        'head.pre_logits.fc.weight': torch.ones(24, 24),
        'head.fc.weight': torch.ones(5, 24),
    }
    converted = convert(state | head)
    assert converted['stages.3.norm.weight'] is head['head.norm.weight']
    assert {k for k in converted if k.startswith('head.')} == {
        'head.pre_logits.weight',
        'head.weight',
    }
    other = type(model)(
        MAX if maxvit else dict(COAT, attention=attention),
        **(dict(window_size=(3, 4)) if maxvit else dict(img_size=(64, 96))),
        head_width=4,
    )
    if not maxvit or not flat:  # a flat table does not say its sides; a square is assumed else
        other.load_strictly(convert(state), 'timm')
        for key, value in model.state_dict().items():
            assert torch.equal(other.state_dict()[key], value), key
    with pytest.raises(ValueError, match=r"do not know the key 'stages.0.extra'"):
        convert(state | {'stages.0.extra': torch.ones(1)})


def test_logits_are_those_of_swin_tables():
    """A table of timm, indexed as Swin does, gives our attention its logits."""
    torch.manual_seed(0)
    model = MaxViT(MAX, window_size=4, head_width=4).double().eval()
    state = to_timm(model.state_dict(), maxvit=True, flat=True)
    attn = model.stages[0].blocks[0].block.attn
    nn.init.normal_(attn.relative_bias.table)
    state = to_timm(model.state_dict(), maxvit=True, flat=True)
    table = state['stages.0.blocks.0.attn_block.attn.rel_pos.relative_position_bias_table']
    qkv = state['stages.0.blocks.0.attn_block.attn.qkv.weight']
    x = torch.randn(1, 4, 4, 8, dtype=torch.float64)
    q, k, v = (x.flatten(1, 2) @ qkv.t()).view(16, 2, 12).transpose(0, 1).split(4, dim=-1)
    offset = torch.arange(4)[:, None] - torch.arange(4) + 3  # query minus key
    index = offset[:, None, :, None] * 7 + offset[None, :, None, :]
    bias = table[index.flatten()].view(16, 16, 2).permute(2, 0, 1)
    weights = (q @ k.transpose(1, 2) / 2 + bias).softmax(-1)
    expected = F.linear((weights @ v).transpose(0, 1).flatten(1), attn.proj.weight)
    torch.testing.assert_close(attn(x), expected.view(1, 4, 4, 8))


def test_map_of_another_size(tmp_path):
    source = CoAtNet(COAT, img_size=64, head_width=4).eval()
    nn.init.normal_(source.stages[2].blocks[0].attn.relative_bias.table)
    state = to_timm(source.state_dict(), maxvit=False, flat=True)
    torch.save(dict(state_dict=state), tmp_path / 'coatnet.pth')
    model = CoAtNet(COAT, img_size=(96, 128), head_width=4).eval()
    model.load_pretrained(str(tmp_path / 'coatnet.pth'))
    x = torch.rand(1, 3, 96, 128)
    for ours, expected in zip(model(x), source(x), strict=True):
        torch.testing.assert_close(ours, expected)
    name = 'stages.2.blocks.0.attn.relative_bias.table'
    bad = {**convert(state), name: torch.zeros(4, 50)}
    with pytest.raises(ValueError, match='a table of 50 offsets is neither one of 11 x 15'):
        model.load_strictly(bad, 'file')
