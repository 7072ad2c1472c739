"""The table of docs/reliability_data.md: a bad input, and what we promise for it.

Each case breaks one file of a tiny data set. It then works, or fails with one message that names
the culprit when it is read or used first; with ``skip_bad_samples`` a broken sample is skipped and
counted.
"""

import json
import re
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.logging import MMLogger
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image

from hybrid_mm.data.checked import BadSampleError
from hybrid_mm.errors import UserError

CLASSES = ('square', 'disc', 'bar')


# ---------------------------------------------------------------- images (both data sets)


def missing(path: Path) -> None:
    path.unlink()


def empty_file(path: Path) -> None:
    path.write_bytes(b'')


def text_file(path: Path) -> None:
    path.write_text('<html>404 not found</html>')


def truncated_png(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])


def as_jpeg(path: Path, image: Image.Image | None = None, **options) -> None:
    """Store a JPEG under the name of a PNG file: decoders go by the content."""
    image = Image.open(path).copy() if image is None else image
    image.save(path, format='JPEG', **options)


def truncated_jpeg(path: Path) -> None:
    as_jpeg(path)
    path.write_bytes(path.read_bytes()[:-500])


def jpeg_without_end(path: Path) -> None:
    """Decoders silently accept it."""
    as_jpeg(path)
    path.write_bytes(path.read_bytes()[:-2])


def truncated_jpeg_with_thumbnail(path: Path) -> None:
    """The thumbnail in the header has an end marker of its own."""
    as_jpeg(path)
    data = path.read_bytes()
    thumbnail = b'\xff\xe1' + struct.pack('>H', len(data) + 2) + data
    path.write_bytes(data[:2] + thumbnail + data[2:-500])


def grey(path: Path) -> None:
    Image.open(path).convert('L').save(path)


def sixteen_bit(path: Path) -> None:
    cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16) * 257)


def with_alpha(path: Path) -> None:
    Image.open(path).convert('RGBA').save(path)


def palette(path: Path) -> None:
    Image.open(path).convert('P').save(path)


def cmyk(path: Path) -> None:
    as_jpeg(path, Image.open(path).convert('CMYK'))


def upright_exif(path: Path) -> None:
    """Stored lying, with the note to turn it: upright it has the size of the annotations."""
    exif = Image.Exif()
    exif[0x0112] = 6
    as_jpeg(path, Image.open(path).transpose(Image.Transpose.ROTATE_90), exif=exif)


def other_size(path: Path) -> None:
    Image.open(path).resize((64, 48)).save(path)


def sideways_exif(path: Path) -> None:
    """Turned upright, it is not what was annotated."""
    exif = Image.Exif()
    exif[0x0112] = 6
    as_jpeg(path, Image.open(path).resize((64, 48)), exif=exif)


WORKS = None
BAD_IMAGES = [
    (missing, '1 of 8 images do not exist'),
    (empty_file, r'is truncated \(0 bytes\)'),
    (text_file, 'failed to load image'),
    (truncated_png, r'is truncated \(\d+ bytes\)'),
    (jpeg_without_end, r'is truncated \(\d+ bytes\)'),
    (truncated_jpeg, r'is truncated \(\d+ bytes\)'),
    (truncated_jpeg_with_thumbnail, r'is truncated \(\d+ bytes\)'),
    (other_size, r'48 x 64'),
    (sideways_exif, r'64 x 48'),
    (grey, WORKS),
    (sixteen_bit, WORKS),
    (with_alpha, WORKS),
    (palette, WORKS),
    (cmyk, WORKS),
    (upright_exif, WORKS),
]


# ---------------------------------------------------------------- annotations in COCO's format


def first_object(data: dict, **changes) -> None:
    data['annotations'][0].update(changes)


def no_objects(data: dict) -> None:
    data['annotations'] = []


def crowd_only(data: dict) -> None:
    for entry in data['annotations']:
        entry['iscrowd'] = 1


def unlisted_image(data: dict) -> None:
    first_object(data, image_id=77)


def same_annotation_id(data: dict) -> None:
    data['annotations'][1]['id'] = data['annotations'][0]['id']


def same_image_id(data: dict) -> None:
    data['images'][1]['id'] = data['images'][0]['id']


def same_category_id(data: dict) -> None:
    data['categories'][1]['id'] = data['categories'][0]['id']


