"""The tables of what can be exported, and of times."""

import multiprocessing
import queue
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from hybrid_mm.export import onnx_files, rows, table, times
from hybrid_mm.export.graphs import ExportError
from hybrid_mm.export.random_weights import vary_outputs
from hybrid_mm.zoo.families import BASE_MODELS, families, model_with, shortened, smallest

ROOT = Path(__file__).resolve().parents[2]
TABLES = [table.TABLE, times.TABLE]


@pytest.mark.parametrize('sheet', TABLES)
def test_tables_keep_the_rows_of_other_families(tmp_path, sheet):
    path = tmp_path / 't.md'
    begin, end = sheet.marks
    path.write_text(f'before\n{begin}\n{end}\nafter\n')
    cells = {name: dict.fromkeys(sheet.columns, '1e-06') for name in ('VAN', 'NAT')}
    sheet.write(path, cells)
    assert sheet.read(path) == cells
    cells['VAN'][sheet.columns[1]] = 'no: because'
    sheet.write(path, cells)
    assert sheet.read(path) == cells
    text = path.read_text()
    assert text.startswith('before\n') and text.endswith('after\n')
    assert text.count('| VAN |') == 1
    assert {t for titles in sheet.steps.values() for t in titles} == set(sheet.columns)


def test_both_tables_fit_into_one_document(tmp_path):
    path = tmp_path / 't.md'
    for sheet in TABLES:
        sheet.write(path, {'VAN': dict.fromkeys(sheet.columns, 'x')})
    for sheet in TABLES:
        assert sheet.read(path) == {'VAN': dict.fromkeys(sheet.columns, 'x')}


def test_columns_that_a_document_lacks_are_missing(tmp_path):
    path = tmp_path / 't.md'
    begin, end = table.TABLE.marks
    path.write_text(
        f'{begin}\n| network | backbone | old |\n|---|---|---|\n| VAN | 1 | 2 |\n{end}\n'
    )
    found = table.TABLE.read(path)['VAN']
    assert found.pop('backbone') == '1' and set(found.values()) == {rows.MISSING}


@pytest.mark.parametrize('sheet', TABLES)
def test_documented_rows_are_of_families(sheet):
    assert set(sheet.read(ROOT / 'docs/export.md')) <= set(families())


def test_families_are_shortened_where_they_can_be():
    assert {'VAN', 'VAN-LSKA', 'HorNet-GF', 'QnAViT'} < set(families())
    assert sum(MODELS.build(shortened(families()['VAN'])).depths) == 4
    arch = shortened(families()['QnAViT'])['arch']
    assert max(arch['qna_depths']) == max(arch['window_depths']) == 1


def test_smallest_variants():
    found = {name: smallest(families()[name])['arch'] for name in ('NAT', 'HorNet-GF')}
    assert found == {'NAT': 'mini', 'HorNet-GF': 'tiny-gf'}


VAN = dict(
    type='hybrid_mm.VAN', arch=dict(embed_dims=[8, 8, 16, 16], depths=[1] * 4, mlp_ratios=[2] * 4)
)


@pytest.mark.parametrize('head', ['classifier', 'Mask2Former', 'FCOS'])
def test_models_around_a_backbone(head):
    model = vary_outputs(model_with(VAN, head)).eval()
    with torch.no_grad():
        maps = model.extract_feat(torch.rand(1, 3, 64, 96))
        if head == 'FCOS':  # what is to be compared is not nothing
            assert max(x.sigmoid().max() for x in model.bbox_head(maps)[0]) > 0.05
    assert set(BASE_MODELS) == set(table.COLUMNS[1:])


class _Process(threading.Thread):
    """A thread in place of a process, which has always been stopped for its time when it ends."""

    exitcode = -signal.SIGXCPU

    def __init__(self, target, args, daemon):
        super().__init__(target=target, args=args, daemon=daemon)


@pytest.fixture
def threads(monkeypatch):
    context = SimpleNamespace(Queue=queue.Queue, Process=_Process)
    monkeypatch.setattr(multiprocessing, 'get_context', lambda kind: context)
    monkeypatch.setattr(rows, 'limit_time', lambda seconds: None)
    monkeypatch.setattr(rows.logging, 'disable', lambda level: None)
    monkeypatch.setattr(rows.warnings, 'simplefilter', lambda action: None)


