"""Shifted test sets of ImageNet: labels of the folders, and what is wrong with a folder."""

import hashlib

import pytest
from mmengine.registry import DATASETS

import hybrid_mm.registry  # noqa: F401
from hybrid_mm.data import ImageNetA, ImageNetC, ImageNetR, ImageNetSketch
from hybrid_mm.data.imagenet_variants import IMAGENET_A, IMAGENET_R


def make(root, number):
    for i in range(number):
        folder = root / f'n{i:08d}'
        folder.mkdir(parents=True)
        (folder / 'b.JPEG').write_bytes(b'')
        (folder / 'notes.txt').write_text('')
    return root


@pytest.mark.parametrize('labels', [IMAGENET_A, IMAGENET_R])
def test_tables(labels):
    assert len(labels) == 200
    assert list(labels) == sorted(set(labels))
    assert labels[0] >= 0 and labels[-1] < 1000
    digest = hashlib.sha256(','.join(map(str, labels)).encode()).hexdigest()[:16]
    assert digest == {6: '973e8c3e530bf5db', 1: 'a1d9a9ace3098120'}[labels[0]]


@pytest.mark.parametrize(('cls', 'labels'), [(ImageNetA, IMAGENET_A), (ImageNetR, IMAGENET_R)])
def test_two_hundred_classes(tmp_path, cls, labels):
    found = DATASETS.build(
        dict(type=f'hybrid_mm.{cls.__name__}', data_root=str(make(tmp_path, 200)))
    )
    assert [found.get_data_info(i)['gt_label'] for i in range(len(found))] == list(labels)
    assert found.metainfo['valid_labels'] == labels
    assert len(found.metainfo['classes']) == 1000
    assert found.get_data_info(3)['img_path'].endswith('n00000003/b.JPEG')
    assert found.test_mode
    assert not cls(str(tmp_path), test_mode=False).test_mode


def test_all_classes_and_corruptions(tmp_path):
    make(tmp_path / 'fog' / '3', 1000)
    found = ImageNetC(str(tmp_path), 'fog', 3)
    assert found.get_data_info(999)['gt_label'] == 999
    found = ImageNetSketch(str(tmp_path / 'fog' / '3'), metainfo=dict(classes=('x',) * 1000))
    assert found.metainfo['classes'][0] == 'x'


def test_wrong_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'ImageNetR: folder .*no does not exist'):
        ImageNetR(str(tmp_path / 'no'))
    with pytest.raises(ValueError, match=r'expected 200 folders, one per class, in .*, got 0'):
        ImageNetA(str(tmp_path))
    make(tmp_path, 200)
    (tmp_path / 'n00000007' / 'b.JPEG').unlink()
    with pytest.raises(FileNotFoundError, match='n00000007 holds no images'):
        ImageNetA(str(tmp_path))
    with pytest.raises(ValueError, match="got 'rain' and 3"):
        ImageNetC(str(tmp_path), 'rain', 3)
