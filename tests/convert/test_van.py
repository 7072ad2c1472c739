"""Layouts of VAN and VAN-LSKA files."""

import pytest
import torch

from hybrid_mm.backbones import VAN
from hybrid_mm.convert import SOURCES, convert, unwrap

ARCH = dict(embed_dims=[4, 6], depths=[1, 2], mlp_ratios=[2, 2])
# source: (attention, official names in our order of convolutions, block, embed, dwconv)
LAYOUTS = {
    'van': ('lka', ('conv0', 'conv_spatial'), 'block', 'proj', 'dwconv.dwconv'),
    'van-mmpretrain': ('lka', ('DW_conv', 'DW_D_conv'), 'blocks', 'projection', 'dwconv'),
    'van-mmseg': ('lka', ('conv0', 'conv_spatial'), 'block', 'proj', 'dwconv'),
    'van-lka-trivial': ('lka_trivial', ('conv0',), 'block', 'proj', 'dwconv.dwconv'),
    'lska': ('lska', ('conv0h', 'conv0v', 'conv_spatial_h', 'conv_spatial_v'), 'block', 'proj',
             'dwconv.dwconv'),
    'lska-dense': ('lska', ('DW_conv_h', 'DW_conv_v', 'DW_D_conv_h', 'DW_D_conv_v'), 'blocks',
                   'projection', 'dwconv'),
    'lska-trivial': ('lska_trivial', ('conv0h', 'conv0v'), 'block', 'proj', 'dwconv.dwconv'),
}  # fmt: skip
OURS = {
    'lka': ('local', 'dilated'),
    'lka_trivial': ('full',),
    'lska': ('local_h', 'local_v', 'dilated_h', 'dilated_v'),
    'lska_trivial': ('full_h', 'full_v'),
}


def official(source, model=None):
    """A model of ours and its weights under the official names, written out independently."""
    attention, convs, block, embed, dwconv = LAYOUTS[source]
    model = model or VAN(ARCH, attention, out_indices=(0, 1))
    state = {}
    names = dict(zip(OURS[attention], convs, strict=True)) | {'pointwise': 'conv1'}
    for key, value in model.state_dict().items():
        _, stage, *rest = key.split('.')
        s = int(stage) + 1
        if rest[0] == 'embed':
            new = f'patch_embed{s}.{embed if rest[1] == "conv" else "norm"}.{rest[2]}'
        elif rest[0] == 'norm':
            new = f'norm{s}.{rest[1]}'
        else:
            inner = '.'.join(rest[2:])
            inner = inner.replace('proj_in', 'proj_1').replace('proj_out', 'proj_2')
            inner = inner.replace('mlp.dwconv', f'mlp.{dwconv}')
            if inner.startswith('attn.lka.'):
                _, _, conv, leaf = inner.split('.')
                inner = f'attn.spatial_gating_unit.{names[conv]}.{leaf}'
            new = f'{block}{s}.{rest[1]}.{inner}'
        state[new] = value
    return model, state


def test_every_layout_of_this_file_is_tested():
    found = {n for n in SOURCES if n.startswith(('van', 'lska'))}
    assert found == {*LAYOUTS, 'van-huggingface'}  # that is in test_peers.py


@pytest.mark.parametrize('source', LAYOUTS)
def test_round_trip(round_trip, source):
    def make():
        return VAN(ARCH, LAYOUTS[source][0], out_indices=(0, 1))

    strange = f'{LAYOUTS[source][2]}1.0.attn.gate.weight'
    round_trip(make, lambda model: official(source, model)[1], source, strange=strange)


@pytest.mark.parametrize('source', LAYOUTS)
def test_pretrained_takes_official_files(source, tmp_path):
    model, state = official(source)
    state['head.weight'], state['head.bias'] = torch.zeros(5, 6), torch.zeros(5)
    torch.save({'state_dict': {f'module.{k}': v for k, v in state.items()}}, tmp_path / 'x.pth')
    target = VAN(
        ARCH,
        LAYOUTS[source][0],
        out_indices=(0, 1),
        init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'x.pth')),
    )
    target.init_weights()
    assert all(torch.equal(target.state_dict()[k], v) for k, v in model.state_dict().items())


def test_segmenter_keeps_its_other_parts():
    model, state = official('van')
    full = {f'backbone.{k}': v for k, v in state.items()} | {'decode_head.w': torch.ones(1)}
    out = convert(full)
    assert set(out) == {f'backbone.{k}' for k in model.state_dict()} | {'decode_head.w'}


def test_unknown_keys_are_named():
    _, state = official('van')
    with pytest.raises(ValueError, match=r"van: do not know the key 'block1.0.attn.extra'"):
        convert(state | {'block1.0.attn.extra': torch.ones(1)})
    with pytest.raises(KeyError, match="unknown checkpoint source 'vann'"):
        convert(state, 'vann')


def test_another_kernel_size_is_named(tmp_path):
    _, state = official('lska')
    torch.save(state, tmp_path / 'k23.pth')
    target = VAN(ARCH, 'lska', kernel_size=35, out_indices=(0, 1))
    with pytest.raises(ValueError, match=r'of another shape: .*dilated_h.weight \(file .*7\), mod'):
        target.load_pretrained(str(tmp_path / 'k23.pth'))


def test_unwrap():
    inner = {'a': torch.zeros(1)}
    assert unwrap({'state_dict': inner, 'meta': {}}).keys() == {'a'}
    assert unwrap({'model': {'module.a': torch.zeros(1)}}).keys() == {'a'}
    with pytest.raises(ValueError, match='no weights found'):
        unwrap({'epoch': 3})
