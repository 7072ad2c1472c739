"""Configs of human pose on drawn stick figures: training, prediction, evaluation (MMPose)."""

import json
import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from hybrid_mm.apis.predictor import Predictor
from hybrid_mm.errors import UserError
from hybrid_mm.run import launch
from hybrid_mm.run.checks.data import check_data
from hybrid_mm.run.checks.metrics import check_save_best
from hybrid_mm.run.checks.settings import check_settings
from hybrid_mm.run.config import load_config, require_library, task_of
from hybrid_mm.run.tta import set_test_time_augmentation

from .conftest import build
from .loading import CONFIGS

CONFIG = CONFIGS / 'pose/td-hm_van-b2_8xb8-210e_coco-256x192.py'
PAIRS = ('eye', 'ear', 'shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
NAMES = ['nose', *(f'{side}_{part}' for part in PAIRS for side in ('left', 'right'))]
# the left half of a figure in a square: x and y of the nose, then of the left keypoints of a pair
LEFT = [(0.5, 0.1), (0.53, 0.07), (0.57, 0.09), (0.65, 0.25), (0.75, 0.4), (0.8, 0.55), (0.6, 0.55),
        (0.62, 0.75), (0.63, 0.95)]  # fmt: skip
FIGURE = np.array([LEFT[0], *(p for x, y in LEFT[1:] for p in ((x, y), (1 - x, y)))])
BONES = [(15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
         (7, 9), (8, 10), (0, 1), (0, 2), (1, 3), (2, 4)]  # fmt: skip
NETWORK = dict(embed_dims=[8, 16, 24, 32], depths=[1, 1, 1, 1], mlp_ratios=[2, 2, 2, 2])


@pytest.fixture(scope='module')
def figures(tmp_path_factory):
    """Folder in the layout of COCO: four images, each with two persons of 17 keypoints."""
    pytest.importorskip('mmpose', reason='needs mmpose (docs/other_projects.md)')
    root, rng = tmp_path_factory.mktemp('persons'), np.random.default_rng(0)
    (root / 'annotations').mkdir()
    for split in ('train2017', 'val2017'):
        (root / split).mkdir()
        images, people = [], []
        for i in range(4):
            picture = np.full((120, 160, 3), 30 * i, np.uint8)
            for left in (5, 85):
                corner, size = np.array([left, 5]), np.array([60, 100]) + rng.integers(0, 10, 2)
                points = (FIGURE + rng.normal(0, 0.01, FIGURE.shape)) * size + corner
                for a, b in BONES:
                    ends = (tuple(map(round, points[end].tolist())) for end in (a, b))
                    cv2.line(picture, *ends, (200, 220, 15 * a), 3)
                seen = [value for x, y in points.tolist() for value in (x, y, 2)]
                box = [*corner.tolist(), *size.tolist()]
                people.append(
                    dict(id=len(people) + 1, image_id=i, category_id=1, bbox=box, iscrowd=0,
                         area=float(size.prod()), num_keypoints=17, keypoints=seen)
                )  # fmt: skip
            cv2.imwrite(str(root / split / f'{i}.png'), picture)
            images.append(dict(id=i, file_name=f'{i}.png', height=120, width=160))
        person = dict(id=1, name='person', keypoints=NAMES, skeleton=(np.add(BONES, 1)).tolist())
        (root / f'annotations/person_keypoints_{split}.json').write_text(
            json.dumps(dict(images=images, annotations=people, categories=[person]))
        )
    return root


@pytest.fixture
def cfg(figures, monkeypatch, tmp_path) -> Config:
    """The config with a network of 0.1 M parameters, for 8 persons."""
    monkeypatch.setenv('COCO_ROOT', str(figures))
    options = {
        'model.backbone.drop_path_rate': 0.0,
        'model.backbone.layer_scale': 1.0,
        'model.backbone.init_cfg': None,
        'model.head.in_channels': 32,
        'optim_wrapper.optimizer.lr': 0.003,
        'param_scheduler.0.start_factor': 1.0,
        'train_cfg.max_epochs': 40,
        'train_cfg.val_interval': 40,
        'param_scheduler.1.end': 40,
        'param_scheduler.1.milestones': [30],
        'default_hooks.checkpoint.interval': 40,
        'default_hooks.logger.interval': 1,
        'log_processor.window_size': 1,
        'randomness.seed': 0,
    }
    for part in ('train', 'val', 'test'):
        options[f'{part}_dataloader.num_workers'] = 0
        options[f'{part}_dataloader.persistent_workers'] = False
    for part in ('val', 'test'):
        options[f'{part}_dataloader.dataset.bbox_file'] = None
    cfg = load_config(str(CONFIG), options)
    cfg.model.backbone.arch = NETWORK
    cfg.model.head.deconv_out_channels = (16, 16, 16)
    steps = cfg.train_dataloader.dataset.pipeline
    steps[:] = [step for step in steps if not step.type.startswith('Random')]
    cfg.work_dir = str(tmp_path)
    return cfg


def test_training_prediction_and_evaluation(cfg, tmp_path):
    check_settings(cfg)
    check_save_best(cfg)
    runner = launch.training_runner(cfg)
    runner.train()
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [line['loss'] for line in lines if 'loss' in line]
    assert len(losses) == 40
    assert losses[-1] < 0.8 * losses[0]
    assert 0 <= lines[-1]['coco/AP'] <= 1

    metrics = launch.testing_runner(cfg, str(tmp_path / 'epoch_40.pth')).test()
    assert {'coco/AP', 'coco/AP .5', 'coco/AR', 'coco/AR (L)'} <= set(metrics)
    with torch.no_grad():
        samples = runner.model.eval().test_step(next(iter(runner.val_dataloader)))
    assert len(samples) == 8
    for sample in samples:
        points = sample.pred_instances.keypoints
        assert points.shape == (1, 17, 2)
        assert (points > -60).all() and (points < 220).all()  # in or near the image
        assert sample.pred_instances.keypoint_scores.shape == (1, 17)


def test_a_missing_file_of_boxes_is_named(cfg):
    path = 'boxes/of_a_detector.json'
    cfg.val_dataloader.dataset.bbox_file = path
    with pytest.raises(UserError, match=rf'val_dataloader: {path} does not exist'):
        check_data(cfg, 'val_dataloader')


def test_a_metric_of_detectors_is_no_best_pose(cfg):
    cfg.default_hooks.checkpoint.save_best = 'coco/bbox_mAP'
    with pytest.raises(UserError, match=r"'coco/bbox_mAP'.* is not one of the metrics"):
        check_save_best(cfg)


@pytest.mark.parametrize('path', sorted(CONFIG.parent.glob('*.py')), ids=lambda path: path.stem)
def test_codec_is_that_of_the_name(path):
    """Needs no MMPose: input, heatmaps and pipelines agree with the name of a config."""
    cfg = load_config(str(path))
    assert task_of(cfg) == 'pose'
    height, width = map(int, re.search(r'coco-(\d+)x(\d+)', path.stem).groups())
    codec = cfg.model.head.decoder
    assert tuple(codec.input_size) == (width, height)
    assert tuple(codec.heatmap_size) == (width // 4, height // 4)
    assert codec.sigma == height // 128
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        steps = {step.type: step for step in loader.dataset.pipeline}
        assert tuple(steps['TopdownAffine'].input_size) == (width, height)
        assert steps.get('GenerateTarget', dict(encoder=codec))['encoder'] == codec


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr('hybrid_mm.run.config.find_spec', lambda name: None)
    cfg = load_config(str(CONFIG))
    with pytest.raises(UserError, match=r'mmpose is not installed.*other_projects\.md'):
        require_library(cfg)
    cfg.default_scope = 'mmdet'
    with pytest.raises(UserError, match=r'mmdet is not installed.*installation\.md'):
        require_library(cfg)


def test_what_needs_boxes_of_persons_says_so(tmp_path):
    with pytest.raises(UserError, match=r'within boxes of persons.*MMPoseInferencer'):
        Predictor(CONFIG, tmp_path / 'none.pth')
    with pytest.raises(UserError, match=r'--tta: .*flip_test'):
        set_test_time_augmentation(load_config(str(CONFIG)))


def test_a_config_of_mmpose_takes_a_network_by_its_name(tmp_path):
    """As docs/other_projects.md has it: without an import of this package."""
    pytest.importorskip('mmpose', reason='needs mmpose (docs/other_projects.md)')
    base = 'body_2d_keypoint/topdown_heatmap/coco/td-hm_res50_8xb64-210e_coco-256x192.py'
    (tmp_path / 'own.py').write_text(
        f"_base_ = 'mmpose::{base}'\n"
        "model = dict(backbone=dict(_delete_=True, type='hybrid_mm.NAT', arch='mini', "
        'out_indices=(3,)), head=dict(in_channels=512))\n'
    )
    cfg = load_config(str(tmp_path / 'own.py'))
    assert task_of(cfg) == 'pose'
    model = build(cfg).eval()
    assert type(model.backbone).__name__ == 'NAT'
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 64, 64), None).shape == (1, 17, 16, 16)
