"""Data sets of users: what is read from a folder, with figures counted by hand."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from hybrid_mm.errors import UserError
from hybrid_mm.zoo.user_data import read_data


def coco(root, count=5, split='train', change=lambda content: None):
    """A COCO file with one object per image, of category 3 or 7 in turn, and its images."""
    (root / split).mkdir(parents=True, exist_ok=True)
    images, objects = [], []
    for i in range(count):
        width, height = 100 + 10 * i, 40 + i
        Image.new('RGB', (width, height)).save(root / split / f'{i}.png')
        images.append(dict(id=10 + i, file_name=f'{i}.png', width=width, height=height))
        objects.append(
            dict(
                id=i,
                image_id=10 + i,
                category_id=(3, 7)[i % 2],
                bbox=[1, 2, 3, 4],
                area=12,
                iscrowd=0,
                segmentation=[[1, 2, 4, 2, 4, 6]],
            )
        )
    categories = [dict(id=7, name='cup'), dict(id=3, name='fork')]
    content = dict(images=images, annotations=objects, categories=categories, info='kept')
    change(content)
    (root / f'{split}.json').write_text(json.dumps(content))
    return root


def test_figures_of_a_coco_file(tmp_path):
    coco(tmp_path, 5)
    coco(tmp_path, 2, 'val')
    data = read_data(tmp_path)
    assert data.classes == ['cup', 'fork']  # in the order of the file, not of the ids
    assert data.size == (120, 42)  # medians of 100 ... 140 and 40 ... 44
    assert data.boxes == dict(fork=3, cup=2)
    assert data.polygons == 1.0
    splits = {k: (s.images, s.labels, s.count, s.content) for k, s in data.splits.items()}
    assert splits == dict(train=('train', 'train.json', 5, None), val=('val', 'val.json', 2, None))
    assert read_data(tmp_path, classes=['fork']).classes == ['fork']


def test_classes_are_those_of_the_user_or_of_training(tmp_path):
    coco(tmp_path, 5)
    coco(tmp_path, 2, 'val', lambda content: content['categories'].reverse())
    assert read_data(tmp_path).classes == ['cup', 'fork']
    assert read_data(tmp_path, classes=['fork', 'cup']).classes == ['fork', 'cup']
    coco(tmp_path, 2, 'val', lambda content: content['categories'][0].update(name='Cup'))
    with pytest.raises(
        UserError, match=r"categories cup, which .* have; 'cup' is spelled 'Cup' the"
    ):
        read_data(tmp_path)


def test_images_that_are_missing_or_in_both_splits(tmp_path, capsys):
    coco(tmp_path, 5)
    coco(tmp_path, 2, 'val')
    read_data(tmp_path)
    assert not capsys.readouterr().err
    train = ('train.json', 'train')
    read_data(tmp_path, train=train, val=train)
    assert '5 of the 5 images of validation are trained as well' in capsys.readouterr().err
    (tmp_path / 'train/3.png').unlink()
    for given in (None, train):
        with pytest.raises(UserError, match=r'^1 of the 5 images of \S+train.json .*: 3.png$'):
            read_data(tmp_path, train=given)


def test_crowds_are_no_objects_without_a_polygon(tmp_path):
    def change(content):
        content['annotations'][0].update(
            iscrowd=1, segmentation=dict(size=[40, 100], counts=[4000])
        )
        content['annotations'][1].update(iscrowd=1, segmentation=[])
        content['annotations'][2]['segmentation'] = []

    coco(tmp_path, 5, change=change)
    coco(tmp_path, 2, 'val')
    assert read_data(tmp_path).polygons == pytest.approx(2 / 3)  # one of the three others has none


@pytest.mark.parametrize('choice', ['drop', 'keep'])
def test_categories_without_a_box(choice, tmp_path):
    def change(content):
        content['categories'].insert(1, dict(id=1, name='plate'))

    coco(tmp_path, 5, change=change)
    coco(tmp_path, 2, 'val', change)
    with pytest.raises(UserError, match='1 of 3 categories have no boxes: plate'):
        read_data(tmp_path)
    expected = dict(drop=['cup', 'fork'], keep=['cup', 'plate', 'fork'])[choice]
    assert read_data(tmp_path, empty_classes=choice).classes == expected


def test_each_part_of_a_coco_file_has_its_own_annotations(tmp_path):
    coco(tmp_path, 9)
    # 9 x 0.2 is 1.8: two; at least one, and never all
    for share, held in ((0.2, 2), (0.15, 1), (0.01, 1), (0.99, 8)):
        data = read_data(tmp_path, holdout=share, empty_classes='keep')
        parts = {name: split.content for name, split in data.splits.items()}
        assert [data.splits[name].count for name in ('train', 'val')] == [9 - held, held], share
        ids = {}
        for name, part in parts.items():
            ids[name] = {image['id'] for image in part['images']}
            assert {a['image_id'] for a in part['annotations']} == ids[name]
            assert len(part['annotations']) == len(part['images']) == data.splits[name].count
            assert (len(part['categories']), part['info']) == (2, 'kept')
        assert ids['train'] | ids['val'] == set(range(10, 19))
        assert not ids['train'] & ids['val']
    again = read_data(tmp_path, holdout=0.2).splits['val'].content
    assert again == read_data(tmp_path, holdout=0.2).splits['val'].content


def maps(root, labels, splits=('train', 'val')):
    """Images of widths 60, 70, ... and heights 30, 31, ... whose map holds the labels in turn."""
    for split in splits:
        for i, label in enumerate(labels):
            size = 60 + 10 * i, 30 + i
            for folder in ('images', 'masks'):
                (root / folder / split).mkdir(parents=True, exist_ok=True)
            Image.new('RGB', size).save(root / f'images/{split}/{i}.jpg')
            pixels = np.full(size[::-1], label, np.uint8)
            pixels[0, 0] = 0
            Image.fromarray(pixels).save(root / f'masks/{split}/{i}.png')
    return root


def test_figures_of_label_maps(tmp_path):
    maps(tmp_path, [1, 2, 255])
    data = read_data(tmp_path)
    assert (data.size, data.classes) == ((70, 31), ['class_0', 'class_1', 'class_2'])
    assert (data.suffixes, data.ignore) == (('.jpg', '.png'), 255)
    assert [split.count for split in data.splits.values()] == [3, 3]


def test_ignored_labels_are_those_asked_for(tmp_path):
    maps(tmp_path, [1, 2, 254])
    data = read_data(tmp_path, ignore=254)
    assert (data.classes, data.ignore) == (['class_0', 'class_1', 'class_2'], 254)
    (tmp_path / 'classes.txt').write_text('a\nb\nc\n')
    assert read_data(tmp_path, ignore=254).classes == ['a', 'b', 'c']
    # the labels 254 are then one of a class that there is not
    with pytest.raises(UserError, match='has the label 254; 3 classes allow 0 to 2 and 255'):
        read_data(tmp_path)
    # and 255 is one if another label is ignored
    shutil.rmtree(tmp_path / 'masks')
    maps(tmp_path, [1, 2, 255])
    with pytest.raises(UserError, match='has the label 255; 3 classes allow 0 to 2 and 254'):
        read_data(tmp_path, ignore=254)


def test_the_number_of_classes_is_no_label(tmp_path):
    maps(tmp_path, [1, 2, 3])
    (tmp_path / 'classes.txt').write_text('a\nb\nc\n')
    with pytest.raises(UserError, match='has the label 3; 3 classes allow 0 to 2'):
        read_data(tmp_path)
    assert read_data(tmp_path, classes=list('abcd')).classes == list('abcd')
    with pytest.raises(UserError, match=r'--classes b, a, c, d has names of .*classes.txt in ano'):
        read_data(tmp_path, classes=list('bacd'))


def test_parts_of_label_maps(tmp_path):
    maps(tmp_path, [1, 2, 1, 2, 1, 2, 1, 2, 255], ('',))
    for share, held in ((0.2, 2), (0.01, 1), (0.99, 8)):
        splits = read_data(tmp_path, holdout=share).splits
        assert [splits[name].count for name in ('train', 'val')] == [9 - held, held]
        assert [len(splits[name].names) for name in ('train', 'val')] == [9 - held, held]
        assert sorted(splits['train'].names + splits['val'].names) == list('012345678')
        assert splits['val'].names == sorted(splits['val'].names)


def test_notations_of_a_coco_file(tmp_path, capsys):
    """What other programs write is read as training reads it, and written as COCO's."""

    def change(content):
        for image in content['images']:
            image.update(id=str(image['id']), width=str(image['width']))
        for entry in content['annotations']:
            del entry['iscrowd'], entry['area']
            entry.update(bbox=str(entry['bbox']), segmentation=entry['segmentation'][0])

    coco(tmp_path, 5, change=change)
    parts = {k: s.content for k, s in read_data(tmp_path, holdout=0.4).splits.items()}
    err = capsys.readouterr().err
    for text in ('5 annotations without iscrowd', '5 images with another kind of id'):
        assert err.count(text) == 1
    assert [len(part['images']) for part in parts.values()] == [3, 2]
    for part in parts.values():
        for image in part['images']:
            assert type(image['width']) is int and image['id'] in range(10, 15)
        for entry in part['annotations']:
            entry = {k: v for k, v in entry.items() if k not in ('id', 'image_id', 'category_id')}
            assert entry == dict(
                bbox=[1, 2, 3, 4], area=6.0, iscrowd=0, segmentation=[[1, 2, 4, 2, 4, 6]]
            )