def no_height(data: dict) -> None:
    del data['images'][0]['height']


def no_image_list(data: dict) -> None:
    del data['images']


def no_image_id(data: dict) -> None:
    del data['annotations'][0]['image_id']


def no_images(data: dict) -> None:
    data['images'] = []


def no_box(data: dict) -> None:
    del data['annotations'][0]['bbox']


def no_file(data: dict) -> None:
    data['images'][0]['file_name'] = 'nowhere.png'


def change(**changes):
    def edit(data: dict) -> None:
        first_object(data, **changes)

    edit.__name__ = '-'.join(f'{k}={v}' for k, v in changes.items())
    return edit


NAN = float('nan')
BAD_FILES = [  # the whole file is refused
    (same_annotation_id, 'ids of annotations must be unique; used more than once: 1'),
    (same_image_id, 'ids of images must be unique; used more than once: 0'),
    (same_category_id, 'ids of categories must be unique'),
    (no_height, "image 0 has no 'height'"),
    (no_image_list, "no list 'images'"),
    (no_image_id, 'annotation 1 has the image_id None; expected the id of an image'),
    (no_images, 'no image is left'),
]
BAD_OBJECTS = [  # the image is a broken sample
    (change(bbox=[NAN, 1, 10, 10]), 'annotation 1 has the box .nan, 1, 10, 10.; expected four'),
    (change(bbox=[1, 1, float('inf'), 10]), 'annotation 1 has the box'),
    (change(bbox=[1, 1, 10]), 'annotation 1 has the box .1, 1, 10.'),
    (change(bbox='a'), "annotation 1 has the box 'a'"),
    (no_box, 'annotation 1 has the box None'),
    (change(category_id=9), 'annotation 1 has the category 9; the file has 1, 2, 3'),
    (no_file, 'nowhere.png'),
    (change(segmentation=[]), 'annotation 1 has no segmentation'),
    (change(segmentation=dict(size=[9, 9], counts=[81])), r'a mask of the size .9, 9.; its image'),
]
LEFT_OUT = [  # the object takes no part, with a warning
    (change(bbox=[5, 5, 0, 10], area=0), '1 annotations with a box of no area'),
    (change(bbox=[5, 5, -3, 10]), '1 annotations with a box of no area'),
    (change(bbox=[90, 90, 10, 10]), '1 annotations with a box of no area inside its image'),
    (change(segmentation=[[1, 1, 5, 5]]), '1 annotations whose mask has fewer than three points'),
    (unlisted_image, '1 annotations of images that are not listed'),
]
FINE = [no_objects, crowd_only, change(bbox=[-5, -5, 99, 99])]


# ---------------------------------------------------------------- label maps


def label_map(edit):
    def write(path: Path) -> None:
        cv2.imwrite(str(path), edit(cv2.imread(str(path), -1)))

    write.__name__ = edit.__name__
    return write


@label_map
def wrong_size(labels):
    return labels[:50]


@label_map
def out_of_range(labels):
    return np.where(labels == 3, 7, labels).astype(np.uint8)


@label_map
def three_channels(labels):
    return np.stack([labels, labels + 1, labels], -1)


@label_map
def labels_of_16_bits(labels):
    return labels.astype(np.uint16) + 256


@label_map
def all_ignored(labels):
    return np.full_like(labels, 255)


@label_map
def all_other(labels):
    return np.zeros_like(labels)


BAD_LABELS = [
    (missing, '1 of 8 label maps do not exist'),
    (empty_file, r'is truncated \(0 bytes\)'),
    (truncated_png, r'is truncated \(\d+ bytes\)'),
    (wrong_size, r'has 50 x 64 pixels \(height x width\), the image 64 x 64'),
    (out_of_range, r'has the label 6 .*; expected 0..2 and 255'),
    (three_channels, r'has the shape \(64, 64, 3\); expected one channel'),
    (labels_of_16_bits, 'has 16 bits per pixel'),
    (all_ignored, WORKS),
    (all_other, WORKS),
]


# ---------------------------------------------------------------- the tests


def coco_set(root: Path, skip: int = 0, **changes):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
        dict(type='PackDetInputs'),
    ]
    spec = dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=CLASSES),
        pipeline=pipeline,
        **changes,
    )
    return build('mmdet', spec, skip)


