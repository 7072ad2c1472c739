"""tools/benchmark.py."""

import csv
import dataclasses
import json

import pytest

from hybrid_mm.apis import Predictor
from hybrid_mm.benchmarks import floor
from hybrid_mm.benchmarks.core import Row

from ..conftest import load_tool

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
    with (tmp_path / 'local_attention.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['candidate'] for row in rows] == [row['candidate'] for row in figures['rows']]
    assert float(rows[0]['training_ms']) == figures['rows'][0]['training_ms']
    for suffix in ('csv', 'png'):
        assert (tmp_path / 'benchmarks' / f'local_attention.{suffix}').is_file()
        assert f'(benchmarks/local_attention.{suffix})' in docs.read_text()


def test_several_benchmarks_in_one_run(tool, tmp_path, monkeypatch):
    """Each is measured with the given options; `ops` means all operators."""
    measured = []

    def measure(case, seconds, rounds):
        measured.append((case.name, seconds, rounds))
        return [Row(case.name, 'a', note='not here')]

    monkeypatch.setattr('hybrid_mm.benchmarks.core.measure', measure)
    flags = ('--quick', '--rounds', 7, '--seconds', 2.5, '--threads', '1', '--out', tmp_path)
    assert tool('benchmark', 'ops', *flags)[0] == 0
    written = {path.stem for path in tmp_path.glob('*.csv')}
    others = {'backbones', 'compile', 'train'}
    assert written == set(load_tool('benchmark').SUBCOMMANDS) - others
    assert {item[1:] for item in measured} == {(2.5, 7)}
    assert len(measured) > len(written)


@pytest.mark.slow
def test_all_operators_in_one_run(tool, tmp_path):
    quick = ('benchmark', 'ops', '--quick', '--rounds', '1', '--threads', '1')
    assert tool(*quick, '--only', '*3, 1x2*', '--out', tmp_path)[0] == 0
    assert (tmp_path / 'local_attention.csv').is_file()
    assert not (tmp_path / 'backbones.csv').exists()


@pytest.mark.slow
def test_json_on_stdout(capsys, monkeypatch):
    assert load_tool('benchmark').main([*QUICK[1:], '--only', 'pixels 8*', '--json']) == 0
    (row,) = [r for r in json.loads(capsys.readouterr().out)['rows'] if r['candidate'] == 'tiled']
    assert row['pixels'] == 64


def test_mistakes(fails):
    assert "'nothing' fits no case" in fails(*QUICK, '--only', 'nothing')
    assert 'expected cpu or cuda' in fails(*QUICK, '--device', 'gpu7')
    assert 'no GPU' in fails(*QUICK, '--device', 'cuda')


def test_floor(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(floor, '_SIDE', 64)
    monkeypatch.setattr(floor, '_COPY', 2**16)
    page = tmp_path / 'page.md'
    run = ('benchmark', 'floor', '--quick', '--rounds', '1', '--threads', '1')
    assert tool(*run, '--only', 'distance*', '--docs', page)[0] == 0
    text = page.read_text()
    assert text.count('distance attention (LeViT)') == 4
    assert '<!-- benchmark:floor:begin -->' in text
    assert 'Peaks in this run' in text
    code, message = tool(*run, '--out', tmp_path / 'out')
    assert code != 0
    assert 'neither --json nor --out' in message


@pytest.mark.slow
def test_predict(tool, tmp_path, monkeypatch):
    page = tmp_path / 'page.md'
    run = ('benchmark', 'predict', '--quick', '--rounds', '1', '--threads', '1')
    assert tool(*run, '--only', '*retinanet*', '--docs', page)[0] == 0
    assert page.read_text().count('| van/retinanet_van-b0_fpn_1x_coco | ') == 2

    find = Predictor.__call__
    monkeypatch.setattr(Predictor, '__call__', lambda self, *args: [
        dataclasses.replace(found, boxes=found.boxes + 1) for found in find(self, *args)
    ])  # fmt: skip
    code, message = tool(*run, '--only', '*retinanet*')
    assert code != 0
    assert 'DetInferencer finds other objects in 0.jpg' in message
