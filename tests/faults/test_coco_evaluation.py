"""Annotations that only the evaluation reads: they are looked at before the first step."""

import json
import re

import pytest
from mmengine.config import Config

from hybrid_mm.run.launch import set_sample_checks

SHORT = ('train_cfg.max_iters=1', 'train_cfg.val_interval=1', 'train_dataloader.batch_size=1')


@pytest.fixture
def run(coco, det_config, tmp_path):
    """Arguments of a step of training and a validation on a copy of the data, to be broken."""
    text = re.sub(r"(ann_file|data_root)='[^']*coco\w*", rf"\1='{coco}", det_config.read_text())
    det_config.write_text(text)
    return ('train', det_config, '--work-dir', tmp_path / 'w')


def edit(coco, change, split='val'):
    path = coco / 'annotations' / f'{split}.json'
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return path


def figures(work_dir):
    """What the validation found."""
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    (found,) = [line for line in lines if 'coco/bbox_mAP' in line]
    return {key: value for key, value in found.items() if key.startswith('coco/')}


def odd(data):
    """Without iscrowd and area, ids as text, and images that are not numbered."""
    for entry in data['annotations']:
        del entry['iscrowd'], entry['area']
        entry.update(id=f'x{entry["id"]}', image_id=f'image {entry["image_id"]}')
        entry['category_id'] = str(entry['category_id'])
    for image in data['images']:
        image['id'] = f'image {image["id"]}'


def test_what_other_programs_write(coco, run, tool, tmp_path):
    for split in ('train', 'val'):
        edit(coco, odd, split)
    status, err = tool(*run, '--cfg-options', *SHORT)
    assert status == 0
    assert figures(tmp_path / 'w')['coco/bbox_mAP'] >= 0
    for split, count in (('train', 24), ('val', 12)):
        text = f'{split}.json: {count} annotations without iscrowd; taken as 0 (first: '
        assert err.count(text) == 1  # data set and metric read one file


def test_an_object_that_cannot_be_evaluated(coco, run, fails, tmp_path):
    def change(data):
        data['annotations'][4]['segmentation'] = [[1, 1, 9, 1, 9, 1e9]]

    edit(coco, change)
    text = fails(*run, '--cfg-options', *SHORT, 'val_evaluator.metric=bbox,segm')
    assert 'annotation 5 has a polygon with the coordinate 1000000000.0' in text
    assert not list((tmp_path / 'w').glob('*.pth'))


def test_metric_that_reads_another_file(coco, run, fails, tool):
    other = coco / 'other.json'
    other.write_text((coco / 'annotations' / 'val.json').read_text())
    evaluator = f'val_evaluator.ann_file={other}'

    def write(change):
        data = json.loads((coco / 'annotations' / 'val.json').read_text())
        change(data)
        other.write_text(json.dumps(data))

    write(lambda data: data['annotations'][0].update(iscrowd=[]))
    text = fails(*run, '--cfg-options', *SHORT, evaluator)
    assert 'other.json: 1 images cannot be evaluated: 0.png: annotation 1 has iscrowd []' in text
    write(lambda data: data['images'].pop())
    text = fails(*run, '--cfg-options', *SHORT, evaluator)
    assert 'other.json does not list 1 of the 4 images of the data set (ids 3, ...)' in text
    write(lambda data: data['images'][2].update(file_name='9.png'))
    text = fails(*run, '--cfg-options', *SHORT, evaluator)
    assert 'image 2 is 9.png in its ann_file' in text and 'but 2.png in the data set' in text
    write(lambda data: data['images'].append(dict(data['images'][0], id=77)))
    status, err = tool(*run, '--cfg-options', *SHORT, evaluator)
    assert status == 0
    assert 'other.json lists 1 images that the data set has not (4 images of ' in err
    status, err = tool(*run, '--cfg-options', *SHORT)
    assert status == 0 and 'images that the data set has not' not in err


def test_images_that_are_not_evaluated(coco, run, tool):
    """A part of the validation data: the metric reads all of it."""
    status, err = tool(*run, '--cfg-options', *SHORT, 'val_dataloader.dataset.indices=2')
    assert status == 0
    assert 'val.json lists 2 images that the data set has not (2 images of ' in err


def test_metrics_whose_files_are_checked(det_config):
    """Those of validation and test, also in lists; others read their files in other ways."""
    cfg = Config.fromfile(det_config)
    file = cfg.val_evaluator.ann_file
    others = [
        dict(type='CocoMetric', metric='bbox'),  # takes the annotations of the data set
        dict(type='LVISMetric', ann_file=file),
        dict(type='CocoPanopticMetric', ann_file=file),
    ]
    coco = dict(type='CocoMetric', ann_file=file, metric='bbox')
    derived = dict(type='mmdet.CocoOccludedSeparatedMetric', ann_file=file)
    cfg.val_evaluator = [coco, derived, *others]
    cfg.test_evaluator = dict(type='Evaluator', metrics=[coco])
    for _ in range(2):
        set_sample_checks(cfg)
    checked = dict(type='hybrid_mm.CheckedCocoMetric', inner='CocoMetric', ann_file=file)
    first, second, *rest = cfg.val_evaluator
    assert first == dict(checked, metric='bbox')
    assert second == dict(checked, inner=derived['type'])
    assert rest == others
    assert cfg.test_evaluator.metrics == [first]
