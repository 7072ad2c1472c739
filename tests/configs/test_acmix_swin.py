"""Configs of Swin with ACmix: sizes, recipes, and where their weights come from."""

import re

import pytest

from .conftest import CONFIG_FILES, build, load, optimizer, reduced, relative
from .test_zoo import MODELS

SWIN = [p for p in CONFIG_FILES if p.parent.name == 'acmix' and 'swin' in p.stem]
DENSE = [p for p in SWIN if not p.stem.endswith('_in1k')]
# counted on the authors' code, with the stock heads
PARAMETERS = {
    'mask-rcnn_swin-{}-acmix_fpn_ms-crop-3x_coco': (48156156, 69851328),
    'cascade-mask-rcnn_swin-{}-acmix_fpn_4conv1fc-giou_ms-crop-3x_coco': (85991358, 107686530),
    'swin-{}-acmix_upernet_8xb2-160k_ade20k-512x512': (60303416, 81998588),
    'swin-{}-acmix_8xb128-300e_in1k': (28649908, 50345080),
}


@pytest.mark.parametrize('name', PARAMETERS)
def test_sizes(name):
    found = tuple(MODELS[name.format(size)]['Metadata']['Parameters'] for size in 'ts')
    assert found == PARAMETERS[name]


@pytest.mark.parametrize('path', SWIN, ids=relative)
def test_variant_weights_and_drop_path(path):
    cfg, size = load(path), re.search('swin-([ts])-', path.stem)[1]
    backbone = cfg.model.backbone
    assert backbone.arch == {'t': 'tiny', 's': 'small'}[size]
    if cfg.default_scope == 'mmpretrain':
        assert backbone.drop_path_rate == {'t': 0.2, 's': 0.3}[size]
        assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
        resize = cfg.val_dataloader.dataset.pipeline[1]
        assert (resize.type, resize.scale) == ('ResizeEdge', 256)
        return
    rates = {'mmseg': 0.3, 'mmdet': 0.1 if '-1x_' in path.stem else 0.2}
    assert backbone.drop_path_rate == rates[cfg.default_scope]
    assert backbone.init_cfg.checkpoint == f'hybrid_mm://swin-{size}-acmix_in1k'


@pytest.mark.parametrize('path', [p for p in SWIN if 'swin-t' in p.stem], ids=relative)
def test_what_decays(path):
    """No norm, table of relative positions or rate; no vector at all in pre-training."""
    cfg = reduced(path)
    model = build(cfg)
    groups = optimizer(cfg, model).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    full = 0.01 if cfg.default_scope == 'mmseg' else 0.05
    spared, seen = re.compile(r'norm|\.relative_bias$|\.attn\.rate[12]$'), set()
    for name, p in model.named_parameters():
        match = spared.search(name)
        vector = cfg.default_scope == 'mmpretrain' and p.ndim == 1
        assert decay[id(p)] == (0.0 if match or vector else full), name
        seen.add(match and match[0])
    assert {None, '.relative_bias', '.attn.rate1', '.attn.rate2'} <= seen
