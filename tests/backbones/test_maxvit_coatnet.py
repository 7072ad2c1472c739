"""MaxViT and CoAtNet beyond the contract."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from hybrid_mm.backbones import CoAtNet, MaxViT
from hybrid_mm.convert import convert, detect
from hybrid_mm.layers.relative_position import window_index

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


def parameters(cls, arch, classes=1000, **kwargs):
    """Of a classifier; the heads of the papers have a hidden layer."""
    with torch.device('meta'):
        model = cls(arch, norm_outputs=True, out_indices=(3,), **kwargs)
        channels = model.stage_channels[-1]
        head = [nn.Linear(channels, classes)]
        if 'rw' not in arch:
            head.append(nn.Linear(channels, channels))
    return sum(p.numel() for m in (model, *head) for p in m.parameters())


@pytest.mark.parametrize(
    'arch, window, count',
    [
        ('tiny', 7, 30_916_528), ('tiny', 12, 30_977_008), ('tiny', 16, 31_049_584),
        ('small', 7, 68_927_956), ('base', 7, 119_467_708), ('large', 7, 211_785_560),
        ('xlarge', 7, 474_951_952), ('tiny-rw', 7, 29_057_312), ('nano-rw', 8, 15_451_148),
        ('pico-rw', 8, 7_457_996),
    ],
)  # fmt: skip
def test_parameters_of_maxvit(arch, window, count):
    assert parameters(MaxViT, arch, window_size=window) == count


@pytest.mark.parametrize(
    'arch, count',
    [
        ('0', 25_036_820), ('1', 42_225_776), ('2', 74_684_744), ('3', 166_966_264),
        ('4', 275_425_288), ('5', 687_472_008), ('0-rw', 27_435_562), ('1-rw', 41_721_502),
        ('2-rw', 73_868_400), ('nano-rw', 15_141_244), ('rmlp-1-rw2', 41_724_622),
        ('rmlp-2-rw', 73_881_264),
    ],
)  # fmt: skip
def test_parameters_of_coatnet(arch, count):
    assert parameters(CoAtNet, arch) == count


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
def test_layouts(maxvit, flat, relative):
    if maxvit and relative == 'log':
        pytest.skip('the variants of MaxViT have tables')
    if not flat and relative == 'log':
        pytest.skip("timm's own networks have the rows by heads")
    torch.manual_seed(0)
    if maxvit:
        model = MaxViT(MAX, window_size=(3, 4), head_width=4)
    else:
        attention = dict(relative=relative, layer_scale=0.5)
        model = CoAtNet(dict(COAT, attention=attention), img_size=(64, 96), head_width=4)
    state = to_timm(model.state_dict(), maxvit, flat)
    assert detect(state) == ('maxvit' if maxvit else 'coatnet')
    head = {'head.norm.weight': torch.ones(24), 'head.pre_logits.fc.weight': torch.ones(24, 24),
            'head.fc.weight': torch.ones(5, 24)}  # fmt: skip
    converted = convert(state | head)
    assert converted['stages.3.norm.weight'] is head['head.norm.weight']
    assert {k for k in converted if k.startswith('head.')} == {
        'head.pre_logits.weight', 'head.weight',
    }  # fmt: skip
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
    bias = table[window_index(4).flatten()].view(16, 16, 2).permute(2, 0, 1)
    weights = (q @ k.transpose(1, 2) / 2 + bias).softmax(-1)
    expected = F.linear((weights @ v).transpose(0, 1).flatten(1), attn.proj.weight)
    torch.testing.assert_close(attn(x), expected.view(1, 4, 4, 8))


def test_window_of_another_size(tmp_path):
    source = MaxViT(MAX, window_size=4, head_width=4)
    torch.save(source.state_dict(), tmp_path / 'maxvit.pth')
    model = MaxViT(MAX, window_size=(8, 6), head_width=4)
    model.load_pretrained(str(tmp_path / 'maxvit.pth'))
    name = 'stages.1.blocks.0.grid.attn.relative_bias.table'
    expected = F.interpolate(source.state_dict()[name][None], (15, 11), mode='bilinear')
    assert torch.equal(model.state_dict()[name], expected[0])


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


def test_windows_as_large_as_the_map_are_global():
    torch.manual_seed(0)
    whole = CoAtNet(COAT, img_size=(64, 96), head_width=4).eval()
    windows = CoAtNet(COAT, img_size=(64, 96), head_width=4, windowed=True).eval()
    windows.load_state_dict(whole.state_dict())
    x = torch.rand(2, 3, 64, 96)
    for a, b in zip(whole(x), windows(x), strict=True):
        torch.testing.assert_close(a, b)
    assert not torch.allclose(whole(x.repeat(1, 1, 2, 1))[3], windows(x.repeat(1, 1, 2, 1))[3])


def test_norms_of_the_outputs(tmp_path):
    """Of a classifier's file the norm goes to the last map, where that is normed."""
    state = MaxViT(MAX, norm_outputs=True, out_indices=(3,), head_width=4).state_dict()
    state['stages.3.norm.weight'] = torch.full((24,), 3.0)
    torch.save(state, tmp_path / 'a.pth')
    plain = MaxViT(MAX, head_width=4)
    plain.load_pretrained(str(tmp_path / 'a.pth'))
    normed = MaxViT(MAX, head_width=4, norm_outputs=True)
    normed.load_pretrained(str(tmp_path / 'a.pth'))
    assert torch.equal(normed.stages[3].norm.weight, torch.full((24,), 3.0))
    assert torch.equal(normed.stages[0].norm.weight, torch.ones(8))
    x = torch.rand(1, 3, 64, 64)
    pooled = MaxViT(MAX, head_width=4, pooled=True).eval()
    pooled.load_state_dict(plain.state_dict())
    expected = plain.eval()(x)[-1].mean((2, 3), keepdim=True)
    torch.testing.assert_close(pooled(x)[-1], expected)


def test_errors():
    with pytest.raises(ValueError, match='window_size and grid_size must be positive'):
        MaxViT(MAX, window_size=0)
    with pytest.raises(ValueError, match='head_width must divide the 8 channels'):
        MaxViT(MAX, head_width=32)
    with pytest.raises(ValueError, match="stages must be 'C' or 'T'"):
        CoAtNet(dict(COAT, kinds=['C', 'C', 'T', 'X']))
    with pytest.raises(ValueError, match='img_size must be a positive side'):
        CoAtNet(COAT, img_size=0)
