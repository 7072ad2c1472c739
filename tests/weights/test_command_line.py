"""``python -m hybrid_mm weights`` with files that are published on a web server."""

import pytest

from hybrid_mm.__main__ import main
from hybrid_mm.checkpoints import read_checkpoint


@pytest.fixture
def call(there, capsys):
    """Run a command of ``weights``: its status, output and errors."""

    def run(*argv):
        capsys.readouterr()
        status = main(['weights', *map(str, argv)])
        out = capsys.readouterr()
        return status, out.out, out.err

    return run


def test_a_machine_prepares_another(there, call, monkeypatch):
    """What was fetched with --to is found in HYBRID_MM_WEIGHTS, without the server."""
    there.publish('a/{name}')
    for name in ('d/model.bin', 'e/model.bin'):
        there.publish(name)
    status, out, err = call('path', 'hashed_in1k')
    assert (status, out) == (1, '') and 'is not on this machine' in err
    assert '--cfg-options' not in err
    names = ('hashed_in1k', 'plain_in1k', 'other_in1k')
    folder = there.folder / 'shared'
    status, out, err = call('get', 'hashed_in1k', '*_in1k', '--to', folder)
    assert status == 0, err
    assert [line.split(':')[0] for line in out.splitlines()] == list(names)
    assert len(list(folder.iterdir())) == 3 and there.name in {p.name for p in folder.iterdir()}
    before = len(there.asked)

    monkeypatch.setattr('torch.hub.get_dir', lambda: str(there.folder / 'empty'))
    for name in names:
        assert call('path', name)[0] == 1
    monkeypatch.setenv('HYBRID_MM_WEIGHTS', str(folder))
    for name in names:
        status, out, _ = call('path', name)
        assert status == 0 and out.startswith(f'{folder}/') and out.count('\n') == 1
        assert 'head.fc.weight' in read_checkpoint(f'hybrid_mm://{name}')['state_dict']
        assert call('get', name)[0] == 0
    assert len(there.asked) == before
    rows = [line.split('\t') for line in call('list')[1].splitlines()]
    assert {row[0]: bool(row[-1]) for row in rows[1:4]} == dict.fromkeys(names, True)


def test_what_cannot_be_had(there, call):
    """An error for each, with what to do; the others are fetched."""
    there.publish('d/model.bin')
    status, out, err = call('get', 'by-hand_in1k', 'to-train_in1k', 'nowhere_in1k', 'plain_in1k')
    assert status == 1 and out.startswith('plain_in1k: ')
    errors = [line for line in err.splitlines() if line.startswith('error: hybrid_mm://')]
    assert len(errors) == 3 and '3 of 4 could not be obtained' in err and 'cfg-options' not in err
    for line, text in zip(errors, ('downloaded by hand', 'never published', 'never'), strict=True):
        assert text in line
    assert 'tools/train.py configs/van/van_8xb1_in1k.py' in err
