"""Pictures of the demo."""

import pickle

import numpy as np
import pytest
from mmengine.fileio import load
from PIL import Image
from pycocotools import mask as rle

from hybrid_mm.data import shapes
from hybrid_mm.demo import figures


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(shapes, 'SPLITS', {'training': 1, 'validation': 2})
    shapes.write_dataset(tmp_path / 'data')
    return tmp_path / 'data'


def test_objects_below_the_threshold_are_not_drawn(data, tmp_path):
    images = load(data / 'annotations/instances_validation.json')['images']
    mask = np.zeros((images[0]['height'], images[0]['width']), np.uint8, 'F')
    mask[30:60, 20:70] = 1

    def drawn(score):
        boxes = [[20, 30, 70, 60]]
        found = dict(labels=[7], scores=[score], bboxes=boxes, masks=[rle.encode(mask)])
        empty = dict(labels=[], scores=[], bboxes=[], masks=[])
        entries = [
            dict(img_id=image['id'], pred_instances=found if score and not i else empty)
            for i, image in enumerate(images)
        ]
        (tmp_path / 'p.pkl').write_bytes(pickle.dumps(entries))
        figures.draw_detections(data, tmp_path / 'p.pkl', tmp_path / 'p.png', count=2)
        return np.asarray(Image.open(tmp_path / 'p.png').convert('RGB'), int)

    none = drawn(None)
    np.testing.assert_array_equal(drawn(0.49), none)
    changed = np.abs(drawn(0.5) - none).sum(2) > 0
    # in the second of four columns, the prediction of the first picture
    columns = np.flatnonzero(changed.any(0)) / none.shape[1]
    assert changed.mean() > 0.005
    assert 0.24 < columns.min() < columns.max() < 0.5
