"""``python -m hybrid_mm weights``, on a small registry."""

import json

import pytest
import torch

from hybrid_mm.__main__ import main
from hybrid_mm.checkpoint_files import CheckpointError
from hybrid_mm.zoo import weights_commands

X = """
- Name: x-tiny_in1k
  Files:
    - URL: [https://x.org/a/x_tiny.pth, https://mirror.org/x_tiny.pth]
      SHA256: '01234567'
      Size: 16437504
      Layout: van
      Licence: Apache-2.0
      Source: x.org readme
    - {Page: https://x.org/drive, File: other.tar, Layout: van, Source: readme, Licence: MIT}
  Metrics: {Top 1 Accuracy: 75.35, Top 5 Accuracy: 90}
  Trained by: x-tiny_8xb128_in1k
- Name: x-base_in1k
  Files:
    - {Page: https://x.org/drive, File: x_base.tar, Layout: van, Source: readme}
- Name: x-large_in1k
  Unpublished: readme
  Trained by: x-large_8xb128_in1k
"""
Y = """
- Name: y-tiny_in1k
  Files:
    - {URL: https://y.org/pytorch_model.bin, Layout: van, Source: readme}
- Name: y-base_in1k
  Files:
    - {URL: https://y.org/other/pytorch_model.bin, Layout: van, Source: readme}
- Name: y-tiny_upernet_ade20k
  Unpublished: readme
"""


@pytest.fixture
def call(registry, capsys):
    """Run a command of ``weights``: its status, output and errors."""
    registry(x=X, y=Y)

    def run(*argv):
        capsys.readouterr()
        status = main(['weights', *map(str, argv)])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


@pytest.fixture
def put(tmp_path):
    """Put a file of the user's where weights are looked for."""

    def write(name):
        path = tmp_path / 'here/checkpoints' / f'{name}.pth'
        path.parent.mkdir(exist_ok=True)
        torch.save(dict(state_dict=dict(x=torch.zeros(1))), path)
        return path

    return write


def table(out):
    return [line.split('\t') for line in out.splitlines()]


def test_list(call, put):
    """What is on the machine has its place; words have to be in name, tree, case or licence."""
    put('x-large_in1k')
    status, out, _ = call('list')
    assert status == 0
    assert table(out) == [
        ['weights', 'case', 'MB', 'accuracy', 'licence', 'here'],
        [
            *('x-tiny_in1k', 'automatic', '16.4', 'Top 1 Accuracy 75.4, Top 5 Accuracy 90.0'),
            *('Apache-2.0', ''),
        ],
        ['x-base_in1k', 'manual', '', '', '', ''],
        ['x-large_in1k', 'ours to train', '0.0', '', '', 'checkpoints/x-large_in1k.pth'],
        ['y-tiny_in1k', 'automatic', '', '', '', ''],
        ['y-base_in1k', 'automatic', '', '', '', ''],
        ['y-tiny_upernet_ade20k', 'unpublished', '', '', '', ''],
    ]
    for words, names in (
        (['tiny', 'in1k'], ['x-tiny_in1k', 'y-tiny_in1k']),
        (['x-*_in1k'], ['x-tiny_in1k', 'x-base_in1k', 'x-large_in1k']),
        (['manual'], ['x-base_in1k']),
        (['apache'], ['x-tiny_in1k']),
        (['MIT'], ['x-tiny_in1k']),
    ):
        assert [row[0] for row in table(call('list', *words)[1])[1:]] == names, words
    status, _, err = call('list', 'x-tyni_in1k')
    assert status == 2
    assert "no published weights match 'x-tyni_in1k'; did you mean x-tiny_in1k" in err


def test_list_as_json(call, put):
    place = put('x-tiny_in1k')
    status, out, _ = call('list', 'x-tiny', '--json')
    assert status == 0
    (row,) = json.loads(out)['weights']
    assert row.pop('here') in (str(place), 'checkpoints/x-tiny_in1k.pth')
    assert row == dict(
        name='x-tiny_in1k',
        tree='x',
        case='automatic',
        size=16437504,
        metrics={'Top 1 Accuracy': 75.35, 'Top 5 Accuracy': 90},
        licence='Apache-2.0',
        trained_by='x-tiny_8xb128_in1k',
        unpublished=None,
        files=[
            dict(
                name='x_tiny.pth',
                addresses=['https://x.org/a/x_tiny.pth', 'https://mirror.org/x_tiny.pth'],
                page=None,
                layout='van',
                source='x.org readme',
            ),
            dict(
                name='other.tar',
                addresses=[],
                page='https://x.org/drive',
                layout='van',
                source='readme',
            ),
        ],
    )
    (row,) = json.loads(call('list', 'x-large', '--json')[1])['weights']
    assert (row['size'], row['licence'], row['here']) == (None, None, None)
    assert (row['case'], row['unpublished']) == ('ours to train', 'readme')


