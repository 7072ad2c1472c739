"""The table of what can be exported."""

from pathlib import Path

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
