"""Data and classes before a run: the borders of each check."""

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from hybrid_mm.errors import UserError
from hybrid_mm.run.checks import data


def segmentation(root, label, **changes):
    """A config with a label map whose largest label is ``label``."""
    folder = root / 'maps'
    folder.mkdir(exist_ok=True)
    labels = np.zeros((5, 7), np.uint8)
    labels[1, 2] = label
    cv2.imwrite(str(folder / 'a.png'), labels)
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(seg_map_path='maps'),
        metainfo=dict(classes=('a', 'b', 'c')),
        **changes,
    )
    model = dict(decode_head=dict(num_classes=3), backbone=dict(num_classes=9))
    loader = dict(dataset=dataset)
    return Config(dict(default_scope='mmseg', model=model, train_dataloader=loader))


@pytest.mark.parametrize(('label', 'changes', 'allowed'), [
    (2, dict(), True),
    (3, dict(), False),
    (255, dict(), True),
    (3, dict(reduce_zero_label=True), True),
    (4, dict(reduce_zero_label=True), False),
    (254, dict(), False),
    (254, dict(ignore_index=254), True),
    (255, dict(ignore_index=254), True),
    (253, dict(ignore_index=254), False),
])  # fmt: skip
def test_labels_at_the_border(tmp_path, label, changes, allowed):
    cfg = segmentation(tmp_path, label, **changes)
    if allowed:
        data.check_data(cfg, 'train_dataloader')
        return
    shifted = bool(changes.get('reduce_zero_label'))
    with pytest.raises(UserError) as caught:
        data.check_data(cfg, 'train_dataloader')
    assert f'has the label {label}; 3 classes with reduce_zero_label={shifted}' in str(caught.value)
    assert f'allow 0..{2 + shifted} and {changes.get("ignore_index", 255)}' in str(caught.value)


def test_numbers_of_classes_in_all_heads(tmp_path):
    cfg = segmentation(tmp_path, 0)
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


def test_a_few_label_maps_are_looked_at_all_over_the_folder(tmp_path):
    cfg = segmentation(tmp_path, 0)
    for i in range(40):
        (tmp_path / 'maps' / f'{i:02d}.png').write_bytes((tmp_path / 'maps/a.png').read_bytes())
    bad = np.full((5, 7), 9, np.uint8)
    for number in (0, 20, 35):
        path = tmp_path / 'maps' / f'{number:02d}.png'
        before = path.read_bytes()
        cv2.imwrite(str(path), bad)
        with pytest.raises(UserError, match=rf'{number:02d}\.png has the label 9'):
            data.check_data(cfg, 'train_dataloader')
        path.write_bytes(before)
    cv2.imwrite(str(tmp_path / 'maps' / '00.png'), np.zeros((5, 7, 3), np.uint8))
    with pytest.raises(UserError, match=r'is not a label map .*\(5, 7, 3\)'):
        data.check_data(cfg, 'train_dataloader')