def test_path(call, put):
    """The path and nothing else, for a shell; whether it is there is the status."""
    status, out, err = call('path', 'x-large_in1k')
    assert (status, out) == (1, '') and err.startswith('error: ') and 'x-large_in1k' in err
    place = put('x-large_in1k')
    for name in ('x-large_in1k', 'hybrid_mm://x-large_in1k'):
        assert call('path', name) == (0, f'{place}\n', '')
    status, out, err = call('path', 'x-lrage_in1k')
    assert (status, out) == (2, '') and 'did you mean x-large_in1k' in err


@pytest.fixture
def served(monkeypatch, tmp_path):
    """Replace downloads: what was asked for, and files in a cache."""
    asked = []

    def weights_file(name, download=True):
        asked.append(name)
        weights = weights_commands.find_weights(name)
        if weights.case != 'automatic':
            raise CheckpointError(f'hybrid_mm://{name}', 'has to be downloaded by hand')
        published = weights.files[0]
        path = tmp_path / 'torch' / f'{name}-{published.name}'
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
        return path, published

    monkeypatch.setattr(weights_commands, 'weights_file', weights_file)
    return asked


def test_get(call, served, tmp_path):
    """Names with and without scheme and patterns, each once; what fails does not stop the rest."""
    status, out, err = call('get', 'hybrid_mm://x-base_in1k', 'x-tiny_in1k', '*-tiny_in1k')
    assert status == 1
    assert served == ['x-base_in1k', 'x-tiny_in1k', 'y-tiny_in1k']
    assert out.splitlines() == [
        f'x-tiny_in1k: {tmp_path}/torch/x-tiny_in1k-x_tiny.pth',
        f'y-tiny_in1k: {tmp_path}/torch/y-tiny_in1k-pytorch_model.bin',
    ]
    assert 'x-base_in1k has to be downloaded by hand' in err
    assert '1 of 3 could not be obtained' in err
    # of a pattern what can be had
    served.clear()
    status, _, err = call('get', 'x-*')
    assert (status, served) == (0, ['x-tiny_in1k'])
    assert 'x-*: 2 of 3 cannot be downloaded' in err
    for name, message in (
        ('x-[bl]*', 'none of these weights can be downloaded: x-base_in1k (manual)'),
        ('z*', 'no weights are called z*'),
        ('x-tyni_in1k', 'did you mean x-tiny_in1k'),
    ):
        status, _, err = call('get', name)
        assert status == 2 and message in err, name


def test_get_to_a_folder(call, served, tmp_path):
    """Under the published name, or, if several weights have it, under that of the weights."""
    folder = tmp_path / 'new/folder'
    status, out, err = call('get', '?-tiny_in1k', 'y-base_in1k', '--to', folder)
    assert status == 0, err
    found = {path.name: path.read_text() for path in folder.iterdir()}
    assert found == {
        'x_tiny.pth': 'x-tiny_in1k',
        'y-tiny_in1k.pth': 'y-tiny_in1k',
        'y-base_in1k.pth': 'y-base_in1k',
    }
    assert f'x-tiny_in1k: {folder}/x_tiny.pth' in out
    (tmp_path / 'file').write_text('')
    status, _, err = call('get', 'x-tiny_in1k', '--to', tmp_path / 'file')
    assert status == 2 and 'is a file; expected a folder' in err


def test_get_what_configs_need(call, served, monkeypatch, tmp_path):
    """Files of a training, other addresses as well; with --auto those of the config itself."""
    init = "dict(type='Pretrained', checkpoint='{}')"
    texts = {
        'a': f'model = dict(backbone=dict(init_cfg={init.format("hybrid_mm://x-tiny_in1k")}))',
        'b': f'model = dict(backbone=dict(init_cfg={init.format("torchvision://resnet50")}))',
        'x-tiny_8xb128_in1k': 'model = dict()',
    }
    files = []
    for name, text in texts.items():
        files.append(tmp_path / f'{name}.py')
        files[-1].write_text(text)
    read = []
    monkeypatch.setattr(weights_commands, 'read_checkpoint', read.append)
    status, out, err = call('get', *files[:2])
    assert status == 0, err
    assert (served, read) == (['x-tiny_in1k'], ['torchvision://resnet50'])
    assert "torchvision://resnet50: in torch's cache" in out
    served.clear()
    assert call('get', files[2]) == (0, 'these configs start from no weights\n', '')
    assert call('get', files[2], '--auto')[0] == 0 and served == ['x-tiny_in1k']
    status, _, err = call('get', tmp_path / 'none.py')
    assert status == 2 and 'none.py does not exist' in err


def test_check(call, put, monkeypatch):
    """Files by path or name; what cannot be read does not stop the rest."""

    def describe(path):
        if str(path) == 'b.pth':
            raise CheckpointError('b.pth', 'cannot be read')
        return f'described {path}'

    monkeypatch.setattr(weights_commands, 'describe', describe)
    put('x-large_in1k')
    files = ('b.pth', 'a.pth', 'hybrid_mm://x-large_in1k')
    status, out, err = call('check', *files, 'hybrid_mm://x-tiny_in1k')
    assert status == 1
    assert 'b.pth cannot be read' in err and 'x-tiny_in1k is not on this machine' in err
    assert out.splitlines() == ['described a.pth', 'described checkpoints/x-large_in1k.pth']
    assert call('check', *files[1:])[0] == 0