@pytest.mark.parametrize(('change', 'message'), [
    (lambda c: c['images'][1].update(file_name=1), 'image 11 has the file_name 1; expected'),
    (lambda c: c['images'][1].update(width=None), "image 11 has no 'width'"),
    (lambda c: c['images'][1].update(width='wide'), "the width 'wide'"),
    (lambda c: c['images'].append([]), r'images\[5\] is \[\]'),
    (lambda c: c.update(annotations={}), 'annotations is an object; expected a list'),
    (lambda c: c.update(categories=[3, 7]), r'categories\[0\] is 3'),
    (lambda c: c['annotations'][1].update(bbox=[1, 2, 10**400, 4]), 'annotation 1 has the box'),
    (lambda c: c['annotations'][1].update(segmentation=[None, [1] * 6]), 'has the polygon None'),
    (lambda c: c['annotations'][1].update(segmentation=[[1, 1, 9, 9, 1e9, 4]]), 'coordinate 10000'),
    (lambda c: c['annotations'][1].update(image_id=None), 'annotation 1 has the image_id None'),
    (lambda c: c['images'].clear(), "the list 'images' is empty"),
    (lambda c: c['annotations'][0].update(segments_info=[]), 'has panoptic annotations'),
    (lambda c: c['images'][1].update(file_name='x' * 300), 'are not in'),
])  # fmt: skip
def test_mistakes_in_a_coco_file(change, message, tmp_path):
    coco(tmp_path, 5, change=change)
    coco(tmp_path, 2, 'val')
    with pytest.raises(UserError, match=rf'train\.json.*{message}'):
        read_data(tmp_path)


