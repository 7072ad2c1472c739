"""Configs of HaloNet and BoTNet: names, canvas and weights belong together."""

import re

import pytest

from .conftest import CONFIG_FILES, load, network_of, relative

TREES = [p for p in CONFIG_FILES if p.parent.name in ('halonet', 'botnet')]
COCO = [p for p in TREES if p.stem.endswith('_coco')]


@pytest.mark.parametrize('path', COCO, ids=relative)
def test_canvas_and_jitter(path):
    cfg = load(path)
    low, side = re.search(r'-ms([\d.]+)(?:-(\d{4}))?-\d+e_', path.stem).groups()
    canvas = (int(side or 1024),) * 2
    train = {t['type']: t for t in cfg.train_dataloader.dataset.pipeline}
    assert train['RandomResize'].ratio_range == {'0.8': (0.8, 1.25)}.get(low, (float(low), 2.0))
    assert tuple(train['RandomResize'].scale) == canvas
    assert tuple(train['RandomCrop'].crop_size) == tuple(train['Pad'].size) == canvas
    for loader in (cfg.val_dataloader, cfg.test_dataloader):
        test = {t['type']: t for t in loader.dataset.pipeline}
        assert tuple(test['Resize'].scale) == tuple(test['Pad'].size) == canvas
    if cfg.model.backbone.type == 'hybrid_mm.BoTNet':
        assert tuple(cfg.model.backbone.get('canvas_size', (1024, 1024))) == canvas
    assert not cfg.model.backbone.get('norm_eval', False)
    assert cfg.model.backbone.norm_cfg.type == 'SyncBN'


@pytest.mark.parametrize('path', TREES, ids=relative)
def test_weights_come_from_a_config_of_the_same_network(path):
    cfg = load(path)
    backbone = cfg.model.backbone
    if cfg.default_scope == 'mmpretrain':
        crop = cfg.val_dataloader.dataset.pipeline[2].crop_size
        assert cfg.train_dataloader.dataset.pipeline[1].scale == crop
        assert cfg.test_dataloader.dataset.pipeline[2].crop_size == crop
        assert tuple(backbone.get('canvas_size', (crop, crop))) == (crop, crop)
        return
    if not backbone.type.startswith('hybrid_mm'):
        assert re.search(r'_r(50|101|152)_', path.stem)
        return
    name = re.fullmatch(r'hybrid_mm://(.+)_in1k', backbone.init_cfg.checkpoint)[1]
    (source,) = path.parent.glob(f'{name}_*_in1k.py')
    other = load(source).model.backbone
    for key in ('type', 'arch', 'position', 'content', 'shortcut_act'):
        assert backbone.get(key) == other.get(key), key
    assert name.removesuffix('-s1') == network_of(path)
