"""Validation of metafiles: what is wrong is named, with file and model."""

import copy
import json
import re
from pathlib import Path

import pytest
import yaml

from hybrid_mm.zoo.metafile import HEADS, read_trees, validate
from hybrid_mm.zoo.page import page

ROOT = Path(__file__).resolve().parents[2]
COLLECTION = {
    'Name': 'X',
    'Metadata': {'Architecture': ['X']},
    'Paper': {'Title': 'On X', 'URL': 'https://arxiv.org/abs/1'},
    'README': 'configs/x/README.md',
    'Notes': 'None.',
}
MODEL = {
    'Name': 'x_upernet_8xb2',
    'In Collection': 'X',
    'Config': 'configs/x/x_upernet_8xb2.py',
    'Metadata': {
        'Training Data': 'ADE20K',
        'Parameters': 10,
        'FLOPs': 20,
        'Input Size': '512x2048',
    },
    'Results': [
        {
            'Task': 'Semantic Segmentation',
            'Dataset': 'ADE20K',
            'Metrics': {'mIoU': 40.0},
            'Source': 'paper',
        }
    ],
}


@pytest.fixture
def zoo(tmp_path):
    """Write a zoo of one tree after a change to its metafile."""

    def write(change=lambda content: None, index=('configs/x/metafile.yml',)):
        content = copy.deepcopy({'Collections': [COLLECTION], 'Models': [MODEL]})
        change(content)
        folder = tmp_path / 'configs/x'
        folder.mkdir(parents=True, exist_ok=True)
        (folder / 'x_upernet_8xb2.py').touch()
        (folder / 'metafile.yml').write_text(yaml.safe_dump(content))
        (tmp_path / 'model-index.yml').write_text(yaml.safe_dump({'Import': list(index)}))
        return tmp_path

    return write


def test_the_zoo_is_valid():
    assert not validate(ROOT)


def test_a_good_file_is_read(zoo):
    root = zoo()
    assert validate(root) == []
    (tree,) = read_trees(root)
    (model,) = tree.models
    assert (model.head, model.backbone, model.size) == ('UperNet', 'x', (512, 2048))
    assert model.group.key == 'segmentation'
    assert model.metrics() == {'paper': {'mIoU': 40.0}}


def test_networks_without_a_paper(zoo):
    def change(content):
        for key in ('Paper', 'README'):
            del content['Collections'][0][key]

    (tree,) = read_trees(zoo(change))
    assert (tree.paper, tree.references) == (None, '')
    (paper,) = json.loads(re.search(r'type="application/json">(.*?)</', page([tree]), re.S)[1])[
        'papers'
    ]
    assert (paper['name'], paper['title'], paper['url']) == ('X', '', '')
    tree.collection['Code'] = dict(URL='https://x.org')
    assert tree.references == '[code](https://x.org)'
    tree.collection['Paper'] = COLLECTION['Paper']
    assert tree.references == '[On X](https://arxiv.org/abs/1), [official code](https://x.org)'


def test_heads_of_all_configs_are_known():
    found = {model.head for tree in read_trees(ROOT) for model in tree.models}
    assert found <= {*HEADS.values(), 'Classifier'}, 'add the new one to HEADS'


def set_in(*path, value):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        if value is None:
            del content[path[-1]]
        else:
            content[path[-1]] = value

    return change


RESULT = ('Models', 0, 'Results', 0)
META = ('Models', 0, 'Metadata')
MISTAKES = {
    'no notes': (set_in('Collections', 0, 'Notes', value=None), 'collection has no Notes'),
    'paper without title': (
        set_in('Collections', 0, 'Paper', 'Title', value=None),
        'collection, Paper has no Title',
    ),
    'paper without address': (
        set_in('Collections', 0, 'Paper', 'URL', value='arxiv'),
        'URL must start with https://',
    ),
    'weights without encryption': (
        set_in('Models', 0, 'Weights', value='http://x.org/a.pth'),
        'Weights must start with https://',
    ),
    'other README': (set_in('Collections', 0, 'README', value='R.md'), 'configs/x/README.md'),
    'slip in a field': (set_in(*META, 'Flops', value=3), "'Flops'; did you mean FLOPs?"),
    'text for a number': (set_in(*META, 'Parameters', value='10M'), "non-empty int, got '10M'"),
    'no parameters': (set_in(*META, 'Parameters', value=0), 'Parameters must be positive'),
    'size': (set_in(*META, 'Input Size', value='512'), 'HEIGHTxWIDTH'),
    'data set': (set_in(*META, 'Training Data', value='Coco'), "'Coco' is not known"),
    'other collection': (set_in('Models', 0, 'In Collection', value='Y'), "must be 'X'"),
    'other config': (set_in('Models', 0, 'Config', value='configs/x/y.py'), 'Config must be'),
    'task': (set_in(*RESULT, 'Task', value='Segmentation'), 'Task of ADE20K must be one of'),
    'other data set': (set_in(*RESULT, 'Dataset', value='COCO'), 'Dataset must be that of'),
    'metric': (set_in(*RESULT, 'Metrics', value={'miou': 40.0}), "metric 'miou' is not known"),
    'share': (set_in(*RESULT, 'Metrics', value={'mIoU': 4000.0}), 'must be a percentage'),
    'above 100': (set_in(*RESULT, 'Metrics', value={'mIoU': 100.5}), 'must be a percentage'),
    'none at all': (set_in(*RESULT, 'Metrics', value={'mIoU': 0.0}), 'must be a percentage'),
    'no metrics': (set_in(*RESULT, 'Metrics', value={}), 'Metrics must be a non-empty dict'),
    'no source': (set_in(*RESULT, 'Source', value=None), 'has no Source'),
    'twice': (
        lambda content: content['Models'][0]['Results'].append(MODEL['Results'][0]),
        "mIoU from 'paper' is listed twice",
    ),
    'same name': (
        lambda content: content['Models'].append(content['Models'][0]),
        'the name is used in configs/x/metafile.yml already',
    ),
}


@pytest.mark.parametrize('name', MISTAKES)
def test_mistakes_are_named(zoo, name):
    change, message = MISTAKES[name]
    found = validate(zoo(change))
    assert len(found) == 1, found
    assert found[0].startswith('configs/x/metafile.yml: ')
    assert message in found[0]
    model = not name.startswith(('no notes', 'paper', 'other README'))
    assert ('model x_upernet_8xb2: ' in found[0]) == model
    with pytest.raises(ValueError, match='metafile'):
        read_trees(zoo(change))


def test_files_and_index_agree(zoo):
    root = zoo(index=('configs/y/metafile.yml', 'configs/y/metafile.yml'))
    (root / 'configs/x/other.py').touch()
    found = validate(root)
    assert 'model-index.yml: configs/x/metafile.yml is not imported' in found
    assert 'model-index.yml: configs/y/metafile.yml is imported twice' in found
    assert 'configs/y/metafile.yml: the file does not exist' in found
    assert validate(zoo()) == ['configs/x/metafile.yml: other.py of this folder is not listed']
    (root / 'configs/x/other.py').unlink()
    (root / 'configs/x/x_upernet_8xb2.py').unlink()
    assert 'does not exist' in validate(root)[0]
    (root / 'configs/x/metafile.yml').write_text('a: [')
    assert 'not valid YAML' in validate(root)[0]
