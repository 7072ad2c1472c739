"""MMDetection's metric sees the annotations that the data set sees."""

import copy
import json

import numpy as np
import pytest
import torch
from mmengine.registry import METRICS, DefaultScope
from pycocotools import mask as mask_api

from hybrid_mm.errors import UserError

CLASSES = ('square', 'disc', 'bar')


@pytest.fixture
def annotations(tiny_coco):
    return json.loads((tiny_coco / 'annotations' / 'val.json').read_text())


def metric(path, kind='hybrid_mm.CheckedCocoMetric', **settings):
    settings = dict(inner='CocoMetric', metric=['bbox', 'segm']) | settings
    if kind == 'CocoMetric':
        settings.pop('inner')
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = METRICS.build(dict(type=kind, ann_file=str(path), **settings))
    built.dataset_meta = dict(classes=CLASSES)
    return built


def figures(metric, truth, rename=lambda number: number):
    """Metrics of predictions that are the objects, some of them moved, with scores."""
    for image in truth['images']:
        objects = [a for a in truth['annotations'] if a['image_id'] == image['id']]
        masks = [mask_api.merge(mask_api.frPyObjects(a['segmentation'], 64, 64)) for a in objects]
        boxes = np.array([a['bbox'] for a in objects], np.float32).reshape(-1, 4)
        boxes[:, :2] += np.arange(len(objects))[:, None]
        boxes[:, 2:] += boxes[:, :2]
        predicted = dict(
            bboxes=torch.tensor(boxes),
            scores=torch.linspace(0.9, 0.4, len(objects)),
            labels=torch.tensor([a['category_id'] - 1 for a in objects]),
            masks=masks,
        )
        sample = dict(img_id=rename(image['id']), ori_shape=(64, 64), pred_instances=predicted)
        metric.process({}, [sample])
    return metric.evaluate(len(truth['images']))


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def awkward(content):
    """What other programs write, and what pycocotools cannot read or misreads."""
    for number, entry in enumerate(content['annotations']):
        if number % 2:
            del entry['iscrowd']
        else:
            entry['iscrowd'] = '0'
        entry.update(id=f'object-{number}', area=0, category_id=str(entry['category_id']))
        entry['bbox'] = [str(value) for value in entry['bbox']]
        if len(entry['segmentation']) == 1:
            entry['segmentation'] = entry['segmentation'][0]
    for image in content['images']:
        image.update(height=64.0, width='64')
    return content


def test_results_are_those_of_the_file_in_cocos_form(annotations, tmp_path, capsys):
    good = write(tmp_path / 'good.json', annotations)
    changed = write(tmp_path / 'changed.json', awkward(copy.deepcopy(annotations)))
    expected = figures(metric(good, 'CocoMetric'), annotations)
    assert 0.1 < expected['coco/bbox_mAP'] < 1 and expected['coco/segm_mAP'] == 1
    assert figures(metric(good), annotations) == expected
    assert 'warning: ' not in capsys.readouterr().err
    assert figures(metric(changed), annotations) == expected
    assert '12 annotations whose id is not a number; renumbered' in capsys.readouterr().err


def test_ids_of_images_that_are_text(annotations, tmp_path):
    expected = figures(metric(write(tmp_path / 'good.json', annotations)), annotations)
    changed = copy.deepcopy(annotations)
    for image in changed['images']:
        image['id'] = f'picture {image["id"]}'
    for entry in changed['annotations']:
        entry['image_id'] = f'picture {entry["image_id"]}'
    path = write(tmp_path / 'text.json', changed)
    assert figures(metric(path), annotations, 'picture {}'.format) == expected
    with pytest.raises(UserError, match='proposal_fast needs numbers'):
        metric(path, metric='proposal_fast')


def test_zero_is_an_id(annotations, tmp_path):
    """Of an object: pycocotools would count it as missed."""
    expected = figures(metric(write(tmp_path / 'good.json', annotations)), annotations)
    for number, entry in enumerate(annotations['annotations']):
        entry['id'] = number
    path = write(tmp_path / 'zero.json', annotations)
    assert figures(metric(path, 'CocoMetric'), annotations) != expected
    assert figures(metric(path), annotations) == expected


def test_what_cannot_be_evaluated(annotations, tmp_path):
    annotations['annotations'][4]['segmentation'] = [[1, 1, 9, 1, 9, 1e9]]
    path = write(tmp_path / 'x.json', annotations)
    number = annotations['annotations'][4]['id']
    with pytest.raises(UserError, match=f'x.json: 1 images .*annotation {number} has a polygon'):
        metric(path)
    metric(path, metric='bbox')
    del annotations['annotations'][3]['image_id']
    with pytest.raises(UserError, match=r'x.json: annotation 4 has the image_id None'):
        metric(write(path, annotations), metric='bbox')


def test_images_without_annotations(annotations, tmp_path, capsys):
    del annotations['annotations']
    path = write(tmp_path / 'x.json', annotations)
    metric(path, format_only=True, outfile_prefix=str(tmp_path / 'sent'))
    assert 'warning: ' not in capsys.readouterr().err
    metric(path)
    assert 'x.json has no annotations: all results of CocoMetric will be -1' in (
        capsys.readouterr().err
    )


def test_order_of_categories(annotations, tmp_path):
    annotations['categories'].reverse()
    path = write(tmp_path / 'x.json', annotations)
    names = [c['name'] for c in metric(path)._coco_api.dataset['categories']]
    assert names == ['bar', 'disc', 'square']
    for kind in ('CocoMetric', 'hybrid_mm.CheckedCocoMetric'):
        api = metric(path, kind, sort_categories=True)._coco_api
        assert list(api.cats) == [1, 2, 3]
        assert [c['name'] for c in api.dataset['categories']] == ['square', 'disc', 'bar']
