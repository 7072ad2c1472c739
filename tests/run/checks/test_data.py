"""Data and classes before a run: the borders of each check."""

import pytest
from mmengine.config import Config

from hybrid_mm.errors import UserError
from hybrid_mm.run.checks import data


def segmentation(root):
    """A config of a data set of three classes."""
    dataset = dict(
        type='BaseSegDataset', data_root=str(root), metainfo=dict(classes=('a', 'b', 'c'))
    )
    loader = dict(dataset=dataset)
    return Config(dict(default_scope='mmseg', model=dict(), train_dataloader=loader))


def test_numbers_of_classes_in_all_heads(tmp_path):
    cfg = segmentation(tmp_path)
    cfg.model = dict(
        rpn_head=dict(num_classes=1),  # objects or not
        backbone=dict(num_classes=1000),
        roi_head=dict(bbox_head=[dict(num_classes=3), dict(num_classes=3)]),
        auxiliary_head=dict(num_classes=3),
    )
    data.check_data(cfg, 'train_dataloader')
    cfg.model.roi_head.bbox_head[1].num_classes = 4
    cfg.model.auxiliary_head.num_classes = 2
    with pytest.raises(UserError) as caught:
        data.check_data(cfg, 'train_dataloader')
    text = str(caught.value)
    assert text.startswith('model.roi_head.bbox_head.1.num_classes is 4, but the data set of train')
    options = 'model.roi_head.bbox_head.1.num_classes=3 model.auxiliary_head.num_classes=3'
    assert text.endswith(f'use --cfg-options {options}')


def test_packages_that_read_panoptic_labels(tmp_path, monkeypatch):
    cfg = segmentation(tmp_path)
    found = []
    monkeypatch.setattr(data, 'find_spec', lambda name: found.append(name) or None)
    data.check_data(cfg, 'train_dataloader')
    assert not found
    cfg.train_dataloader.dataset.pipeline = [dict(type='mmdet.LoadPanopticAnnotations')]
    with pytest.raises(UserError, match=r'^train_dataloader: LoadPanopticAnnotations needs .*pip'):
        data.check_data(cfg, 'train_dataloader')
    cfg.val_dataloader = dict(dataset=dict(type='BaseSegDataset'))
    cfg.val_evaluator = [dict(type='CocoPanopticMetric')]
    with pytest.raises(UserError, match='CocoPanopticMetric needs the package panopticapi'):
        data.check_data(cfg, 'val_dataloader')
    monkeypatch.setattr(data, 'find_spec', lambda name: object())
    data._check_packages(cfg, 'train_dataloader')


def test_options_for_another_data_root(tmp_path):
    inner = dict(type='CocoDataset', data_root='no/coco/', ann_file='a/train.json')
    wrapped = dict(type='RepeatDataset', times=2, dataset=inner)
    seeded = dict(type='hybrid_mm.SeededDataset', dataset=wrapped)
    other = dict(inner, data_root='no/', ann_file='coco/a/val.json')
    joined = dict(type='ConcatDataset', datasets=[other, dict(inner, ann_file='a/val.json')])
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(),
            train_dataloader=dict(dataset=seeded),
            val_dataloader=dict(dataset=joined),
            test_dataloader=dict(dataset=other),
            val_evaluator=[dict(type='X'), dict(type='CocoMetric', ann_file='no/coco/a/val.json')],
            test_evaluator=dict(type='CocoMetric', ann_file='no/coco/a/val.json'),
        )
    )
    with pytest.raises(UserError) as caught:
        data.check_data(cfg, 'train_dataloader')
    assert str(caught.value).endswith(
        '--cfg-options train_dataloader.dataset.dataset.data_root=DIR '
        'val_dataloader.dataset.datasets.1.data_root=DIR val_evaluator.1.ann_file=DIR/a/val.json'
    )


def test_files_that_are_there_in_place_of_those_expected(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'mine.json').touch()
    prefix = dict(img='images/')
    dataset = dict(
        type='CocoDataset', data_root=str(tmp_path), ann_file='a/train.json', data_prefix=prefix
    )
    cfg = Config(dict(default_scope='mmdet', model=dict(), val_dataloader=dict(dataset=dataset)))
    with pytest.raises(UserError) as caught:
        data.check_data(cfg, 'val_dataloader')
    assert f'\n  {tmp_path}/a has mine.json; {tmp_path} has a/\n' in str(caught.value)


def test_label_0_that_only_one_of_data_set_and_transform_leaves_out(tmp_path):
    cfg = segmentation(tmp_path)
    cfg.train_dataloader.dataset.pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', reduce_zero_label=False),
    ]
    data.check_data(cfg, 'train_dataloader')
    cfg.train_dataloader.dataset.pipeline[1].reduce_zero_label = True
    wrapped = dict(type='RepeatDataset', times=1, dataset=cfg.train_dataloader.dataset)
    cfg.val_dataloader = dict(dataset=wrapped)
    with pytest.raises(UserError) as caught:
        data.check_data(cfg, 'train_dataloader')
    assert str(caught.value) == (
        'train_dataloader: reduce_zero_label of the data set (BaseSegDataset) is False, but True '
        'in LoadAnnotations of its pipeline; if False is right, use --cfg-options '
        'train_dataloader.dataset.pipeline.1.reduce_zero_label=False '
        'val_dataloader.dataset.dataset.pipeline.1.reduce_zero_label=False'
    )
    cfg.train_dataloader.dataset.reduce_zero_label = True
    data.check_data(cfg, 'train_dataloader')
