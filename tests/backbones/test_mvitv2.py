"""MViTv2 beyond the contract."""

import re

import pytest
import torch
from torch import nn

from hybrid_mm.backbones import MViTv2
from hybrid_mm.convert import convert, detect

ARCH = dict(embed_dim=8, heads=1, depths=[1, 2, 3, 2])
CLASSES = dict(window_size=None, double_kv_stride=False)


def parameters(arch, classes=0, **kwargs):
    with torch.device('meta'):
        model = MViTv2(arch, **kwargs)
        head = nn.Linear(model.out_channels[-1], classes) if classes else nn.Identity()
    return sum(p.numel() for m in (model, head) for p in m.parameters())


@pytest.mark.parametrize(
    'arch, classifier, dense',
    [
        ('tiny', 24_173_320, 23_405_664), ('small', 34_870_216, 34_102_560),
        ('base', 51_472_744, 50_705_088), ('large', 213_635_368, 212_484_384),
        ('huge', 666_879_720, 665_345_408),
    ],
)  # fmt: skip
def test_parameters(arch, classifier, dense):
    assert parameters(arch, 1000, out_indices=(3,), **CLASSES) == classifier
    assert parameters(arch) == dense


def test_parameters_of_the_published_large_classifier():
    kwargs = dict(out_indices=(3,), dim_mul_in_att=False, **CLASSES)
    assert parameters('large', 1000, **kwargs) == 217_992_952


def test_windows_and_strides_of_detection():
    """Block by block as detectron2 builds MViTv2-T."""
    with torch.device('meta'):
        model = MViTv2('tiny')
    blocks = [block.attn for stage in model.stages for block in stage.blocks]
    assert [attn.strides[0] for attn in blocks] == [1, 2, 1, 2, 1, 1, 1, 1, 2, 1]
    assert [attn.strides[1] for attn in blocks] == [4, 2, 4, 1, 1, 1, 1, 2, 1, 1]
    assert [attn.window for attn in blocks] == [56, 56, None, 28, 14, 14, 14, None, 14, None]
    sizes = [attn.relative.size[0] for attn in blocks]
    assert sizes == [111, 55, 55, 55, 27, 27, 27, 27, 27, 13]


def test_norms_are_those_of_the_returned_maps_only():
    torch.manual_seed(0)
    model = MViTv2(ARCH, img_size=64, window_size=16).eval()
    x = torch.rand(1, 3, 64, 64)
    before = model(x)
    nn.init.normal_(model.stages[0].norm.weight)
    after = model(x)
    assert not torch.allclose(before[0], after[0])
    assert all(torch.equal(a, b) for a, b in zip(before[1:], after[1:], strict=True))


def official(key, layout, model):
    """Name of a tensor in a layout, written out independently."""
    kept = [sum(model.depths[:i]) for i in range(len(model.depths))]

    def block(match):
        stage, index = int(match[1]), int(match[2])
        if layout == 'timm':
            return match[0]
        return f'blocks.{kept[stage] + index}.'

    key = key.replace('stages.0.embed.proj', 'patch_embed.proj')
    key = re.sub(r'stages\.(\d)\.blocks\.(\d+)\.', block, key)
    key = key.replace('relative.rel_', 'rel_pos_')
    norm = re.fullmatch(r'stages\.(\d)\.norm\.(\w+)', key)
    if layout == 'mmpretrain':
        key = key.replace('patch_embed.proj', 'patch_embed.projection')
        return f'norm{norm[1]}.{norm[2]}' if norm else key
    if layout == 'detectron2':
        key = f'scale{int(norm[1]) + 2}_norm.{norm[2]}' if norm else key
        return f'backbone.bottom_up.{key}'
    if layout == 'timm':
        where = 'attn' if model.stages[0].blocks[-1].mlp.fc2.out_features == 8 else 'mlp'
        key = re.sub(r'(blocks\.\d+\.)proj\.', rf'\1shortcut_proj_{where}.', key)
    return f'norm.{norm[2]}' if norm else key


