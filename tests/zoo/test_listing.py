"""Rows of ``python -m hybrid_mm list`` and of the page, on a small zoo, with figures by hand."""

import json
import re
from pathlib import Path

import pytest

from hybrid_mm.zoo import listing
from hybrid_mm.zoo.metafile import Tree
from hybrid_mm.zoo.page import page


def entry(name, dataset, parameters, flops, size, *results):
    return {
        'Name': name,
        'Config': f'configs/x/{name}.py',
        'Metadata': {
            'Training Data': dataset,
            'Parameters': parameters,
            'FLOPs': flops,
            'Input Size': size,
        },
        'Results': [
            dict(Task=task, Dataset=dataset, Source=source, Metrics=metrics)
            for task, source, metrics in results
        ],
    }


TOP1, BOX, MASK = 'Image Classification', 'Object Detection', 'Instance Segmentation'
MODELS = [
    entry('a_8xb128_in1k-384', 'ImageNet-1k', 1_000_000, 9_000_000_000, '384x384'),
    entry('a_8xb128_in1k', 'ImageNet-1k', 2_345_678, 3_456_000_000, '224x224',
          (TOP1, 'paper', {'Top 1 Accuracy': 81.25}),
          (TOP1, 'measured', {'Top 1 Accuracy': 80.04})),
    entry('a_8xb128_in1k-512', 'ImageNet-1k', 7_000_000, 8_000_000_000, '512x512'),
    # measured first in the file
    entry('mask-rcnn_a_fpn_1x_coco', 'COCO', 20_000_000, 150_000_000_000, '800x1280',
          (BOX, 'measured', {'box AP': 38.0}),
          (BOX, 'paper', {'box AP': 40.0, 'box AP50': 60.0}),
          (MASK, 'README, not verified', {'mask AP': 36.0})),
    entry('b_upernet_8xb2_ade20k', 'ADE20K', 30_000_000, 900_000_000_000, '512x2048',
          ('Semantic Segmentation', 'paper', {'mIoU': 47.5, 'mAcc': 60.0})),
]  # fmt: skip


@pytest.fixture
def trees(monkeypatch):
    content = {
        'Collections': [dict(Name='Net', Paper=dict(Title='On nets', URL='https://x'))],
        'Models': MODELS,
    }
    found = [Tree(Path('/zoo/configs/x/metafile.yml'), content)]
    monkeypatch.setattr(listing, 'read_trees', lambda root: found)
    monkeypatch.setattr(listing, 'installed_configs', lambda: Path('/zoo/configs'))
    return found


def test_rows(trees, capsys):
    listing.listing('', True, ('backbones', 'configs'))
    found = json.loads(capsys.readouterr().out)
    # the figures of the classifier at 224, whatever its position
    assert found['backbones'] == [
        dict(
            backbone='a',
            family='Net',
            parameters=2_345_678,
            flops=3_456_000_000,
            size='224x224',
            configs=4,
        ),
        dict(backbone='b', family='Net', parameters=None, flops=None, size=None, configs=1),
    ]
    configs = {row['name']: row for row in found['configs']}
    assert list(configs) == [model['Name'] for model in MODELS]
    # all sources, what is quoted first
    assert configs['mask-rcnn_a_fpn_1x_coco'] == dict(
        config='/zoo/configs/x/mask-rcnn_a_fpn_1x_coco.py',
        name='mask-rcnn_a_fpn_1x_coco',
        family='Net',
        backbone='a',
        head='Mask R-CNN',
        dataset='COCO',
        parameters=20_000_000,
        flops=150_000_000_000,
        size='800x1280',
        accuracies=[
            dict(metric='box AP', value=40.0, source='paper'),
            dict(metric='mask AP', value=36.0, source='README, not verified'),
            dict(metric='box AP', value=38.0, source='measured'),
        ],
    )


def test_tables(trees, capsys):
    listing.listing('', False, ('backbones', 'configs'))
    lines = [line.split('\t') for line in capsys.readouterr().out.splitlines()]
    assert lines[1:3] == [
        ['a', 'Net', '2.35', '3.46', '224x224', '4'],
        ['b', 'Net', '', '', '', '1'],
    ]
    shown = {Path(line[0]).stem: line[1:] for line in lines[4:]}
    # measured values (*) replace quoted ones, ? marks unverified ones
    assert shown['a_8xb128_in1k'][-1] == 'Top 1 Accuracy 80.0*'
    assert shown['mask-rcnn_a_fpn_1x_coco'] == [
        *('Mask R-CNN', '20.00', '150.00', '800x1280', 'box AP 38.0*, mask AP 36.0?')
    ]
    assert shown['b_upernet_8xb2_ade20k'][-1] == 'mIoU 47.5'
    assert shown['a_8xb128_in1k-512'][-1] == ''


def test_words_of_a_pattern(trees, capsys):
    for pattern, number in (('a in1k', 3), ('COCO', 1), ('uper b_', 1), ('in1k-???', 2)):
        listing.listing(pattern, True, ('configs',))
        assert len(json.loads(capsys.readouterr().out)['configs']) == number, pattern


def test_rows_of_the_page(trees):
    text = re.search(r'<script id="data"[^>]*>(.*?)</script>', page(trees), re.DOTALL)
    data = json.loads(text[1])
    assert data['heads'] == ['Classifier', 'Mask R-CNN', 'UperNet']
    assert [task['key'] for task in data['tasks']] == [
        'detection',
        'segmentation',
        'classification',
    ]
    assert data['papers'] == [
        dict(key='x', name='Net', folder='configs/x', title='On nets', url='https://x')
    ]
    assert data['models'][1] == [
        'a_8xb128_in1k',
        0,
        2,
        0,
        2_345_678,
        3_456_000_000,
        224,
        224,
        [
            ['paper', 'reported', {'Top 1 Accuracy': 81.25}],
            ['measured', 'measured', {'Top 1 Accuracy': 80.04}],
        ],
    ]
    # no AP50 and no mAcc; height in front of width
    assert data['models'][3] == [
        'mask-rcnn_a_fpn_1x_coco',
        0,
        0,
        1,
        20_000_000,
        150_000_000_000,
        800,
        1280,
        [
            ['paper', 'reported', {'box AP': 40.0}],
            ['README, not verified', 'unverified', {'mask AP': 36.0}],
            ['measured', 'measured', {'box AP': 38.0}],
        ],
    ]
    assert data['models'][4][1:] == [
        0,
        1,
        2,
        30_000_000,
        900_000_000_000,
        512,
        2048,
        [['paper', 'reported', {'mIoU': 47.5}]],
    ]
