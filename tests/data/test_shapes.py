import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from hybrid_mm.data import shapes

ROOT = Path(__file__).resolve().parents[2]
SMALL = {'training': 24, 'validation': 12}


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    """The data set, smaller, but the same scenes as the first ones of the whole."""
    folder = tmp_path_factory.mktemp('shapes') / 'data'
    assert shapes.write_dataset(folder, splits=SMALL)
    return folder


@pytest.fixture(scope='module')
def whole():
    """All scenes of the real data set."""
    return {
        split: [shapes.draw_scene([0, index, n]) for n in range(1, count + 1)]
        for index, (split, count) in enumerate(shapes.SPLITS.items())
    }


def digest(folder):
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def coco(root, split):
    return json.loads((root / 'annotations' / f'instances_{split}.json').read_text())


def label_map(root, split, name):
    return np.asarray(Image.open(root / 'annotations' / split / name))


def decode(annotation):
    from pycocotools import mask as rle

    return rle.decode(annotation['segmentation']).astype(bool)


def test_same_bytes_for_same_seed(root, tmp_path):
    shapes.write_dataset(tmp_path / 'again', splits=SMALL)
    assert digest(root) == digest(tmp_path / 'again')
    shapes.write_dataset(tmp_path / 'other', seed=1, splits=SMALL)
    other = digest(tmp_path / 'other')
    assert other.keys() == digest(root).keys()
    assert not set(other.values()) & set(digest(root).values())


def test_split_sizes(root):
    for split, count in SMALL.items():
        assert len(coco(root, split)['images']) == count
        assert len(list((root / 'images' / split).glob('*.png'))) == count
        assert len(list((root / 'annotations' / split).glob('*.png'))) == count


@pytest.mark.parametrize('split', SMALL)
def test_boxes_areas_and_masks_agree(root, split):
    for annotation in coco(root, split)['annotations']:
        mask = decode(annotation)
        rows, columns = np.nonzero(mask)
        x, y, w, h = annotation['bbox']
        assert (columns.min(), rows.min()) == (x, y)
        assert (columns.max() + 1, rows.max() + 1) == (x + w, y + h)
        assert annotation['area'] == mask.sum() >= shapes.MIN_PIXELS


@pytest.mark.parametrize('split', SMALL)
def test_semantic_map_is_the_union_of_the_masks(root, split):
    data = coco(root, split)
    for image in data['images']:
        semantic = label_map(root, split, image['file_name'])
        assert semantic.shape == (image['height'], image['width'])
        assert Image.open(root / 'images' / split / image['file_name']).size == semantic.shape[::-1]
        union = np.ones_like(semantic)  # 1 is background
        for annotation in data['annotations']:
            if annotation['image_id'] == image['id']:
                mask = decode(annotation)
                assert (union[mask] == 1).all(), 'visible masks are disjoint'
                union[mask] = annotation['category_id'] + 1
        np.testing.assert_array_equal(union, semantic)


def test_every_class_and_size_in_both_splits(whole):
    for scenes in whole.values():
        areas = [np.bincount(s.instances.ravel())[1:] for s in scenes]
        labels = np.concatenate([s.labels for s in scenes])
        assert np.bincount(labels, minlength=len(shapes.CLASSES)).min() >= 20
        # COCO's small, medium and large
        small, medium, large = np.histogram(np.concatenate(areas), [0, 32**2, 96**2, 1e9])[0]
        assert small >= 100 and medium >= 100 and large >= 10


def test_drawing_of_this_version(whole):
    """Figures of the scenes for seed 0: what moves them needs another ``VERSION``."""
    assert shapes.VERSION == 1
    scenes = whole['validation']
    assert [s.labels for s in scenes[:4]] == [(2, 1, 1, 6, 6), (1, 0, 5, 7), (1, 6, 3), (5, 6, 3)]
    assert [s.instances.shape for s in scenes[:4]] == [
        (160, 160),
        (144, 160),
        (128, 160),
        (128, 128),
    ]
    labels = np.concatenate([s.labels for s in scenes])
    assert np.bincount(labels).tolist() == [32, 39, 34, 41, 36, 47, 40, 44]
    area = sum(int((s.instances > 0).sum()) for s in scenes)
    assert area == pytest.approx(790389, rel=1e-4)
    assert np.mean([s.image.mean() for s in scenes]) == pytest.approx(119.384, rel=1e-4)
    # between neighbours, most of it the grain of the picture
    steps = [np.abs(np.diff(s.image.astype(float), axis=1)).mean() for s in scenes]
    assert np.mean(steps) == pytest.approx(9.432, rel=1e-3)


