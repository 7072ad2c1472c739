"""Configs of MMRotate on drawn data: rotated rectangles, annotated as in DOTA."""

import importlib.util
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, METRICS

from hybrid_mm.apis import Predictor
from hybrid_mm.errors import UserError
from hybrid_mm.run.checks.maps import check_maps
from hybrid_mm.run.config import load_config

from .conftest import CONFIG_FILES, as_parameter, build, narrow, optimizer, reduced, scope, shallow

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec('mmrotate') is None, reason='needs mmrotate (docs/other_projects.md)'
)
FILES = [path for path in CONFIG_FILES if path.parent.name == 'rotated']
SIDE = 128
COLOURS = dict(plane=(40, 60, 230), ship=(230, 200, 40))


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """Two images, each with a plane and a ship, as parts for training and validation."""
    folder, rng = tmp_path_factory.mktemp('dota'), np.random.default_rng(0)
    for split in ('train', 'val'):
        for name in ('images', 'annfiles'):
            (folder / split / name).mkdir(parents=True)
        for i in range(2):
            image, lines = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8), []
            for kind, centre in (('plane', 36), ('ship', 92)):
                box = ((centre, centre), (56.0, 20.0), rng.uniform(-80, 80))
                corners = cv2.boxPoints(box)
                cv2.fillPoly(image, [corners.astype(np.int32)], COLOURS[kind])
                lines.append(' '.join(f'{v:.1f}' for v in corners.ravel()) + f' {kind} 0')
            cv2.imwrite(str(folder / f'{split}/images/{i}.png'), image)
            (folder / f'{split}/annfiles/{i}.txt').write_text('\n'.join(lines))
    return folder


@pytest.fixture
def small(root, monkeypatch):
    """Gives a config for the drawn images, with narrow heads and two blocks per stage."""
    monkeypatch.setenv('DOTA_ROOT', str(root))

    def make(path):
        cfg = reduced(path)
        narrow(cfg.model)
        shallow(cfg)
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            for step in loader.dataset.pipeline:
                if 'scale' in step:
                    step.scale = (SIDE, SIDE)
        return cfg

    return make


@pytest.mark.parametrize('path', [as_parameter(path) for path in FILES])
def test_training_prediction_and_evaluation(path, small, tmp_path, monkeypatch):
    from mmrotate.evaluation.functional import mean_ap

    # one process for each class, which all import torch
    monkeypatch.setattr(mean_ap, 'get_context', lambda kind: SimpleNamespace(Pool=ThreadPool))
    cfg = small(path)
    model = build(cfg)
    wrapper = optimizer(cfg, model)
    with scope(cfg):
        train, val = (DATASETS.build(cfg[f'{n}_dataloader'].dataset) for n in ('train', 'val'))
        metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = val.metainfo
    assert train[0]['data_samples'].gt_instances.bboxes.tensor.shape == (2, 5)
    batch = pseudo_collate([val[0], val[1]])
    losses = [float(model.train().train_step(batch, wrapper)['loss']) for _ in range(6)]
    assert min(losses[-2:]) < 0.8 * losses[0], losses

    model.eval()
    with torch.no_grad():
        found = model.test_step(batch)
    assert all(sample.pred_instances.bboxes.shape[1] == 5 for sample in found)
    metric.process(batch, [sample.to_dict() for sample in found])
    assert 0 <= metric.evaluate(2)['dota/mAP'] <= 1

    file = tmp_path / 'model.pth'
    torch.save(dict(state_dict=model.state_dict()), file)
    predictor = Predictor(cfg, str(file), device='cpu')
    (prediction,) = predictor(val.get_data_info(0)['img_path'])
    n = len(prediction)
    assert n and prediction.boxes.shape == (n, 5) and prediction.corners().shape == (n, 4, 2)
    assert np.allclose(prediction.boxes, found[0].pred_instances.bboxes.numpy(), atol=1e-3)
    assert prediction.classes[:1] == ('plane',)
    assert predictor.draw(prediction).shape == (SIDE, SIDE, 3)


def test_maps_are_checked(small):
    cfg = small(FILES[-1])
    model = build(cfg)
    check_maps(SimpleNamespace(model=model, cfg=cfg))
    extractor = cfg.model.roi_head.bbox_roi_extractor
    extractor.featmap_strides = [8, 16, 32, 64]
    wrong = SimpleNamespace(model=build(cfg), cfg=cfg)
    with pytest.raises(UserError, match=r'bbox_roi_extractor\.featmap_strides is .*gives the str'):
        check_maps(wrong)
    cfg.model.neck.in_channels = [1, 2, 3, 4]
    wrong = SimpleNamespace(model=build(cfg), cfg=cfg)
    with pytest.raises(UserError, match=r'model\.neck\.in_channels is'):
        check_maps(wrong)


def test_base_of_mmrotate(tmp_path):
    """As in a config that somebody already has."""
    file = tmp_path / 'mine.py'
    file.write_text(
        "_base_ = 'mmrotate::oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py'\n"
        "model = dict(backbone=dict(_delete_=True, type='hybrid_mm.VAN', arch='b0'),\n"
        '             neck=dict(in_channels=[32, 64, 160, 256]))\n'
    )
    cfg = load_config(str(file))
    assert type(build(cfg).backbone).__name__ == 'VAN'
