"""Warnings, and the texts that errors share."""

from hybrid_mm.errors import nearest, shorten, warn


def test_one_process_warns(capsys, monkeypatch):
    for rank, warns in ((None, True), ('0', True), ('1', False), ('7', False)):
        monkeypatch.setenv('RANK', rank or '')
        if rank is None:
            monkeypatch.delenv('RANK')
        warn('careful')
        assert capsys.readouterr().err == ('warning: careful\n' if warns else '')


def test_names_next_to_one():
    names = ('AdamW', 'Adam', 'SGD', 'Adamax')
    assert nearest('admw', names) == '; did you mean AdamW, Adam, Adamax?'
    assert nearest('sgd', names) == '; did you mean SGD?'
    assert nearest('lion', names) == ''
    assert shorten(list('abcdef')) == 'a, b, c, d, e, f'
    assert shorten(list('abcdefg')) == 'a, b, c, d, e, f, ...'
    assert shorten(list('abc'), 2) == 'a, b, ...'
