"""Where images are corrupted, and summaries with figures by hand."""

import math

import pytest
import torch
from mmengine.config import Config

from hybrid_mm.analysis import corruption_study
from hybrid_mm.analysis.corruption_study import (
    conditions,
    fill_missing,
    insert_transform,
    main_metric,
    mean_over_severities,
    numbers,
    plain_pipeline,
    summarise,
)
from hybrid_mm.data.corruptions import BENCHMARK, CORRUPTIONS
from hybrid_mm.evaluation.robustness import ALEXNET_ERROR


def config(scope: str, *types: str) -> Config:
    pipeline = [dict(type=name) for name in types]
    dataset = dict(type='RepeatDataset', dataset=dict(type='X', pipeline=pipeline))
    return Config(dict(default_scope=scope, test_dataloader=dict(dataset=dataset)))


CROPPED = ('LoadImageFromFile', 'ResizeEdge', 'CenterCrop', 'PackInputs')


@pytest.mark.parametrize(
    ('scope', 'types', 'at'),
    [
        ('mmdet', ('LoadImageFromFile', 'Resize', 'LoadAnnotations', 'PackDetInputs'), 1),
        ('mmseg', ('LoadImageFromFile', 'Resize', 'LoadAnnotations', 'PackSegInputs'), 1),
        ('mmpretrain', CROPPED, 3),  # as ImageNet-C: of the cropped image
    ],
)
def test_place_of_the_corruption(scope, types, at):
    cfg = config(scope, *types)
    insert_transform(cfg, to_rgb=True, seed=5)
    steps = cfg.test_dataloader.dataset.dataset.pipeline
    assert [step.type for step in steps] == [*types[:at], 'hybrid_mm.Corrupt', *types[at:]]
    expected = dict(
        type='hybrid_mm.Corrupt', corruption='gaussian_noise', severity=0, to_rgb=True, seed=5
    )
    assert steps[at].to_dict() == expected


def test_published_images_are_neither_corrupted_nor_cropped_again():
    cfg = config('mmpretrain', *CROPPED)
    insert_transform(cfg, False, 0)
    for resize, expected in ((True, CROPPED), (False, ('LoadImageFromFile', 'PackInputs'))):
        assert tuple(step.type for step in plain_pipeline(cfg, resize)) == expected


def test_numbers_of_a_metric():
    found = numbers(
        {
            'coco/bbox_mAP': 0.0,
            'coco/bbox_mAP_s': -1.0,
            'mIoU': torch.tensor(2.5),
            'x': math.nan,
            'y': 'text',
            'z': True,
            'coco/time': 3.0,
            'data_time': 1.0,
            'top1': 7,
        }
    )
    expected = {'coco/bbox_mAP': 0.0, 'coco/bbox_mAP_s': None, 'mIoU': 2.5, 'x': None, 'top1': 7.0}
    assert found == expected
    filled = fill_missing({'a': 1.0}, {'a': 3.0, 'b': 2.0, 'c': None})
    assert filled == {'a': 1.0, 'b': 0.0, 'c': None}


def test_main_metric_and_means():
    for names, expected in (
        (('coco/segm_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP'), 'coco/bbox_mAP'),
        (('aAcc', 'mIoU', 'mAcc'), 'mIoU'),
        (('accuracy/top5', 'accuracy/top1'), 'accuracy/top1'),
        (('PQ', 'SQ'), 'PQ'),
    ):
        assert main_metric({'clean': {'0': dict.fromkeys(names, 1.0)}}) == expected
    results = {'fog': {'1': {'m': 30.0}, '3': {'m': 20.0}, '5': {'m': None}}}
    assert corruption_study.severities(results, 'fog', 'm') == [30.0, None, 20.0, None, None]
    assert mean_over_severities(results, 'fog', 'm') == 25.0  # of the two that are known
    assert mean_over_severities(results, 'snow', 'm') is None
    assert conditions(['fog', 'snow'], [5, 0, 2]) == [
        ('clean', 0),
        ('fog', 2),
        ('fog', 5),
        ('snow', 2),
        ('snow', 5),
    ]


def study(names, value, metric='accuracy/top1', clean=80.0):
    found = {'clean': {'0': {metric: clean}}}
    for name in names:
        found[name] = {str(s): {metric: value(name, s)} for s in range(1, 6)}
    return found


def test_summary_of_a_classifier():
    """As good as AlexNet on every corruption: mCE is 100; of 80 % clean half is left."""
    results = study(CORRUPTIONS, lambda name, s: 100 - ALEXNET_ERROR[name])
    (row,) = summarise(results).values()
    assert row['mCE(15)'] == row['mCE(19)'] == pytest.approx(100)
    left = sum(100 - ALEXNET_ERROR[name] for name in BENCHMARK) / 15
    assert row['mPC(15)'] == pytest.approx(left)
    assert row['rPC(15)'] == pytest.approx(100 * left / 80)
    assert 'mCE(19)' not in summarise(study(BENCHMARK, lambda name, s: 50.0))['accuracy/top1']


def test_summary_of_a_part_says_so():
    results = study(['fog', 'snow'], lambda name, s: 40.0 - 4 * s + (name == 'fog'), 'mIoU', 50.0)
    del results['snow']['5']
    # fog 37, 33, 29, 25, 21; snow 36, 32, 28, 24
    row = summarise(results)['mIoU']
    assert row['clean'] == 50.0
    name = '(9 of 75, not comparable)'
    assert row[f'mPC{name}'] == pytest.approx(265 / 9)
    assert row[f'rPC{name}'] == pytest.approx(2 * 265 / 9)
    assert summarise({}) == {}
    assert summarise({'clean': {'0': {'mIoU': 3.0}}}) == {'mIoU': {'clean': 3.0}}
