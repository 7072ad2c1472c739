"""Labels follow ``metainfo.classes``, in whatever order COCO files list their categories."""

import itertools
import json
import pickle
import sys

import numpy as np
import pytest
import torch

from hybrid_mm.compat import category_order

pytest.importorskip('mmdet')

NAMES = ('square', 'disc', 'bar')


def read(path):
    return json.loads(path.read_text())


@pytest.fixture
def listed(tiny_coco, tmp_path):
    """Write the validation file with its categories, and their ids, in another order."""

    def write(order=(0, 1, 2), ids=(1, 2, 3)):
        content = read(tiny_coco / 'annotations/val.json')
        new = dict(zip((1, 2, 3), ids, strict=True))
        for entry in content['categories']:
            entry['id'] = new[entry['id']]
        for entry in content['annotations']:
            entry['category_id'] = new[entry['category_id']]
        content['categories'] = [content['categories'][i] for i in order]
        path = tmp_path / f'val_{"".join(map(str, (*order, *ids)))}.json'
        path.write_text(json.dumps(content))
        return path

    return write


def config(path, classes=NAMES, kind='mmdet.CocoDataset'):
    places = dict(ann_file=str(path), data_prefix=dict(img=str(path.parent)))
    inner = dict(type=kind, metainfo=dict(classes=classes), pipeline=[], test_mode=True, **places)
    return dict(type='hybrid_mm.CheckedDataset', dataset=inner)


def dataset(path, classes=NAMES, kind='mmdet.CocoDataset'):
    from mmengine.registry import DATASETS

    return DATASETS.build(config(path, classes, kind))


def objects(path):
    """(image, name of the class, box) of every object, as the file has them."""
    content = read(path)
    names = {entry['id']: entry['name'] for entry in content['categories']}
    return [(a['image_id'], names[a['category_id']], a['bbox']) for a in content['annotations']]


def loaded(data):
    """The same of a data set: what it calls the classes of its objects."""
    found = []
    for i in range(len(data)):
        info = data.get_data_info(i)
        for item in info['instances']:
            x1, y1, x2, y2 = item['bbox']
            name = data.metainfo['classes'][item['bbox_label']]
            found.append((info['img_id'], name, [x1, y1, x2 - x1, y2 - y1]))
    return found


@pytest.mark.parametrize('classes', list(itertools.permutations(NAMES)), ids='-'.join)
def test_labels_have_the_names_of_their_boxes(listed, classes):
    for order, ids in (((0, 1, 2), (1, 2, 3)), ((2, 0, 1), (1, 2, 3)), ((0, 1, 2), (7, 5, 6))):
        path = listed(order, ids)
        assert loaded(dataset(path, classes)) == objects(path)


def test_a_part_of_the_classes_in_another_order(listed):
    path = listed((1, 2, 0))
    data = dataset(path, ('bar', 'square'))
    assert loaded(data) == [item for item in objects(path) if item[1] != 'disc']
    assert data.cat_ids == [3, 1]


