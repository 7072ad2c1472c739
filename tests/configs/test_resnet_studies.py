"""GCNet and the comparison of attention modules: sizes, and that the study is complete and fair."""

import re

import pytest
from mmengine.config import Config

from .conftest import CONFIGS, load
from .test_zoo import MODELS

STUDY = CONFIGS / 'attention_modules'
MEMBERS = sorted(path.stem for path in (STUDY / 'members').glob('*.py'))
RECIPES = sorted(path.stem for path in (STUDY / 'recipes').glob('*.py'))

# counted on the papers' own code or, for coordinate attention and the self-attention, from formulas
CLASSIFIERS = {
    'resnet50': 25557032, 'resnet50-se': 28088024, 'resnet50-cbam': 28089624,
    'resnet50-bam': 25915099, 'resnet50-eca': 25557112, 'resnet50-triplet': 25561832,
    'resnet50-gc-r16': 28078773, 'resnet50-gc-r4': 35557941, 'resnet50-coord': 27474864,
    'resnet50-aa': 25777392,
}  # fmt: skip
GMACS = {'resnet50-se': 4.092, 'resnet50-cbam': 4.096, 'resnet50-bam': 4.171, 'resnet50': 4.089}
GCNET = {
    'resnet50_8xb32-40e_in1k': 25557032,
    'resnet50-gcb-r16-c3-c5_8xb32-40e_in1k': 28078773,
    'resnet50-gcb-r4-c3-c5_8xb32-40e_in1k': 35557941,
    'mask-rcnn_r50_fpn_1x_coco': 44396336,
    'mask-rcnn_r50-gcb-r16-c3-c5_fpn_1x_coco': 46918077,
    'mask-rcnn_r50-gcb-r4-c3-c5_fpn_1x_coco': 54397245,
    # backbones of 42,500,160, 47,288,222 and 61,461,854 and the same rest
    'mask-rcnn_r101_fpn_1x_coco': 42500160 + 20888304,
    'mask-rcnn_r101-gcb-r16-c3-c5_fpn_1x_coco': 47288222 + 20888304,
    'mask-rcnn_r101-gcb-r4-c3-c5_fpn_1x_coco': 61461854 + 20888304,
}
# as the paper prints them, in 1e6
PRINTED = {'nl-c4': 46.5, 'snl-c4': 45.4, 'gcb-r16-c4': 44.5}


def parameters(name: str) -> int:
    return MODELS[name]['Metadata']['Parameters']


def test_sizes():
    found = {name: parameters(f'{name}_8xb128-100e_in1k') for name in CLASSIFIERS}
    assert found == CLASSIFIERS
    assert {name: parameters(name) for name in GCNET} == GCNET
    for name, millions in PRINTED.items():
        total = parameters(f'mask-rcnn_r50-syncbn-{name}_fpn_1x_coco')
        assert total / 1e6 == pytest.approx(millions, abs=0.06), name
    for name, gmacs in GMACS.items():
        flops = MODELS[f'{name}_8xb128-100e_in1k']['Metadata']['FLOPs']
        assert flops / 1e9 == pytest.approx(gmacs, abs=6e-4), name


def config_file(member: str, recipe: str):
    name = 'resnet50' if member == 'resnet50' else f'resnet50-{member}'
    detector = re.match(r'mask-rcnn|retinanet', recipe)
    stem = f'{detector[0]}_{name}{recipe[detector.end() :]}' if detector else f'{name}_{recipe}'
    return STUDY / f'{stem}.py'


def test_the_study_is_complete():
    assert len(MEMBERS) >= 17
    expected = {config_file(member, recipe) for member in MEMBERS for recipe in RECIPES}
    assert expected == set(STUDY.glob('*.py'))


def without_backbone(cfg: Config) -> dict:
    found = cfg.to_dict()
    found['model'].pop('backbone')
    described = ('backbone', 'paramwise_cfg', 'init_cfg', 'checkpoint')
    return {k: v for k, v in found.items() if k not in described}


@pytest.mark.parametrize('member', MEMBERS)
def test_members_share_the_recipe(member):
    for recipe in RECIPES:
        own, plain = load(config_file(member, recipe)), load(config_file('resnet50', recipe))
        network = Config.fromfile(STUDY / f'members/{member}.py')
        changed = dict(own.model.backbone)
        init = changed.pop('init_cfg', None)
        if recipe.endswith('_in1k'):
            assert init is None
        else:
            name = 'resnet50' if member == 'resnet50' else f'resnet50-{member}'
            assert init == dict(type='Pretrained', checkpoint=f'hybrid_mm://{name}_in1k')
        frame = {k: v for k, v in changed.items() if k not in network.backbone}
        assert frame == Config.fromfile(STUDY / f'recipes/{recipe}.py').model.backbone
        expected = Config(without_backbone(plain))
        if 'paramwise_cfg' in network:  # which of its parameters decay belongs to a network
            decay = dict(paramwise_cfg=network.paramwise_cfg.to_dict())
            expected.merge_from_dict(dict(optim_wrapper=decay))
        assert without_backbone(own) == expected.to_dict()