def ade_set(root: Path, skip: int = 0):
    spec = dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
        img_suffix='.png',
        reduce_zero_label=True,
        metainfo=dict(classes=CLASSES, palette=[[9, 9, 9]] * 3),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', reduce_zero_label=True),
            dict(type='PackSegInputs'),
        ],
    )
    return build('mmseg', spec, skip)


def build(scope: str, spec: dict, skip: int):
    with DefaultScope.overwrite_default_scope(scope):
        return DATASETS.build(
            dict(type='hybrid_mm.CheckedDataset', skip_bad_samples=skip, dataset=spec)
        )


def edit_json(root: Path, edit) -> None:
    path = root / 'annotations' / 'train.json'
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))


def names(cases):
    return [getattr(case[0], '__name__', str(case)) for case in cases]


def judge(make, message: str | None, culprit: str, caplog) -> None:
    """All samples of ``make(skip)`` load, or the one named fails and can be skipped."""
    if message is WORKS:
        data = make(0)
        shapes = {tuple(data[i]['inputs'].shape) for i in range(len(data))}
        assert shapes == {(3, 64, 64)}
        assert data.num_bad_samples == 0
        return
    with pytest.raises(BadSampleError, match=message) as caught:
        data = make(0)
        [data[i] for i in range(len(data))]
    assert culprit in str(caught.value)
    assert 'skip_bad_samples' in str(caught.value)
    logger = MMLogger.get_instance('faults')
    logger.addHandler(caplog.handler)
    data = make(1)
    for _ in range(2):  # reported and counted once
        assert [data[i] for i in range(len(data))]
    logger.removeHandler(caplog.handler)
    assert data.num_bad_samples == 1
    (record,) = [r for r in caplog.records if 'broken sample' in r.message]
    assert '1 of at most 1' in record.message and culprit in record.message


@pytest.mark.parametrize(('break_it', 'message'), BAD_IMAGES, ids=names(BAD_IMAGES))
@pytest.mark.parametrize('layout', ['coco', 'ade'])
def test_image(layout, break_it, message, request, caplog):
    root = request.getfixturevalue(layout)
    path = root / ('train/0.png' if layout == 'coco' else 'images/training/0.png')
    break_it(path)
    if layout == 'ade' and break_it is missing:  # the folder tells which images there are
        assert len(ade_set(root)) == 7
        return
    make = coco_set if layout == 'coco' else ade_set
    judge(lambda skip: make(root, skip), message, str(path), caplog)


@pytest.mark.parametrize('size', [(1, 1), (20000, 400)], ids=str)
def test_image_of_extreme_size(coco, size):
    """1 pixel, and 20000 pixels wide: they are resized like any other."""
    Image.new('RGB', size).save(coco / 'train' / '0.png')

    def edit(data):
        data['images'][0].update(width=size[0], height=size[1])
        data['annotations'] = [a for a in data['annotations'] if a['image_id']]

    edit_json(coco, edit)
    sample = coco_set(coco)[0]
    assert max(sample['inputs'].shape) == 64
    assert len(sample['data_samples'].gt_instances) == 0


@pytest.mark.parametrize(('edit', 'message'), BAD_FILES, ids=names(BAD_FILES))
def test_annotation_file(coco, edit, message):
    edit_json(coco, edit)
    for skip in (0, 3):  # nothing to skip: the file as a whole is wrong
        with pytest.raises(UserError, match=message) as caught:
            coco_set(coco, skip)
        assert str(coco / 'annotations' / 'train.json') in str(caught.value)


@pytest.mark.parametrize('content', ['', '{"images": [', '[1, 2]'], ids=repr)
def test_annotation_file_that_is_none(coco, content):
    (coco / 'annotations' / 'train.json').write_text(content)
    with pytest.raises(UserError, match=r'train.json is not in the format of COCO'):
        coco_set(coco)


@pytest.mark.parametrize(('edit', 'message'), BAD_OBJECTS, ids=names(BAD_OBJECTS))
def test_object(coco, edit, message, caplog):
    edit_json(coco, edit)
    judge(lambda skip: coco_set(coco, skip), message, '.png', caplog)


@pytest.mark.parametrize(('edit', 'message'), LEFT_OUT, ids=names(LEFT_OUT))
def test_object_that_is_left_out(coco, edit, message, capsys):
    edit_json(coco, edit)
    data = coco_set(coco)
    assert len(data[0]['data_samples'].gt_instances) == 2
    warnings = [line for line in capsys.readouterr().err.splitlines() if 'warning: ' in line]
    assert len(warnings) == 1
    assert re.search(message, warnings[0]) and '(ids 1)' in warnings[0]


