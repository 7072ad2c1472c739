"""Data sets of MMDetection that read COCO files, as ``CheckedDataset`` has them read."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from hybrid_mm.data import coco_check
from hybrid_mm.data.checked import BadSampleError
from hybrid_mm.errors import UserError

CLASSES = ('cup', 'fork')
RUNS = dict(size=[40, 60], counts=[410, 20, 1970])


@pytest.fixture(autouse=True)
def each_test_is_warned():
    coco_check._warn_once.cache_clear()


def content():
    """Two images of 40 x 60 (height x width) with a cup and a fork each."""
    whole = dict(bbox=[10, 10, 20, 10], area=100.0, iscrowd=0)
    whole['segmentation'] = [[10, 10, 30, 10, 30, 20]]
    return dict(
        images=[dict(id=i, file_name=f'{i}.png', height=40, width=60) for i in (1, 2)],
        annotations=[
            dict(whole, id=i + 1, image_id=i // 2 + 1, category_id=3 + i % 2) for i in range(4)
        ],
        categories=[dict(id=3, name='cup'), dict(id=4, name='fork')],
    )


def read(folder, data, poly2mask=True, kind='CocoDataset', **settings):
    """All samples of a data set that loads masks."""
    path = folder / 'some.json'
    path.write_text(json.dumps(data))
    for number in (1, 2):
        Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(folder / f'{number}.png')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=poly2mask),
        dict(type='PackDetInputs'),
    ]
    settings = dict(metainfo=dict(classes=CLASSES), pipeline=pipeline) | settings
    prefix = dict(img=str(folder), seg=str(folder)) if 'Panoptic' in kind else dict(img=str(folder))
    spec = dict(type=kind, ann_file=str(path), data_prefix=prefix, **settings)
    with DefaultScope.overwrite_default_scope('mmdet'):
        data = DATASETS.build(dict(type='hybrid_mm.CheckedDataset', dataset=spec))
    return [data[i]['data_samples'] for i in range(len(data))]


def labels(samples):
    return [sample.gt_instances.labels.tolist() for sample in samples]


def test_masks_of_any_notation_are_the_same(tmp_path, capsys):
    expected = [s.gt_instances.masks.masks for s in read(tmp_path, content())]
    data = content()
    first, second, third, _ = data['annotations']
    first['segmentation'] = first['segmentation'][0]
    second['segmentation'] = [[10, 10], [30, 10], [30, 20]]
    third['segmentation'] = json.dumps(third['segmentation'])
    for found, wanted in zip(read(tmp_path, data), expected, strict=True):
        assert (found.gt_instances.masks.masks == wanted).all()
    assert expected[0].sum() > 100


def test_run_lengths_need_bitmaps(tmp_path):
    """Else MMDetection would ignore the object."""
    data = content()
    data['annotations'][1]['segmentation'] = RUNS
    assert labels(read(tmp_path, data)) == [[0, 1], [0, 1]]
    with pytest.raises(BadSampleError, match=r'1.png: annotation 2 has a run-length mask, which '):
        read(tmp_path, data, poly2mask=False)
    # an evaluation reads it in another way
    assert labels(read(tmp_path, data, poly2mask=False, test_mode=True)) == [[0], [0, 1]]
    data['annotations'][1]['iscrowd'] = 1
    assert labels(read(tmp_path, data, poly2mask=False)) == [[0], [0, 1]]


def test_classes_without_objects(tmp_path, capsys):
    data = content()
    data['annotations'] = data['annotations'][::2]
    read(tmp_path, data)
    text = 'some.json: 1 classes have no object to train on: fork (2 images, 2 annotations; objec'
    assert text in capsys.readouterr().err
    read(tmp_path, data, metainfo=dict(classes=('cup',)))
    read(tmp_path, data, test_mode=True)
    assert capsys.readouterr().err == ''


def test_nothing_is_left(tmp_path):
    data = content()
    for entry in data['annotations']:
        entry['bbox'] = [5, 5, 0, 0]
        entry['category_id'] = 3
    with pytest.raises(UserError) as caught:
        read(
            tmp_path,
            data,
            metainfo=dict(classes=('fork',)),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
        )
    assert re_found(str(caught.value)) == (
        '(2 images, 4 annotations, 4 of them with a box of no area inside its image; objects: '
        "none); check the file, img_suffix, metainfo.classes (fork) and filter_cfg ({'filter_empty"
        "_gt': True, 'min_size': 32})"
    )


def test_no_annotation_is_left(tmp_path):
    data = content()
    data['annotations'] = [
        dict(data['annotations'][0], id=i, bbox=[0.2, 0.2, 0.5, 0.5]) for i in range(1, 10)
    ]  # shares of the image
    with pytest.raises(UserError, match=r'none of the annotations can be trained .2 images, 9 an'):
        read(tmp_path, data)
    data['annotations'][0]['bbox'] = [1, 1, 9, 9]
    assert read(tmp_path, data)


def test_a_data_set_without_folder_of_images(tmp_path):
    path = tmp_path / 'x.json'
    path.write_text(json.dumps(content()))
    spec = dict(type='CocoDataset', ann_file=str(path), pipeline=[], metainfo=dict(classes=CLASSES))
    with (
        DefaultScope.overwrite_default_scope('mmdet'),
        pytest.raises(UserError, match=r"names no folder of images; use dict\(img='train/'\)"),
    ):
        DATASETS.build(dict(type='hybrid_mm.CheckedDataset', dataset=spec))


def re_found(text):
    return text[text.index('some.json ') + len('some.json ') :]


def test_roboflow_names_a_project_like_its_class(tmp_path, capsys):
    """A category 0 without objects: MMDetection would give the class two labels."""
    data = content()
    data['categories'].insert(0, dict(id=0, name='fork', supercategory='none'))
    assert labels(read(tmp_path, data)) == [[0, 1], [0, 1]]
    assert '1 categories without objects, with the name of another' in capsys.readouterr().err


def test_other_data_sets(tmp_path):
    """Their own way to number labels is kept, and what they read beside COCO's fields."""
    data = content()
    data['categories'].reverse()
    assert labels(read(tmp_path, data, kind='Objects365V1Dataset')) == [[0, 1], [0, 1]]
    for entry in data['annotations']:
        entry['category_id'] = str(entry['category_id'])
    assert labels(read(tmp_path, data, kind='Objects365V1Dataset')) == [[0, 1], [0, 1]]


