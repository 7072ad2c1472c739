"""The reader of COCO files: what is converted, what is refused, and what is left out."""

import copy
import gzip
import json
import re

import numpy as np
import pytest
from pycocotools import mask as mask_api

from hybrid_mm.data import coco_check
from hybrid_mm.data.coco_check import check_coco, coco_categories, read_coco_file
from hybrid_mm.data.coco_lists import Use
from hybrid_mm.data.coco_masks import area_of, totals
from hybrid_mm.errors import UserError

TRIANGLE = [[10, 10, 30, 10, 30, 20]]
RUNS = dict(size=[40, 60], counts=[410, 20, 1970])
TRAINING, EVALUATION = Use(masks='all'), Use(masks='all', evaluated=True)


def content() -> dict:
    """Two images of 40 x 60 (height x width) with three objects."""
    whole = dict(bbox=[10, 10, 20, 10], area=100.0, iscrowd=0, segmentation=TRIANGLE)
    return dict(
        images=[dict(id=i, file_name=f'{i}.png', height=40, width=60) for i in (1, 2)],
        annotations=[
            dict(id=5, image_id=1, category_id=3, **copy.deepcopy(whole)),
            dict(id=6, image_id=1, category_id=4, **copy.deepcopy(whole)),
            dict(id=7, image_id=2, category_id=4, **copy.deepcopy(whole)),
        ],
        categories=[dict(id=3, name='cup'), dict(id=4, name='fork')],
    )


@pytest.fixture(autouse=True)
def each_test_is_warned():
    coco_check._warn_once.cache_clear()


def checked(change, use=TRAINING):
    data = content()
    change(data)
    return data, check_coco(data, 'some.json', use)


def of_all(name, **values):
    """A change of all entries of a list; values may be functions of the old ones."""

    def change(data):
        for entry in data[name]:
            for key, value in values.items():
                entry[key] = value(entry[key]) if callable(value) else value

    return change


def without(name, key):
    def change(data):
        for entry in data[name]:
            del entry[key]

    return change


def both(*changes):
    def change(data):
        for part in changes:
            part(data)

    return change


def of_first(**values):
    return lambda data: data['annotations'][0].update(values)


SAME = [  # read as if it were COCO's, with a warning of a kind and a count
    (of_all('annotations', iscrowd='0'), '3 annotations with iscrowd as text; read as numbers'),
    (of_all('annotations', iscrowd='false'), '3 annotations with iscrowd as text'),
    (of_all('annotations', iscrowd=None), '3 annotations without iscrowd; taken as 0'),
    (without('annotations', 'iscrowd'), '3 annotations without iscrowd; taken as 0'),
    (of_all('annotations', iscrowd=False), None),
    (of_all('annotations', iscrowd=0.0), None),
    (of_all('images', id=str), '2 images with another kind of id; read as whole numbers'),
    (of_all('images', id='00{}'.format), '2 images with another kind of id; read as whole numbers'),
    (of_all('images', id=float), '2 images with another kind of id'),
    (of_all('annotations', image_id=str), '3 annotations whose image_id is of another kind'),
    (of_all('categories', id=str), '2 categories with another kind of id'),
    (of_all('annotations', category_id=str), '3 annotations whose category_id is of another kind'),
    (of_all('annotations', id=str), '3 annotations with text as id; read as numbers'),
    (of_all('annotations', bbox=lambda b: [*map(str, b)]), '3 annotations with a box as text'),
    (of_all('annotations', bbox=str), '3 annotations with a box as text'),
    (of_all('annotations', area=str), '3 annotations with an area as text; read as a number'),
    (of_all('annotations', area=0), '3 annotations without a positive area; computed from their'),
    (of_all('annotations', area=None), '3 annotations without a positive area'),
    (of_all('annotations', area=float('nan')), '3 annotations without a positive area'),
    (without('annotations', 'area'), '3 annotations without a positive area'),
    (of_all('images', height=40.0), None),
    (of_all('images', height='40'), '2 images with a size as text; read as numbers'),
    (
        of_all('annotations', segmentation=lambda m: m[0]),
        '3 annotations with a polygon that is not in a list of polygons',
    ),
    (
        of_all('annotations', segmentation=[[10, 10], [30, 10], [30, 20]]),
        '3 annotations with a polygon as a list of points',
    ),
    (
        of_all('annotations', segmentation=[[[10, 10], [30, 10], [30, 20]]]),
        '3 annotations with a polygon as a list of points',
    ),
    (
        of_all('annotations', segmentation=[['10', '10', '30', '10', '30', '20']]),
        '3 annotations with coordinates as text',
    ),
    (of_all('annotations', segmentation=str), None),
    (
        of_all('annotations', segmentation=[*TRIANGLE, [1, 1, 5, 5]]),
        '3 annotations with further polygons of one or two points',
    ),
    (
        lambda data: data['categories'].insert(0, dict(id=0, name='cup')),
        '1 categories without objects, with the name of another; left out (first: 0 (cup))',
    ),
]