def test_annotations_of_a_scene_by_hand():
    instances = np.zeros((7, 9), np.uint8)
    instances[1:4, 2:7] = 1
    instances[2, 3:5] = 2  # in front of the first
    scene = shapes.Scene(np.zeros((7, 9, 3), np.uint8), instances, (4, 0))
    first, second = shapes.coco_annotations(scene)
    assert (first['category_id'], first['bbox'], first['area']) == (5, [2, 1, 5, 3], 13)
    assert (second['category_id'], second['bbox'], second['area']) == (1, [3, 2, 2, 1], 2)
    assert first['segmentation']['size'] == [7, 9] and first['iscrowd'] == 0
    np.testing.assert_array_equal(decode(second), instances == 2)
    assert scene.semantic[1, 2] == 5 and scene.semantic[2, 3] == 1 and scene.semantic[0, 0] == 0


def test_shapes_occlude_each_other(whole):
    """Some shapes are cut by others: their number is that of the touching pairs."""
    touching = 0
    for scene in whole['validation']:
        a, b = scene.instances[:, :-1], scene.instances[:, 1:]
        touching += len({(i, j) for i, j in zip(a[a != b], b[a != b], strict=True) if i and j})
    assert touching > 50


def test_colour_alone_does_not_name_the_class(whole):
    """Most shapes of a class have its colour, but not all: shapes matter."""
    own = total = 0
    palette = np.array([shapes._hsv(rgb)[0] for rgb in shapes.PALETTE])
    for scene in whole['training'][:100]:
        for number, label in enumerate(scene.labels, start=1):
            rgb = np.median(scene.image[scene.instances == number], axis=0)
            distance = np.abs(palette - shapes._hsv(rgb)[0])
            own += np.argmin(np.minimum(distance, 1 - distance)) == label
            total += 1
    assert 0.75 < own / total < 0.95


def test_second_call_writes_nothing(root):
    before = digest(root)
    assert not shapes.write_dataset(root, splits=SMALL)
    assert digest(root) == before


def test_half_written_and_older_ones_are_replaced(tmp_path):
    folder = tmp_path / 'data'
    shapes.write_dataset(folder, splits={'validation': 1})
    assert shapes.write_dataset(folder, splits={'validation': 2})
    assert len(coco(folder, 'validation')['images']) == 2

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shapes.write_dataset(folder, seed=5, splits={'validation': 2}, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ['data']
    assert not shapes.write_dataset(folder, splits={'validation': 2}), 'the old one is whole'


def test_folder_of_others_is_refused(tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='choose another folder'):
        shapes.write_dataset(tmp_path)
    with pytest.raises(ValueError, match='test'):
        shapes.write_dataset(tmp_path / 'new', splits={'test': 1})
    assert (tmp_path / 'thesis.txt').read_text() == 'mine'


def test_read_by_mmdet(root):
    from mmdet.registry import DATASETS
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    cfg = Config.fromfile(ROOT / 'configs/demo/mask-rcnn_van-lska-mini_fpn_shapes.py')
    assert tuple(cfg.metainfo.classes) == shapes.CLASSES
    assert tuple(map(tuple, cfg.metainfo.palette)) == shapes.PALETTE
    cfg.train_dataloader.dataset.data_root = str(root)
    data = DATASETS.build(cfg.train_dataloader.dataset)
    assert len(data) == SMALL['training']
    sample, found = data[0], coco(root, 'training')['annotations']
    found = [a for a in found if a['image_id'] == sample['data_samples'].img_id]
    truth = sample['data_samples'].gt_instances
    assert truth.labels.tolist() == [a['category_id'] - 1 for a in found]
    masks = truth.masks.masks
    if sample['data_samples'].flip:
        masks = masks[..., ::-1]
    np.testing.assert_array_equal(masks, [decode(a) for a in found])


def test_read_by_mmseg(root):
    from mmseg.registry import DATASETS
    from mmseg.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    cfg = Config.fromfile(ROOT / 'configs/demo/van-lska-mini_semfpn_shapes.py')
    assert tuple(cfg.metainfo.classes) == shapes.SEG_CLASSES
    assert tuple(map(tuple, cfg.metainfo.palette)) == shapes.SEG_PALETTE
    cfg.val_dataloader.dataset.data_root = str(root)
    data = DATASETS.build(cfg.val_dataloader.dataset)
    assert len(data) == SMALL['validation']
    labels = data[0]['data_samples'].gt_sem_seg.data.squeeze().numpy()
    np.testing.assert_array_equal(labels, label_map(root, 'validation', '0001.png') - 1)
    assert labels.max() < len(shapes.SEG_CLASSES)


def test_read_as_ade20k(root):
    """MMSegmentation's ADE20K data set finds the files and reduces the labels."""
    from mmseg.datasets import ADE20KDataset

    data = ADE20KDataset(
        img_suffix='.png',
        data_root=str(root),
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'),
    )
    assert len(data) == SMALL['training'] and data.reduce_zero_label