def test_panoptic_annotations(tmp_path):
    """They have no ids of their own, and segments in the place of boxes."""
    data = content()
    data['categories'] = [dict(id=i, name=n, isthing=1) for i, n in ((3, 'cup'), (4, 'fork'))]
    segments = [
        dict(id=i + 1, category_id=3 + i, bbox=[10, 10, 20, 10], area=9, iscrowd=0) for i in (0, 1)
    ]
    data['annotations'] = [
        dict(image_id=i, file_name=f'{i}.png', segments_info=segments) for i in (1, 2)
    ]
    samples = read(
        tmp_path,
        data,
        kind='CocoPanopticDataset',
        metainfo=dict(classes=CLASSES, thing_classes=CLASSES, stuff_classes=()),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='PackDetInputs'),
        ],
    )
    assert labels(samples) == [[0, 1], [0, 1]]
    data['annotations'][0].pop('image_id')
    with pytest.raises(UserError, match=r"not in the format of COCO \(KeyError: 'image_id'\)"):
        read(tmp_path, data, kind='CocoPanopticDataset')


def test_messages_name_the_file_in_its_storage(tmp_path, monkeypatch):
    """Not the copy on this machine that MMDetection reads."""
    data = content()
    data['annotations'][0]['bbox'] = None
    copy = tmp_path / 'copy.json'
    copy.write_text(json.dumps(data))
    monkeypatch.setattr(
        'mmdet.datasets.coco.get_local_path', lambda *args, **kwargs: nullcontext(str(copy))
    )
    with pytest.raises(BadSampleError, match=r'broken sample: \S*some\.json: 1\.png: annotation 1'):
        read(tmp_path, content())
    data['images'] = 7
    copy.write_text(json.dumps(data))
    with pytest.raises(UserError, match=r'some\.json: images is a number'):
        read(tmp_path, content())
