"""Settings that MMEngine would refuse late, obscurely, or not at all."""

import pytest
from mmengine.config import Config

from hybrid_mm.errors import UserError
from hybrid_mm.run.checks import settings


def test_numbers_that_must_be_positive(det_config):
    for path, bad in (
        ('train_cfg.max_iters', 0),
        ('train_cfg.max_epochs', -1),
        ('train_cfg.val_interval', 0.5),
        ('train_dataloader.batch_size', 0),
        ('val_dataloader.batch_size', 0),
        ('val_dataloader.batch_size', 'two'),
        ('train_dataloader.batch_size', True),
    ):
        cfg = Config.fromfile(det_config)
        settings.check_settings(cfg)
        cfg.merge_from_dict({path: 1})
        settings.check_settings(cfg)
        cfg.merge_from_dict({path: bad})
        with pytest.raises(UserError, match=f'^{path} must be a positive number, got {bad!r}$'):
            settings.check_settings(cfg)


def test_floors_of_schedules_that_exclude_each_other(det_config):
    cfg = Config.fromfile(det_config)
    cfg.param_scheduler = [dict(type='CosineAnnealingLR', eta_min=0.0, eta_min_ratio=None)]
    settings.check_settings(cfg)
    cfg.param_scheduler[0].eta_min_ratio = 0.1
    with pytest.raises(
        UserError, match=r'scheduler\.0 has eta_min=0\.0 and eta_min_ratio=0\.1; set'
    ):
        settings.check_settings(cfg)


TYPES = {
    'model': 'MaskRCNNN', 'model.backbone': 'NAT', 'model.neck': 'FNP',
    'model.roi_head.bbox_head': 'Shared2FCHead', 'train_dataloader.dataset': 'CoocDataset',
    'train_dataloader.dataset.pipeline.0': 'LoadImage', 'train_dataloader.sampler': 'Sampler',
    'val_dataloader.dataset.dataset': 'CoocDataset', 'val_evaluator': 'CocoMetrik',
}  # fmt: skip


@pytest.mark.parametrize('path', TYPES)
def test_types_are_checked_before_any_file(det_config, path):
    cfg = Config.fromfile(det_config)
    cfg.merge_from_dict({'train_dataloader.dataset.data_root': '/nowhere/'})
    cfg.val_dataloader.dataset = dict(
        type='RepeatDataset', times=1, dataset=cfg.val_dataloader.dataset
    )
    settings.check_settings(cfg)
    cfg.merge_from_dict({f'{path}.type': TYPES[path]})
    with pytest.raises(UserError) as caught:
        settings.check_settings(cfg)
    assert str(caught.value).startswith(f'{path}.type {TYPES[path]!r} is not a registered ')


def test_types_of_evaluators_with_metrics_and_of_other_scopes(det_config):
    cfg = Config.fromfile(det_config)
    metric = dict(type='CocoMetric')
    cfg.val_evaluator = dict(type='Evaluator', metrics=[metric])
    cfg.model.backbone = dict(
        _scope_='mmpretrain', type='VGG', neck=dict(type='GeneralizedMeanPooling')
    )
    settings.check_settings(cfg)
    cfg.val_evaluator.metrics[0].type = 'Kokometrik'
    with pytest.raises(UserError, match=r'^val_evaluator\.metrics\.0\.type'):
        settings.check_settings(cfg)


def test_padding_with_a_label_that_is_not_ignored(seg_config, capsys):
    cfg = Config.fromfile(seg_config)
    cfg.model.data_preprocessor = dict(type='SegDataPreProcessor', size=(64, 64))
    cfg.model.decode_head.ignore_index = 11
    settings.check_settings(cfg)
    assert 'model.data_preprocessor.seg_pad_val=11' in capsys.readouterr().err
    cfg.model.data_preprocessor.seg_pad_val = 11
    settings.check_settings(cfg)
    assert not capsys.readouterr().err
