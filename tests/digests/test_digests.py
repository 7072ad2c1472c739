"""Nothing that a digest tells has changed by accident."""

import runpy

import pytest

from . import kinds, stored

TOOL = stored.HERE.parents[1] / 'tools/dev/digests.py'


@pytest.mark.filterwarnings('ignore')  # of the packages, about each other
@pytest.mark.parametrize('name', [*kinds.marked('configs'), *kinds.marked('networks')])
def test_digest(name):
    stored.compare(name, kinds.compute(name))


def test_every_digest_has_its_file():
    assert stored.names() == set(kinds.names())


TWO = {
    'a': {'lr': '0.1', 'val_cfg.type': "'X'", 'val_cfg.n': '1', 'test_cfg.type': "'X'",
          'test_cfg.m': '2', 'steps[2]': 'A(x=1)', 'steps[10]': 'B'},
    'b': {'lr': '0.2', 'val_cfg.type': "'X'", 'val_cfg.n': '1', 'test_cfg.type': "'X'",
          'test_cfg.m': '2', 'steps[2]': 'A(x=1)'},
}  # fmt: skip


def test_text_keeps_all(monkeypatch):
    monkeypatch.setattr(stored, 'SHORT', 2)
    text = stored.encode(TWO, 'Two.')
    assert stored.decode(text) == TWO
    assert text.splitlines()[3:] == [
        '[a]',
        'lr: 0.1',
        'steps[2]: A(x=1)',
        'steps[10]: B',
        'test_cfg: as val_cfg',
        'test_cfg.m: 2',
        'test_cfg.n: without',
        "val_cfg.type: 'X'",
        'val_cfg.n: 1',
        '',
        '[b]',
        'as a',
        'lr: 0.2',
        'steps[10]: absent',
    ]
    for key in TWO['b']:  # one that lacks the key, and one that has another value
        for change in ({k: v for k, v in TWO['b'].items() if k != key}, TWO['b'] | {key: '5'}):
            three = {**TWO, 'c': change}
            assert stored.decode(stored.encode(three, 'Three.')) == three, key


def test_a_section_keeps_what_it_refers_to():
    a = {f'key{i}': '0' for i in range(20)}
    b = a | {'key3': '1'}
    before = stored.encode({'a': a, 'b': b, 'c': b | {'key5': '1'}}, 'Three.')
    assert before.endswith('[c]\nas b\nkey5: 1\n')
    assert stored.encode({'a': a, 'b': b, 'c': a}, 'Three.').endswith('[c]\nas a\n')
    after = stored.encode({'a': a, 'b': b, 'c': a}, 'Three.', before)
    assert after.endswith('[c]\nas b\nkey3: 0\n')  # one line differs, and no reference


def test_differences_are_told_once():
    new = {name: {**section, 'lr': '0.3'} for name, section in TWO.items()}
    new['b']['lr'] = '0.2'
    new['c'] = new.pop('a') | {'steps[10]': 'C'}
    assert stored.differences(TWO, TWO) == []
    assert stored.differences(TWO, {'a': TWO['a'], 'b': TWO['b'] | {'lr': '1'}}) == [
        'b',
        '    lr',
        '        - 0.2',
        '        + 1',
    ]
    assert stored.differences(TWO, new) == ['a: gone', 'c: new']
    both = {name: section | {'steps[2]': 'A(x=2)'} for name, section in TWO.items()}
    assert stored.differences(TWO, both) == [
        'a, b',
        '    steps[2]',
        '        - A(x=1)',
        '        + A(x=2)',
    ]


def test_initial_values_may_differ_by_rounding():
    old = {'a': {'initial.weight': 'mean 0 std 0.02', 'lr': '0.02'}}
    for key, value, same in (
        ('initial.weight', 'mean 0 std 0.02001', True),
        ('initial.weight', 'mean 0 std 0.0201', False),
        ('initial.weight', 'all 0.02', False),
        ('lr', '0.02001', False),
    ):
        assert (stored.differences(old, {'a': old['a'] | {key: value}}) == []) is same


def test_command(tmp_path, monkeypatch, capsys):
    """``tools/dev/digests.py`` writes and tells what differs."""
    monkeypatch.syspath_prepend(stored.HERE.parent)  # where the tool imports this package from
    monkeypatch.setattr(stored, 'HERE', tmp_path)
    main = runpy.run_path(str(TOOL))['main']
    assert main(['evaluation']) == 0
    assert main(['signatures/evaluation', '--check']) == 0
    assert capsys.readouterr().out == 'wrote tests/digests/signatures/evaluation.txt\n'
    assert stored.names() == {'signatures/evaluation'}

    path = stored.path_of('signatures/evaluation')
    path.write_text(path.read_text().replace('88.6', '88.7'))
    changed = path.read_text()
    assert main(['evaluation', '--check']) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0] == 'tests/digests/signatures/evaluation.txt (-) and the code (+) differ:'
    assert out[-1].endswith('`python tools/dev/digests.py signatures/evaluation`.')
    assert path.read_text() == changed
    with pytest.raises(SystemExit):
        main(['evalution'])
    assert "no digest 'evalution'" in capsys.readouterr().err