def sheet_of(work):
    return rows.Table('x', ('a', 'b', 'c'), {'one': ('a',), 'two': ('b', 'c')}, work, 9)


def test_a_step_that_takes_long_is_said_before_its_time_is_over(threads, monkeypatch, tmp_path):
    def work(name, steps, cells, folder, say):
        if steps[0] == 'one':
            say('many operators')
            time.sleep(0.5)
            yield {'a': '1e-06'}

    monkeypatch.setattr(rows, 'FIRST', 0.25)
    said, path = [], tmp_path / 'x.md'
    (found,) = sheet_of(work).update(path, 'VAN', said.append)
    assert found == ('VAN', {'a': '1e-06', **dict.fromkeys('bc', 'no: not within 9 s of a core')})
    assert said[:2] == ['VAN ...', 'VAN, one: many operators']
    assert said[2].startswith('VAN, one: not done after') and len(said) == 3
    assert said[2].endswith('; given up after 9 s of a core')


def test_only_what_is_missing(threads, tmp_path):
    called = []

    def work(name, steps, cells, folder, say):
        called.append((name, steps, cells))
        for step in steps:
            yield {'one': {'a': '1'}, 'two': {'b': '2', 'c': '3'}}[step]

    sheet, path = sheet_of(work), tmp_path / 'x.md'
    full = dict(a='0', b='0', c='0')
    sheet.write(path, {'NAT': full, 'VAN': dict(full, c=rows.MISSING)})
    ((name, found),) = sheet.update(path, '[NV]A[NT]', print, missing=True, jobs=2)
    assert (name, found) == ('VAN', dict(a='0', b='2', c='3'))
    assert called == [('VAN', ['two'], dict(full, c=rows.MISSING))]
    ((name, found),) = sheet.update(path, 'VAN', print, steps=['one'])
    assert found == dict(a='1', b='2', c='3') and sheet.read(path)['NAT'] == full


def test_cells_without_a_number():
    assert rows.no(ExportError('cannot be exported: a | b; use --raw')) == 'no: a / b'
    named = ExportError('A with BHead cannot be exported: c')
    assert rows.no(named) == 'no: c'
    inside = RuntimeError('The tensor has a number of elements, but its data is not allocated yet.')
    assert 'an operator of MMCV (deformable' in onnx_files.reason(inside)
    assert rows.no(TypeError('wrong\nlines')) == 'no: TypeError: wrong lines'


def test_times_of_candidates_that_agree(monkeypatch):
    monkeypatch.setattr(times, 'SECONDS', 0.0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()

    def run(image, change=1.0):
        time.sleep(0.01)
        return model(image) * change

    image = torch.rand(1, 3, 8, 8)
    eager, other, ratio = times.compared(model, run, image)
    assert other >= 10 and eager < other and ratio == pytest.approx(eager / other, rel=0.9)
    assert ratio < 1
    with pytest.raises(ExportError, match=r'differs by 1e-02 from eager PyTorch'):
        times.compared(model, lambda image: run(image, 1.01), image)


@pytest.mark.slow
def test_times_of_a_network(monkeypatch, tmp_path):
    pytest.importorskip('onnxruntime')
    monkeypatch.setattr(times, 'SECONDS', 0.0)
    monkeypatch.setattr(times, 'smallest', lambda config: VAN)
    for fixed, files in ((False, {'any.onnx'}), (True, {'any.onnx', '224.onnx', '512.onnx'})):
        steps = times.steps_of(fixed, compiled=False)
        found = times.cells_of('VAN', steps, {}, tmp_path, print)
        for size, cells in zip(times.SIZES, found, strict=True):
            assert cells[f'{size}: eager'].endswith(' ms')
            assert cells[f'{size}: onnxruntime'].endswith('x, fixed)' if fixed else 'x)')
        assert {path.name for path in tmp_path.iterdir()} == files


def test_steps_of_times():
    assert times.steps_of() == ['224', '512', '224, compiled', '512, compiled']
    assert times.steps_of(True, False) == ['224, fixed', '512, fixed']
    assert set(times.steps_of()) | set(times.steps_of(True)) == set(times.STEPS)
