"""HAM10000: labels, split by lesion, errors; training through the real pipelines."""

import csv

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from hybrid_mm.data import HAM10000
from hybrid_mm.errors import UserError
from hybrid_mm.registry import DATASETS
from hybrid_mm.run.checks.data import check_data

CLASSES = HAM10000.METAINFO['classes']


def table(folder, lesions=40, images=2, **change):
    rows = [
        dict(lesion_id=f'HAM_{i:07d}', image_id=f'ISIC_{i}_{j}', dx=CLASSES[i % 7], age='40')
        for i in range(lesions)
        for j in range(images)
    ]
    rows = [{k: v for k, v in {**row, **change}.items() if v is not None} for row in rows]
    with open(folder / 'HAM10000_metadata.csv', 'w', newline='') as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / 'images').mkdir()
    pixels = np.zeros((45, 60, 3), np.uint8)
    for row in rows:
        Image.fromarray(pixels).save(folder / f'images/{row["image_id"]}.jpg')


def lesions(dataset):
    return {item['img_path'].rsplit('_', 1)[0].rsplit('/', 1)[1] for item in dataset}


def test_split_by_lesion(tmp_path):
    table(tmp_path)
    train, test = (HAM10000(split=s, data_root=str(tmp_path)) for s in ('train', 'test'))
    assert len(train) + len(test) == 80
    assert not lesions(train) & lesions(test)
    assert 2 <= len(lesions(test)) <= 16
    for item in train:
        lesion = int(item['img_path'].split('ISIC_')[1].split('_')[0])
        assert item['gt_label'] == lesion % 7
    half = HAM10000(split='test', test_fraction=0.5, data_root=str(tmp_path))
    assert lesions(test) < lesions(half)


def test_split_is_the_same_everywhere(tmp_path):
    """By names and numbers that are stored here, of the published order of the classes."""
    assert CLASSES == ('akiec', 'bcc', 'bkl', 'df', 'mel', 'nv', 'vasc')
    table(tmp_path, images=1)
    for settings, numbers in (
        (dict(), {2, 6, 12, 16, 22, 26, 32}),  # a fifth by default
        (dict(test_fraction=0.2), {2, 6, 12, 16, 22, 26, 32}),
        (dict(test_fraction=0.1), {12, 16}),
    ):
        test = HAM10000(split='test', data_root=str(tmp_path), **settings)
        assert lesions(test) == {f'ISIC_{i}' for i in numbers}
        train = HAM10000(data_root=str(tmp_path), **settings)
        assert lesions(train) == {f'ISIC_{i}' for i in set(range(40)) - numbers}
    (label,) = {item['gt_label'] for item in test if 'ISIC_12_' in item['img_path']}
    assert label == 12 % 7


@pytest.mark.parametrize('change, message', [
    (dict(dx='wart'), "'wart', expected one of akiec"),
    (dict(lesion_id=None), 'has no column lesion_id'),
])  # fmt: skip
def test_wrong_tables(tmp_path, change, message):
    table(tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        HAM10000(data_root=str(tmp_path))
    with pytest.raises(ValueError, match="split must be 'train' or 'test'"):
        HAM10000(split='val', data_root=str(tmp_path))


def test_config(tmp_path, monkeypatch, pytestconfig):
    path = pytestconfig.rootpath / 'configs/attention_modules/resnet50-se_1xb32-30e_ham10000.py'
    monkeypatch.setenv('HAM10000_ROOT', str(tmp_path))
    with pytest.raises(UserError, match=r'HAM10000_metadata.csv does not exist(.|\n)*=DIR'):
        check_data(Config.fromfile(path), 'train_dataloader')
    table(tmp_path)
    cfg = Config.fromfile(path)
    check_data(cfg, 'train_dataloader')
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            item = DATASETS.build(loader.dataset)[0]
            assert item['inputs'].shape == (3, 224, 224)
            assert item['data_samples'].gt_label.shape == (1,)
