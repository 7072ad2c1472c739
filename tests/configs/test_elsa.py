"""Configs of ELSA-Swin: sizes, drop-path rates, what decays, where their weights come from."""

import re

import pytest

from .conftest import CONFIG_FILES, build, load, optimizer, reduced, relative
from .test_zoo import MODELS

ELSA = [p for p in CONFIG_FILES if p.parent.name == 'elsa']
# counted on the authors' backbones and classifiers, with the stock heads
PARAMETERS = {
    'mask-rcnn_elsa-swin-{}_fpn_ms-crop-{}_coco': (48_647_226, 72_380_874),
    'cascade-mask-rcnn_elsa-swin-{}_fpn_4conv1fc-giou_ms-crop-{}_coco': (86_482_428, 110_216_076),
    'elsa-swin-{}_upernet_8xb2-160k_ade20k-512x512': (60_794_486, 84_528_134),
    'elsa-swin-{}_8xb128_in1k': (29_140_978, 52_874_626, 92_682_464),
}
DROP_PATH = {
    'mask-rcnn 1x': (0.1, 0.2),
    'mask-rcnn 3x': (0.2, 0.75),
    'cascade-mask-rcnn 1x': (0.0, 0.2),
    'cascade-mask-rcnn 3x': (0.2, 0.75),
    'ade20k': (0.3, 0.3),
    'in1k': (0.1, 0.3, 0.5),
}


@pytest.mark.parametrize('name', PARAMETERS)
def test_sizes(name):
    for schedule in ('1x', '3x'):
        for size, expected in zip('tsb', PARAMETERS[name], strict=False):
            found = MODELS[name.format(size, schedule)]['Metadata']['Parameters']
            assert found == expected


@pytest.mark.parametrize('path', ELSA, ids=relative)
def test_variant_weights_and_drop_path(path):
    cfg, size = load(path), re.search('swin-([tsb])_', path.stem)[1]
    backbone = cfg.model.backbone
    assert backbone.arch == {'t': 'tiny', 's': 'small', 'b': 'base'}[size]
    match = re.match(r'(.+)_elsa.*-([13]x)_coco', path.stem)
    key = ' '.join(match.groups()) if match else re.search('ade20k|in1k', path.stem)[0]
    assert backbone.drop_path_rate == DROP_PATH[key]['tsb'.index(size)]
    if key == 'in1k':
        assert backbone.always_shift is False
        assert cfg.val_dataloader.dataset.pipeline[1].scale == 248
        assert ('EMAHook' in str(cfg.get('custom_hooks'))) == (size == 'b')
        return
    assert backbone.init_cfg.checkpoint == f'hybrid_mm://elsa-swin-{size}_in1k'
    assert cfg.param_scheduler[0].end == (1500 if key == 'ade20k' else 500)


@pytest.mark.parametrize('path', [p for p in ELSA if 'swin-t' in p.stem], ids=relative)
def test_what_decays(path):
    """All but norms, in pre-training all but vectors: ghost heads and tables do, as published."""
    cfg = reduced(path)
    model = build(cfg)
    groups = optimizer(cfg, model).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    full = 0.01 if cfg.default_scope == 'mmseg' else 0.05
    for name, p in model.named_parameters():
        spared = 'norm' in name or (cfg.default_scope == 'mmpretrain' and p.ndim == 1)
        assert decay[id(p)] == (0.0 if spared else full), name