@pytest.mark.parametrize('in_attention', [True, False])
@pytest.mark.parametrize('layout', ['mvit', 'mmpretrain', 'detectron2', 'timm'])
def test_layouts(layout, in_attention):
    maps = (0, 1, 2, 3) if layout in ('mmpretrain', 'detectron2') else (3,)
    model = MViTv2(ARCH, img_size=64, dim_mul_in_att=in_attention, out_indices=maps)
    own = model.state_dict()
    state = {official(key, layout, model): value for key, value in own.items()}
    assert len(state) == len(own)
    name = 'mvitv2-detectron2' if layout == 'detectron2' else 'mvitv2'
    assert detect(state) == name
    out, prefix = convert(state), 'backbone.' if layout == 'detectron2' else ''
    assert out.keys() == {prefix + key for key in own}
    assert all(out[prefix + key] is own[key] for key in own)
    strange = 'backbone.bottom_up.extra' if prefix else 'extra'
    with pytest.raises(ValueError, match="do not know the key 'extra'"):
        convert(state | {strange: torch.ones(1)})


def test_feature_pyramid_of_detectron2():
    model = MViTv2(ARCH, img_size=64)
    own = model.state_dict()
    state = {official(key, 'detectron2', model): value for key, value in own.items()}
    other = ['fpn_lateral2.weight', 'fpn_output5.bias', 'fpn_output3.norm.weight']
    heads = {'proposal_generator.rpn_head.conv.weight': torch.ones(1)}
    out = convert(state | {f'backbone.{key}': torch.ones(1) for key in other} | heads)
    assert {key for key in out if not key.startswith('backbone.')} == {
        'neck.lateral_convs.0.conv.weight',
        'neck.fpn_convs.3.conv.bias',
        'neck.fpn_convs.1.ln.weight',
        'rpn_head.rpn_conv.weight',
    }
    with pytest.raises(ValueError, match=r"do not know the key 'fpn_lateral2\.scale'"):
        convert(state | {'backbone.fpn_lateral2.scale': torch.ones(1)})


def test_classifier_of_another_size(tmp_path):
    source = MViTv2(ARCH, img_size=64, out_indices=(3,), **CLASSES)
    state = {official(k, 'mvit', source): v for k, v in source.state_dict().items()}
    state |= {'head.projection.weight': torch.ones(5, 64), 'head.projection.bias': torch.ones(5)}
    torch.save(dict(model_state=state), tmp_path / 'mvit.pth')
    dense = MViTv2(ARCH, img_size=128, window_size=16)
    before = dense.stages[1].norm.weight.clone()
    dense.load_pretrained(str(tmp_path / 'mvit.pth'))
    old = source.stages[0].blocks[0].attn.relative.rel_h
    new = dense.stages[0].blocks[0].attn.relative.rel_h
    assert (len(old), len(new)) == (31, 63)
    torch.testing.assert_close(new[31], old[15])  # offset 0 stays offset 0
    torch.testing.assert_close(new[1:-1].mean(0), old.mean(0), rtol=0.2, atol=0.01)
    assert torch.equal(dense.stages[1].norm.weight, before)
    other = MViTv2(ARCH, img_size=64, dim_mul_in_att=False)
    with pytest.raises(ValueError, match='does not fit this MViTv2'):
        other.load_pretrained(str(tmp_path / 'mvit.pth'))


def test_errors():
    with pytest.raises(ValueError, match='img_size must be one number or two, from 32'):
        MViTv2(ARCH, img_size=16)
    with pytest.raises(ValueError, match=r"MViTv2 has no arch 'tinny': did you mean 'tiny'"):
        MViTv2('tinny')
    with pytest.raises(ValueError, match='window must be a positive multiple of the strides'):
        MViTv2(ARCH, window_size=10)