def metrics(data, ann_file, names, **changes):
    """Evaluate a detector that finds the objects of ``names`` only, perfectly."""
    from mmdet.evaluation import CocoMetric

    classes = data.metainfo['classes']
    metric = CocoMetric(ann_file=ann_file, metric='bbox', classwise=True, **changes)
    metric.dataset_meta = data.metainfo
    for i in range(len(data)):
        info = data.get_data_info(i)
        kept = [x for x in info['instances'] if classes[x['bbox_label']] in names]
        boxes = torch.tensor([x['bbox'] for x in kept], dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([x['bbox_label'] for x in kept], dtype=torch.int64)
        found = dict(bboxes=boxes, labels=labels, scores=torch.ones(len(kept)))
        sample = dict(img_id=info['img_id'], ori_shape=(64, 64), pred_instances=found)
        metric.process({}, [dict(sample, **({} if ann_file else truth(info)))])
    return metric.evaluate(len(data))


def truth(info):
    instances = [dict(x, bbox=x['bbox'], bbox_label=x['bbox_label']) for x in info['instances']]
    return dict(instances=instances)


@pytest.mark.parametrize('own_file', [True, False], ids=['ann_file', 'of the data set'])
@pytest.mark.parametrize('ids', [(1, 2, 3), (9, 5, 7)], ids=['ascending', 'ids in any order'])
def test_average_precision_of_a_class_has_its_name(listed, own_file, ids):
    path = listed((2, 0, 1), ids)
    for classes in (NAMES, ('disc', 'bar', 'square')):
        data = dataset(path, classes)
        for names in (('disc',), ('bar', 'square')):
            found = metrics(data, str(path) if own_file else None, names)
            each = {name: found[f'coco/{name}_precision'] for name in NAMES}
            assert each == {name: float(name in names) for name in NAMES}
            assert found['coco/bbox_mAP'] == pytest.approx(len(names) / 3, abs=1e-3)


def test_evaluation_in_several_processes(listed):
    path = listed((2, 0, 1), (9, 5, 7))
    found = metrics(dataset(path, ('bar', 'disc', 'square')), str(path), ('bar',), use_mp_eval=True)
    assert [found[f'coco/{name}_precision'] for name in NAMES] == [0, 0, 1]


def test_written_results_have_the_ids_of_the_file(listed, tmp_path):
    path = listed((2, 0, 1), (9, 5, 7))
    data = dataset(path, ('bar', 'square', 'disc'))
    metrics(data, str(path), NAMES, format_only=True, outfile_prefix=str(tmp_path / 'out'))
    names = {entry['id']: entry['name'] for entry in read(path)['categories']}
    written = read(tmp_path / 'out.bbox.json')
    found = [(x['image_id'], names[x['category_id']], x['bbox']) for x in written]
    assert sorted(found) == sorted(objects(path))


def test_files_of_several_orders_are_joined(listed):
    from mmengine.dataset import ClassBalancedDataset, ConcatDataset

    paths = [listed(), listed((2, 1, 0)), listed((0, 1, 2), (3, 1, 2))]
    classes = ('bar', 'square', 'disc')
    both = ConcatDataset([config(path, classes) for path in paths])
    assert loaded(both) == [item for path in paths for item in objects(path)]
    balanced = ClassBalancedDataset(config(paths[1], classes), oversample_thr=1e-3)
    assert loaded(balanced) == objects(paths[1])
    assert balanced.dataset.get_cat_ids(0) == [1, 2, 0]


def test_panoptic_segments(listed, tmp_path):
    from mmdet.datasets.api_wrappers import COCOPanoptic  # of the data set and of its metric

    content = read(listed((2, 0, 1), (9, 5, 7)))
    segments = {}
    for entry in content.pop('annotations'):
        segments.setdefault(entry['image_id'], []).append(entry)
    content['annotations'] = [
        dict(id=number, image_id=number, file_name=f'{number}.png', segments_info=found)
        for number, found in segments.items()
    ]
    content['categories'] = [dict(entry, isthing=1) for entry in content['categories']]
    path = tmp_path / 'panoptic.json'
    path.write_text(json.dumps(content))
    classes = ('bar', 'square', 'disc')
    data = dataset(path, classes, kind='mmdet.CocoPanopticDataset')
    wanted = [
        NAMES[(9, 5, 7).index(x['category_id'])] for found in segments.values() for x in found
    ]
    infos = [data.get_data_info(i) for i in range(len(data))]
    assert [classes[x['category']] for info in infos for x in info['segments_info']] == wanted
    assert COCOPanoptic(str(path)).get_cat_ids(cat_names=classes) == [7, 9, 5] == data.cat_ids


def test_workaround_waits_and_is_applied_once(listed, monkeypatch):
    assert category_order.has_b17()
    dataset(listed())
    assert not category_order.b17_labels_in_order_of_classes()
    monkeypatch.delitem(sys.modules, category_order._API)
    assert not category_order.b17_labels_in_order_of_classes()


def test_evaluators_can_be_sent_to_processes(listed):
    from mmdet.evaluation.metrics import coco_metric, ov_coco_metric

    dataset(listed())
    for module in (coco_metric, ov_coco_metric):
        for name in ('COCOeval', 'COCOevalMP'):
            cls = getattr(module, name)
            assert pickle.loads(pickle.dumps(cls)) is cls and cls.evaluate.__module__ != name
    assert np.array_equal(category_order._positions([9, 5, 7], [5, 7, 9]), [2, 0, 1])