@pytest.mark.parametrize(('change', 'warning'), SAME)
@pytest.mark.parametrize('use', [TRAINING, EVALUATION], ids=['training', 'evaluation'])
def test_converted(change, warning, use, capsys):
    data, found = checked(change, use)
    assert data == content()
    for image in data['images']:  # pycocotools takes no float
        assert type(image['height']) is int
    assert all(type(entry['iscrowd']) is int for entry in data['annotations'])
    assert (found.images, found.annotations, found.broken) == (2, 3, {})
    assert found.objects == dict(cup=1, fork=2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (warning is not None)
    if warning:
        assert lines[0].startswith(f'warning: some.json: {warning}')


def test_ids_that_are_text(capsys):
    """All of a kind: pycocotools sorts them."""
    change = both(of_all('images', id='a{}'.format), of_all('annotations', image_id='a{}'.format))
    data, found = checked(change)
    assert not found.broken and not found.left_out
    assert capsys.readouterr().err == ''

    def mixed(data):
        data['images'][0]['id'] = 'left'
        data['annotations'][0]['image_id'] = data['annotations'][1]['image_id'] = 'left'

    data, found = checked(mixed)
    assert [image['id'] for image in data['images']] == ['left', '2']
    assert [entry['image_id'] for entry in data['annotations']] == ['left', 'left', '2']

    def two_notations(data):  # '07' and '7' are two images
        for image, number in zip(data['images'], ['07', '7'], strict=True):
            image['id'] = number
        for entry, number in zip(data['annotations'], ['07', '7', 7], strict=True):
            entry['image_id'] = number

    data, _ = checked(two_notations)
    assert [image['id'] for image in data['images']] == ['07', '7']
    assert [entry['image_id'] for entry in data['annotations']] == ['07', '7', '7']


@pytest.mark.parametrize('bad', ['x-1', None, float('nan'), [1], 10**30, True, 1.5], ids=str)
def test_annotations_are_numbered(bad, capsys):
    data, _ = checked(of_first(id=bad))
    assert [entry['id'] for entry in data['annotations']] == [8, 6, 7]
    assert '1 annotations whose id is not a number; renumbered' in capsys.readouterr().err


def test_the_id_0_is_no_match(capsys):
    """Pycocotools notes the id of what is matched, and takes 0 for nothing."""
    data, _ = checked(of_first(id=0))
    assert data['annotations'][0]['id'] == 0
    data, _ = checked(of_first(id=0), EVALUATION)
    assert data['annotations'][0]['id'] == 8
    assert '1 annotations with the id 0, by which' in capsys.readouterr().err


def test_areas_are_computed():
    data, _ = checked(of_all('annotations', area=0, segmentation=RUNS))
    assert [entry['area'] for entry in data['annotations']] == [20.0] * 3
    # polygons by their corners, which may cross; what is no mask, or not read, by its box
    for mask in ([], None, 5, [[10, 10, 30, 20, 10, 20, 30, 10]], dict(size=[1, 1], counts=[1])):
        data, _ = checked(of_all('annotations', area=None, segmentation=mask), Use())
        assert [entry['area'] for entry in data['annotations']] == [200] * 3
    two = [[0, 0, 4, 0, 4, 4, 0, 4], [10, 10, 12, 10, 12, 12]]
    assert area_of(two, 40, 60) == 18
    text = mask_api.frPyObjects(RUNS, 40, 60)['counts'].decode()
    assert area_of(dict(RUNS, counts=text), 40, 60) == 20


NAN, HUGE = float('nan'), 10**400
BROKEN = [  # the image cannot be used
    (dict(iscrowd=NAN), 'has iscrowd nan; expected 0 or 1'),
    (dict(iscrowd=2), 'has iscrowd 2; expected 0 or 1'),
    (dict(iscrowd=[0]), r'has iscrowd \[0\]'),
    (dict(ignore='perhaps'), "has ignore 'perhaps'"),
    (dict(category_id=None), 'has the category None; the file has 3, 4'),
    (dict(category_id=[3]), r'has the category \[3\]'),
    (dict(category_id=True), 'has the category True'),
    (dict(bbox=[1, 2, HUGE, 4]), 'has the box .*; expected four finite numbers'),
    (dict(bbox=[1, 2, True, 4]), 'has the box'),
    (dict(bbox=[1, 2, 1e300, 4]), 'has the box'),
    (dict(bbox=[[1, 2, 3, 4]]), 'has the box'),
    (dict(bbox=None), 'has the box None'),
    (dict(bbox=dict(x=1)), 'has the box'),
    (dict(segmentation=None), 'has no segmentation'),
    (dict(segmentation=7), 'has the segmentation 7; expected polygons or run lengths'),
    (dict(segmentation='cup'), "has the segmentation 'cup'"),
    (dict(segmentation=[None]), 'has a polygon with the coordinate None'),
    (dict(segmentation=[None, *TRIANGLE]), 'has the polygon None'),
    (dict(segmentation=[[1, 1, 9, 1, 9, NAN]]), 'a polygon with the coordinate nan; expected numb'),
    (dict(segmentation=[[NAN, 1, 9, 1, 9, 9]]), 'a polygon with the coordinate nan'),
    (dict(segmentation=[[1, 1, 9, 1, 9, float('inf')]]), 'the coordinate inf'),
    (dict(segmentation=[[1, 1, 9, 1, 9, HUGE]]), 'the coordinate 1000'),
    (dict(segmentation=[[1, 1, 9, 1, HUGE, NAN]]), 'the coordinate 1000'),
    (
        dict(segmentation=[[1, 1, 9, 1, 9, 1e8]]),
        'the coordinate 100000000.0; .* from -1600 to 1600',
    ),
    (dict(segmentation=[[1, 1, -1e9, 1, 9, 9]]), 'the coordinate -1000000000.0'),
    (dict(segmentation=[[1, 1, 9, 1, 9, True]]), 'the coordinate True'),
    (dict(segmentation=[[1, 1, 9, 1, 9, [9]]]), r'the coordinate \[9\]'),
    (dict(segmentation=dict(size=[40, 60])), 'the counts None; expected a list'),
    (dict(segmentation=dict(counts=[7])), 'add up to 7; its image of 40 x 60 has 2400 pixels'),
    (dict(segmentation=dict(RUNS, size=[60, 40])), r'a mask of the size \[60, 40\]; its image has'),
    (dict(segmentation=dict(RUNS, size='cup')), "a mask of the size 'cup'"),
    (dict(segmentation=dict(RUNS, counts=[410, 20, 1969])), 'add up to 2399'),
    (dict(segmentation=dict(RUNS, counts=[410, -20, 2010])), 'are not counts of pixels: -20'),
    (dict(segmentation=dict(RUNS, counts=[410, 20, 'x'])), "not counts of pixels: 'x'"),
    (dict(segmentation=dict(RUNS, counts=[410, 20.5, 1969.5])), 'not counts of pixels: 20.5'),
    (dict(segmentation=dict(RUNS, counts='')), 'are not the text that pycocotools writes'),
    (dict(segmentation=dict(RUNS, counts="b'abc'")), 'run-length mask whose counts'),
    (dict(segmentation=dict(RUNS, counts='PPPP')), 'are not the text that pycocotools writes'),
    (dict(segmentation=dict(RUNS, counts='Ω')), 'are not the text that pycocotools writes'),
    (dict(segmentation=dict(RUNS, counts={})), 'the counts {}; expected a list'),
    (dict(segmentation=[RUNS, RUNS]), 'the coordinate {'),
]


@pytest.mark.parametrize(('values', 'message'), BROKEN, ids=[m for _, m in BROKEN])
def test_broken(values, message):
    for use in (TRAINING, EVALUATION):
        data, found = checked(of_first(**values), use)
        assert list(found.broken) == [1]
        text = rf'1\.png: annotation 5 has .*{message.removeprefix("has ")}'
        assert re.match(text, found.broken[1]), found.broken[1]
        # nothing is left of it
        assert [image['id'] for image in data['images']] == [2]
        assert [entry['id'] for entry in data['annotations']] == [7]


def test_masks_that_are_not_read_may_be_anything():
    for values, message in BROKEN:
        if 'segmentation' in values:
            data, found = checked(of_first(**values), Use())
            assert not found.broken, message
            assert data['annotations'][0]['segmentation'] is values['segmentation']


def test_masks_that_need_not_be_there():
    for mask in ([], None):
        assert not checked(of_first(segmentation=mask), Use(masks='given'))[1].broken
    assert checked(of_first(segmentation=[[1, 1, 5, NAN, 2, 2]]), Use(masks='given'))[1].broken


REFUSED = [  # the file cannot be used
    (lambda d: d.update(annotations={}), r'some.json: annotations is an object; expected a list'),
    (lambda d: d.update(images=None), 'images is null; expected'),
    (lambda d: d.pop('categories'), "no list 'categories'"),
    (lambda d: d['images'].append([]), r'images\[2\] is \[\]; expected an object'),
    (lambda d: d.update(categories=[3, 4]), r'categories\[0\] is 3; expected an object'),
    (lambda d: d['annotations'].append(None), r'annotations\[3\] is None'),
    (lambda d: d['images'][0].pop('id'), r'images\[0\] has the id None; expected a whole number'),
    (lambda d: d['images'][0].update(id=[1]), r'images\[0\] has the id \[1\]'),
    (lambda d: d['images'][0].update(id=NAN), r'images\[0\] has the id nan'),
    (lambda d: d['images'][0].update(id=HUGE), r'images\[0\] has the id 1000'),
    (lambda d: d['images'][0].update(id='2'), 'ids of images must be unique; .*: 2'),
    (
        lambda d: d['images'][0].update(file_name=7),
        'image 1 has the file_name 7; expected the name',
    ),
    (lambda d: d['images'][0].update(file_name=' '), "image 1 has the file_name ' '"),
    (lambda d: d['images'][0].update(file_name='a\0b'), 'image 1 has the file_name'),
    (lambda d: d['images'][0].update(file_name='\ud800'), 'image 1 has the file_name'),
    (lambda d: d['images'][0].update(file_name=None), "image 1 has no 'file_name'"),
    (
        lambda d: d['images'][0].update(height=0),
        r'image 1 \(1.png\) has the height 0; expected a n',
    ),
    (lambda d: d['images'][0].update(width=-60), r'has the width -60'),
    (lambda d: d['images'][0].update(width='wide'), "has the width 'wide'"),
    (lambda d: d['images'][0].update(width=60.5), 'has the width 60.5'),
    (lambda d: d['images'][0].update(width=HUGE), 'has the width 1000'),
    (lambda d: d['images'][0].update(width=True), 'has the width True'),
    (lambda d: d['images'][0].update(width=NAN), 'has the width nan'),
    (lambda d: d['categories'][0].pop('name'), 'category 3 has the name None; expected text'),
    (lambda d: d['categories'][0].update(name=['cup']), r"category 3 has the name \['cup'\]"),
    (lambda d: d['categories'][0].update(name='fork'), "categories 3, 4 are all named 'fork', and"),
    (lambda d: d['categories'][0].update(id=None), r'categories\[0\] has the id None'),
    (of_first(image_id=None), 'annotation 5 has the image_id None; expected the id of an image'),
    (of_first(image_id=[1]), r'annotation 5 has the image_id \[1\]'),
    (of_first(image_id=True), 'annotation 5 has the image_id True'),
    (of_first(id=6), 'ids of annotations must be unique; used more than once: 6'),
    (
        of_all('annotations', image_id=77),
        'all 3 annotations are of images that are not listed; their image_id is 77, .* are 1, 2',
    ),
]


@pytest.mark.parametrize(('change', 'message'), REFUSED, ids=[m for _, m in REFUSED])
def test_refused(change, message):
    for use in (Use(), EVALUATION):
        with pytest.raises(UserError, match=message):
            checked(change, use)


@pytest.mark.parametrize('text', ['', '{"images": [', '[1, 2]', '7', '[' * 100_000, '"\\ud800'])
def test_no_json(text, tmp_path):
    path = tmp_path / 'x.json'
    path.write_text(text)
    with pytest.raises(UserError, match=r'x.json is not in the format of COCO'):
        read_coco_file(str(path), Use())
    path.write_bytes(b'\xff\xfe')
    with pytest.raises(UserError, match=r'x.json is not in the format of COCO'):
        read_coco_file(str(path), Use())
    with pytest.raises(UserError, match=r'cannot be read'):
        read_coco_file(str(tmp_path), Use())


def test_a_test_set_without_annotations():
    """Images of COCO's test-dev, of which predictions are sent in."""
    data, found = checked(lambda d: d.pop('annotations'), EVALUATION)
    assert data['annotations'] == [] and found.annotations == 0


def test_what_is_left_out(capsys):
    for values, reason in (
        (dict(bbox=[5, 5, 0, 9]), 'with a box of no area inside its image'),
        (dict(bbox=[-9, 5, 9, 9]), 'with a box of no area inside its image'),
        (dict(bbox=[5, 5, 9, 0.5]), 'with a box of no area inside its image'),
        (dict(bbox=[5, 5, 0.5, 9]), 'with a box of no area inside its image'),
        (dict(segmentation=[[1, 1, 5, 5]]), 'whose mask has fewer than three points'),
        (dict(segmentation=[1, 1, 5, 5]), 'whose mask has fewer than three points'),
        (dict(segmentation=[[]]), 'whose mask has fewer than three points'),
        (dict(image_id=9), 'of images that are not listed'),
    ):
        coco_check._warn_once.cache_clear()
        data, found = checked(of_first(**values))
        assert found.left_out == {reason: ['5']}
        assert found.objects == dict(cup=0, fork=2)
        text = '1 annotations ' + reason + ' take no part in training (ids 5)'
        assert text in capsys.readouterr().err
        assert f'2 images, 3 annotations, 1 of them {reason}; objects: 2 fork' == str(found)
        for entry in data['annotations']:  # MMDetection looks at the lengths of polygons
            assert all(isinstance(part, list) for part in entry['segmentation'])
    found = checked(of_first(iscrowd=1))[1]
    assert found.objects == dict(cup=0, fork=2) and not found.left_out


def test_objects_without_a_mask_are_not_evaluated():
    _, found = checked(of_first(segmentation=[[1, 1, 5, 5]]), EVALUATION)
    assert 'annotation 5 has a mask whose polygons have fewer than three points' in found.broken[1]
    # those that training leaves out count as missed
    _, found = checked(of_first(bbox=[5, 5, 0, 9], area=None), EVALUATION)
    assert not found.broken
    # and pycocotools reads their masks
    _, found = checked(of_first(bbox=[5, 5, 0, 9], segmentation=[[1, 1, 5, 1e9, 5, 5]]), EVALUATION)
    assert found.broken


def test_run_lengths_where_polygons_are_needed():
    use = Use(masks='all', polygons_only=True)
    _, found = checked(of_first(segmentation=RUNS), use)
    assert 'MMDetection ignores with poly2mask=False; set poly2mask=True' in found.broken[1]
    # MMDetection ignores crowds anyway, and COCO's are run lengths
    assert not checked(of_first(segmentation=RUNS, iscrowd=1), use)[1].broken


def test_masks_of_no_pixels(capsys):
    for counts in ([2400], mask_api.frPyObjects(dict(size=[40, 60], counts=[2400]), 40, 60)):
        counts = counts if isinstance(counts, list) else counts['counts'].decode()
        coco_check._warn_once.cache_clear()
        assert not checked(of_first(segmentation=dict(RUNS, counts=counts)))[1].broken
        text = '1 annotations with a box, but a mask of no pixels (first: 5)'
        assert text in capsys.readouterr().err


def test_corners_of_boxes(capsys):
    def corners(data):
        data['annotations'] = [
            dict(data['annotations'][0], id=i + 1, bbox=[40, 10, 55, 30]) for i in range(20)
        ]

    checked(corners)
    assert '20 of 20 boxes reach out of their image; COCO files have' in capsys.readouterr().err


def test_compressed_masks():
    """Sums and areas are those of pycocotools, of many masks at once; what is none is found."""
    rng = np.random.default_rng(0)
    texts, areas = [], []
    for i in range(300):
        runs = rng.geometric(10.0 ** -(i % 4), 40).cumsum()
        mask = np.zeros(1200, np.uint8)
        for start, end in zip(runs[::2], runs[1::2], strict=True):
            mask[start:end] = 1
        texts.append(mask_api.encode(np.asfortranarray(mask.reshape(30, 40)))['counts'].decode())
        areas.append(int(mask.sum()))
    filled, covered = totals(texts)
    assert filled.tolist() == [1200] * 300
    assert covered.tolist() == areas
    big = mask_api.frPyObjects(dict(size=[60000, 60000], counts=[3_599_999_990, 10]), 1, 1)
    bad = ['', 'P', 'é', 'a b', 'o' * 9, 'A', '0' * 3 + 'A']
    filled, covered = totals([*bad, texts[7], big['counts'].decode(), *bad])
    assert filled.tolist() == [-1] * 7 + [1200, 3_600_000_000] + [-1] * 7
    assert covered.tolist() == [-1] * 7 + [areas[7], 10] + [-1] * 7
    assert [part.tolist() for part in totals([])] == [[], []]
    use = Use(masks='all')
    good = dict(size=[40, 60], counts=mask_api.frPyObjects(RUNS, 40, 60)['counts'].decode())
    _, found = checked(of_all('annotations', segmentation=good), use)
    assert not found.broken
    _, found = checked(of_first(segmentation=dict(good, counts=good['counts'][:-1])), use)
    assert list(found.broken) == [1]


def test_categories_at_any_place_of_the_file(tmp_path):
    """After a key of the same name at another level, and longer than one block of reading."""
    names = [f'category number {i} of many' for i in range(1500)]
    categories = [dict(id=i, name=name, supercategory='x' * 30) for i, name in enumerate(names)]
    assert len(json.dumps(categories)) > 2 << 16
    path = tmp_path / 'x.json'
    for whole in (
        dict(categories=categories, images=[dict(id=1)] * 5),
        dict(info=dict(categories=[1, 2]), images=[dict(id=1)] * 5000, categories=categories),
    ):
        path.write_text(json.dumps(whole))
        assert coco_categories(str(path)) == names
    path.write_text(json.dumps(dict(images=[], categories=categories[:2])))
    assert coco_categories(str(path)) == names[:2]


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        (b'{"images": []}', "has no list 'annotations'"),
        (b'[1, 2]', 'it is a list'),
        (b'  \n', 'Expecting value'),
        (b'\xef\xbb\xbf{}', 'byte order mark'),
        ('{}'.encode('utf-16'), 'is UTF-16'),
        (gzip.compress(b'{}', mtime=0), 'unpack it with gunzip'),
        (b'<annotation/>', 'is XML or HTML'),
        (
            b'{"images": [], "annotations": [], "categories": {"1": "dog"}}',
            'categories is an object; expected a list',
        ),
    ],
)
def test_files_without_categories(tmp_path, content, message):
    path = tmp_path / 'x.json'
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        coco_categories(str(path))


def test_two_images_of_one_file(capsys):
    data = content()
    data['images'][1]['file_name'] = '1.png'
    check_coco(data, 'merged.json', TRAINING)
    assert 'merged.json: 1 images that have the file of another one' in capsys.readouterr().err


def test_areas_that_pycocotools_leaves_out():
    data = content()
    data['annotations'][0]['area'] = 1e18
    check_coco(data, 'large.json', EVALUATION)
    assert data['annotations'][0]['area'] == 100  # of the triangle