@pytest.mark.parametrize('edit', FINE, ids=[edit.__name__ for edit in FINE])
def test_object_that_is_unusual(coco, edit, capsys):
    edit_json(coco, edit)
    data = coco_set(coco)
    sample = data[0]['data_samples']
    expected = dict(no_objects=(0, 0), crowd_only=(0, 3)).get(edit.__name__, (3, 0))
    assert (len(sample.gt_instances), len(sample.ignored_instances)) == expected
    err = capsys.readouterr().err
    assert err.count('warning: ') == (expected[0] == 0)
    if expected[0] == 0:
        assert '3 classes have no object to train on: square, disc, bar (8 images, ' in err


def wide_coco(root: Path, **entry) -> Path:
    """One image of 40 x 60 pixels (height x width) with one object."""
    (root / 'train').mkdir(parents=True)
    (root / 'annotations').mkdir()
    Image.new('RGB', (60, 40)).save(root / 'train' / '0.png')
    whole = dict(id=7, image_id=0, category_id=2, bbox=[30, 5, 29, 30], area=500, iscrowd=0)
    whole['segmentation'] = [[30, 5, 59, 5, 59, 35]]
    data = dict(
        images=[dict(id=0, file_name='0.png', height=40, width=60)],
        annotations=[{**whole, **entry}],
        categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)],
    )
    (root / 'annotations' / 'train.json').write_text(json.dumps(data))
    return root


RLE = dict(size=[40, 60], counts=[1300, 300, 800])
OBJECTS = [  # None: taken; 'left out' with a warning; else what is wrong with it
    (dict(), None),
    (dict(segmentation=RLE), None),
    (dict(segmentation=dict(RLE, size=[60, 40])), r'a mask of the size .60, 40.; .* .40, 60.'),
    (dict(bbox=[59, 5, 10, 10]), None),  # one column of it is inside
    (dict(bbox=[60, 5, 10, 10]), 'left out'),
    (dict(bbox=[5, 39, 10, 10]), None),
    (dict(bbox=[5, 40, 10, 10]), 'left out'),
    (dict(bbox=[-9, 5, 10, 10]), None),
    (dict(bbox=[-10, 5, 10, 10]), 'left out'),
    (dict(bbox=[5, 5, 10, 1]), None),
    (dict(bbox=[5, 5, 10, 0.5]), 'left out'),
    (dict(bbox=[5, 5, 0.5, 10]), 'left out'),
    (dict(area=0), None),  # the area is computed
    (dict(area=0.1), None),
    (dict(segmentation=[[1, 1, 9, 1, 9, 9]]), None),
    (dict(segmentation=[[1, 1, 9, 1], [1, 1, 9, 1, 9, 9]]), None),  # one of them is a polygon
    (dict(segmentation=[[1, 1, 9, 1]]), 'no mask'),
    (dict(segmentation=[[1, 1, 9, 1, 9, 9, 3]]), 'no mask'),
]


def test_objects_at_the_border(tmp_path, capsys):
    """Of an image that is not square; taken and left out as MMDetection does it."""
    for i, (entry, verdict) in enumerate(OBJECTS):
        root = wide_coco(tmp_path / str(i), **entry)
        if verdict not in (None, 'left out', 'no mask'):
            with pytest.raises(BadSampleError, match=verdict):
                coco_set(root)[0]
            continue
        data = coco_set(root)
        err = capsys.readouterr().err
        assert ('with a box of no area' in err) == (verdict == 'left out'), entry
        assert ('fewer than three points' in err) == (verdict == 'no mask'), entry
        assert data.num_bad_samples == 0
        found = data[0]['data_samples'].gt_instances
        assert len(found) == (verdict is None), entry
        assert found.labels.tolist() == [1] * len(found)


@pytest.mark.parametrize(('break_it', 'message'), BAD_LABELS, ids=names(BAD_LABELS))
def test_label_map(ade, break_it, message, caplog):
    path = ade / 'annotations' / 'training' / '0.png'
    break_it(path)
    judge(lambda skip: ade_set(ade, skip), message, str(path), caplog)
