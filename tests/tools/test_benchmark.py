"""tools/benchmark.py."""

import json

QUICK = ('benchmark', 'local_attention', '--quick', '--rounds', '1', '--threads', '1')


def test_table_and_files(tool, tmp_path, capsys):
    docs = tmp_path / 'benchmarks.md'
    run = (*QUICK, '--only', 'window*', '--out', tmp_path, '--docs', docs)
    assert tool(*run)[0] == 0
    figures = json.loads((tmp_path / 'local_attention.json').read_text())
    assert {row['candidate'] for row in figures['rows']} >= {'tiled', 'gather', 'unfold'}
    assert {row['case'] for row in figures['rows']} == {'window 3, 1x2x12x13'}
    assert figures['environment']['threads'] == '1'
    assert (tmp_path / 'local_attention.png').is_file()
    assert (tmp_path / 'local_attention.md').read_text() in docs.read_text()


def test_json_on_stdout(capsys, monkeypatch):
    from ..conftest import load_tool

    assert load_tool('benchmark').main([*QUICK[1:], '--only', 'pixels 8*', '--json']) == 0
    (row,) = [r for r in json.loads(capsys.readouterr().out)['rows'] if r['candidate'] == 'tiled']
    assert row['pixels'] == 64


def test_mistakes(fails):
    assert "'nothing' fits no case" in fails(*QUICK, '--only', 'nothing')
    assert 'expected cpu or cuda' in fails(*QUICK, '--device', 'gpu7')
    assert 'no GPU' in fails(*QUICK, '--device', 'cuda')