def test_hidden_and_nested_files(tmp_path, capsys):
    """Hidden files are none of the data; subfolders are, as the data set reads them."""
    maps(tmp_path, [1, 2])
    for kind, suffix in (('images', '.jpg'), ('masks', '.png')):
        (tmp_path / kind / 'train' / f'._0{suffix}').write_bytes(b'Mac OS X')
        (tmp_path / kind / 'train' / '.ipynb_checkpoints').mkdir()
        (tmp_path / kind / 'train' / '.ipynb_checkpoints' / f'0{suffix}').write_bytes(b'')
        shutil.copytree(tmp_path / kind / 'val', tmp_path / kind / 'train' / 'more')
    data = read_data(tmp_path)
    assert [split.count for split in data.splits.values()] == [4, 2]
    capsys.readouterr()
    Image.new('RGB', (5, 5)).save(tmp_path / 'masks/train/more/x.png')
    (tmp_path / 'images/train/x.heic').write_bytes(b'')
    read_data(tmp_path)
    err = capsys.readouterr().err
    assert 'has label maps of no image: more/x.png' in err
    assert 'are not read: x.heic' in err
    with pytest.raises(UserError, match='which is read with its subfolders'):
        read_data(tmp_path, val=('masks/train/more', 'images/train/more'))
    with pytest.raises(UserError, match=r'classes\.txt is not a folder'):
        (tmp_path / 'classes.txt').write_text('a')
        read_data(tmp_path, val=('classes.txt', 'images/val'))


def test_a_list_needs_names_that_fit_a_line(tmp_path):
    maps(tmp_path, [1, 2, 1], ('',))
    for name in ('a\nb', ' a', 'a ', '\udcff'):
        for kind, suffix in (('images', '.jpg'), ('masks', '.png')):
            (tmp_path / kind / f'1{suffix}').rename(tmp_path / kind / f'{name}{suffix}')
        with pytest.raises(UserError, match='cannot be listed; rename it'):
            read_data(tmp_path, holdout=0.4)
        for kind, suffix in (('images', '.jpg'), ('masks', '.png')):
            (tmp_path / kind / f'{name}{suffix}').rename(tmp_path / kind / f'1{suffix}')


def test_classes_that_no_map_has(tmp_path, capsys):
    maps(tmp_path, [1, 2])
    (tmp_path / 'classes.txt').write_text('\ufeffa\nb\nc\nd\n', 'utf-8')
    assert read_data(tmp_path).classes == ['a', 'b', 'c', 'd']
    assert 'no label map has d; nothing trains' in capsys.readouterr().err
    with pytest.raises(UserError, match='listed twice or empty'):
        read_data(tmp_path, classes=['a', '', 'c'])


@pytest.mark.parametrize('layout', ['coco', 'masks'])
def test_bits_and_channels_of_the_images(layout, tmp_path):
    if layout == 'coco':
        coco(tmp_path, 3)
        coco(tmp_path, 2, 'val')
    else:
        maps(tmp_path, [1, 2])
    assert (read_data(tmp_path).depth.grey, read_data(tmp_path).depth.value_range) == (False, None)
    for path in [*tmp_path.glob('images/*/*'), *tmp_path.glob('*/*.png')]:
        pixels = np.full(Image.open(path).size[::-1], 3000, np.uint16)
        pixels[:10] = 1
        Image.fromarray(pixels).save(path.with_suffix('.png'))
        if path.suffix == '.jpg':
            path.unlink()
    depth = read_data(tmp_path).depth
    assert (depth.bits, depth.value_range, depth.grey) == (16, (0, 3000), True)
