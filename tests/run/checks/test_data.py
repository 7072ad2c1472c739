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
