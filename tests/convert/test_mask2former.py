"""Mask2Former: MMDetection's head with the authors' weights computes the same numbers.

``tools/dev/peer_heads.py`` writes the case with the authors' own modules.
"""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from hybrid_mm.backbones import DiNAT
from hybrid_mm.convert import convert, detect

ADE20KPanopticDataset = pytest.importorskip('mmdet.datasets').ADE20KPanopticDataset
ADE20KDataset = pytest.importorskip('mmseg.datasets').ADE20KDataset

CASE = 'mask2former', 'mask2former_r50_instance'
SIZES = (8, 24, 16), (16, 12, 8), (24, 6, 4), (32, 3, 2)
CLASSES = 'sem_seg_head.predictor.class_embed'


def build(configs):
    """The head of a base config, narrow."""
    head = Config.fromfile(configs / f'_base_/models/{CASE[1]}.py').model.panoptic_head
    head.update(in_channels=[size[0] for size in SIZES], num_queries=7, num_things_classes=5)
    head.update(feat_channels=64, out_channels=64)
    head.loss_cls.class_weight = [1.0] * 6
    for part in (head, head.pixel_decoder):
        part.positional_encoding.num_feats = 32
    for coder, layers in ((head.pixel_decoder.encoder, 2), (head.transformer_decoder, 4)):
        coder.num_layers = layers
        for part in coder.layer_cfg.values():
            part.embed_dims = 64
        coder.layer_cfg.ffn_cfg.feedforward_channels = 16
    with DefaultScope.overwrite_default_scope('mmdet'):
        return MODELS.build(head).eval()


def test_numbers(heads, pytestconfig):
    state = heads.state(*CASE)
    assert detect(state) == 'mask2former'
    head = build(pytestconfig.rootpath / 'configs')
    out = convert(state)
    head.load_state_dict({k.removeprefix('panoptic_head.'): v for k, v in out.items()}, strict=True)
    maps = [heads.drawn(f'res{i}', (2, *size)) for i, size in enumerate(SIZES, 2)]
    with torch.no_grad():
        features, _ = head.pixel_decoder(maps)
        logits, masks = head(maps, [None, None])
    heads.check([features, logits[-1], masks[-1]], heads.case(*CASE)['outputs'])


def network():
    """Official weights of a small DiNAT."""
    torch.manual_seed(0)
    arch = dict(embed_dim=8, depths=[1, 1], heads=[1, 2], mlp_ratio=2, layer_scale=None)
    model = DiNAT(arch, kernel_size=3, dilations=[[1], [1]], out_indices=(0, 1))
    names = {
        'stages.0.embed.conv1.': 'patch_embed.proj.0.',
        'stages.0.embed.conv2.': 'patch_embed.proj.1.',
        'stages.0.embed.norm.': 'patch_embed.norm.',
        'stages.1.downsample.conv.': 'levels.0.downsample.reduction.',
        'stages.1.downsample.norm.': 'levels.0.downsample.norm.',
        'stages.0.norm.': 'norm0.',
        'stages.1.norm.': 'norm1.',
        'stages.': 'levels.',
    }
    state = {}
    for key, value in model.state_dict().items():
        start = next(start for start in names if key.startswith(start))
        name = names[start] + key.removeprefix(start).replace('relative_bias', 'rpb')
        state[f'backbone.{name}'] = value
    return model, state


def test_its_network_is_converted(heads):
    model, state = network()
    out = convert(state | heads.state(*CASE))
    inner = {k.removeprefix('backbone.'): v for k, v in out.items() if k.startswith('backbone.')}
    assert inner.keys() == model.state_dict().keys()
    own = model.state_dict()
    assert all(torch.equal(inner[key], own[key]) for key in own)
    assert detect(out) is None


@pytest.mark.parametrize(
    ('classes', 'source', 'head'),
    [
        (80, None, 'panoptic_head'),
        (133, None, 'panoptic_head'),
        (150, None, 'decode_head'),
        (19, None, 'decode_head'),
        (65, 'mask2former-semantic', 'decode_head'),
        (150, 'mask2former-ade20k-panoptic', 'panoptic_head'),
    ],
)
def test_whose_head_it_is(heads, classes, source, head):
    state = heads.state(*CASE)
    state[f'{CLASSES}.weight'] = torch.rand(classes + 1, 64)
    state[f'{CLASSES}.bias'] = torch.rand(classes + 1)
    out = convert(state, source)
    assert {key.partition('.')[0] for key in out} == {head}
    assert len(out) == len(state) - 1  # without the weights of the loss


def test_classes_of_ade20k_are_those_of_the_datasets(heads):
    """Things and stuff are mixed in ADE20K and in the file; MMDetection has the things first."""
    state = heads.state(*CASE)
    state[f'{CLASSES}.bias'] = torch.arange(151.0)
    state[f'{CLASSES}.weight'] = torch.arange(151.0)[:, None].expand(-1, 64)
    out = convert(state, 'mask2former-ade20k-panoptic')
    order = out['panoptic_head.cls_embed.bias'].int().tolist()
    assert out['panoptic_head.cls_embed.weight'][:, 5].int().tolist() == order
    assert sorted(order) == list(range(151))
    assert order[150] == 150
    old, new = ADE20KDataset.METAINFO['classes'], ADE20KPanopticDataset.METAINFO['classes']
    # many are called otherwise in the two, but none that both have is another class
    both = set(old) & set(new)
    assert len(both) > 75
    assert all(old[i] == new[j] for j, i in enumerate(order[:150]) if {old[i], new[j]} & both)
    things = len(ADE20KPanopticDataset.METAINFO['thing_classes'])
    assert order[:things] == sorted(order[:things])
    assert order[things:] == sorted(order[things:])
    with pytest.raises(ValueError, match=r'has 6 rows; expected 151, 150 classes and "no object"'):
        convert(heads.state(*CASE), 'mask2former-ade20k-panoptic')


def test_layers_of_the_pyramid_come_from_coarse_to_fine(heads):
    """The authors count them from fine to coarse, but use them from coarse to fine."""
    state = heads.state(*CASE)
    for kind in ('adapter', 'layer'):
        state[f'sem_seg_head.pixel_decoder.{kind}_2.weight'] = torch.rand(1)
    out = convert(state)
    for theirs, ours in (('adapter', 'lateral_convs'), ('layer', 'output_convs')):
        for number, place in ((2, 0), (1, 1)):
            value = out[f'panoptic_head.pixel_decoder.{ours}.{place}.conv.weight']
            assert value is state[f'sem_seg_head.pixel_decoder.{theirs}_{number}.weight']


@pytest.mark.parametrize(
    'key',
    [
        'sem_seg_head.pixel_decoder.layer_1.norm.x',
        'sem_seg_head.predictor.mask_embed.layers.3.weight',
        'sem_seg_head.predictor.transformer_ffn_layers.0.linear3.weight',
        'roi_heads.x',
    ],
)
def test_strangers_are_named(key, heads):
    with pytest.raises(ValueError, match=f"mask2former: do not know the key '{key}' "):
        convert(heads.state(*CASE) | {key: torch.ones(2)})
