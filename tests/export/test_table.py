"""The table of what can be exported."""

import queue
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from mmengine.registry import MODELS

from hybrid_mm.export import table
from hybrid_mm.zoo.families import families, shortened

ROOT = Path(__file__).resolve().parents[2]


def test_table_keeps_the_rows_of_other_families(tmp_path):
    path = tmp_path / 't.md'
    path.write_text(f'before\n{table.BEGIN}\n{table.END}\nafter\n')
    rows = {name: dict.fromkeys(table.COLUMNS, '1e-06') for name in ('VAN', 'NAT')}
    table.write(path, rows)
    assert table.read(path) == rows
    rows['VAN']['any size'] = 'no: because'
    table.write(path, rows)
    assert table.read(path) == rows
    text = path.read_text()
    assert text.startswith('before\n') and text.endswith('after\n')
    assert text.count('| VAN |') == 1


def test_documented_rows_are_of_families():
    assert set(table.read(ROOT / 'docs/export.md')) <= set(families())


def test_families_are_shortened_where_they_can_be():
    assert {'VAN', 'VAN-LSKA', 'HorNet-GF', 'QnAViT'} < set(families())
    assert sum(MODELS.build(shortened(families()['VAN'])).depths) == 4
    arch = shortened(families()['QnAViT'])['arch']
    assert max(arch['qna_depths']) == max(arch['window_depths']) == 1


def test_a_cell_that_takes_long_is_said_before_its_time_is_over(monkeypatch):
    class Process(threading.Thread):
        exitcode = -signal.SIGXCPU

        def __init__(self, target, args, daemon):
            super().__init__(target=target, args=args, daemon=daemon)

    def work(name, columns, dynamic, seconds, results):
        assert seconds == 9
        if columns[0] == 'backbone':
            results.put(('note', 'many operators'))
            time.sleep(1.1)
            results.put(('cell', '1e-06'))

    context = SimpleNamespace(Queue=queue.Queue, Process=Process)
    monkeypatch.setattr(table.multiprocessing, 'get_context', lambda kind: context)
    monkeypatch.setattr(table, '_work', work)
    monkeypatch.setattr(table, 'COLUMNS', ('backbone', 'any size'))
    monkeypatch.setattr(table, 'FIRST', 0.5)
    said = []
    assert table.row('X', 9, said.append) == {
        'backbone': '1e-06',
        'any size': 'no: not within 9 s of a core',
    }
    assert said[0] == 'X, backbone: many operators'
    assert said[1].startswith('X, backbone: not done after 1') and len(said) == 2
    assert said[1].endswith('; given up after 9 s of a core')
