"""The study: its systems are comparable, its records are kept, its queue goes on, its tables."""

import json
from dataclasses import replace

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.analysis.study import peers, queue, records, systems, tables  # noqa: F401
from hybrid_mm.analysis.study.queue import Training
from hybrid_mm.analysis.study.records import Record
from hybrid_mm.analysis.study.systems import System
from hybrid_mm.errors import UserError

ALL = systems.find()
PLAIN = ('resnet', 'convnext', 'swin', 'pvt')
"""Hosts without an operator of ours, with which the others are compared."""
NAMED = {
    *('van', 'lska', 'lka-trivial', 'acmix-resnet', 'acmix-san', 'acmix-pvt', 'acmix-swin', 'pelk'),
    *('slak', 'replknet', 'aa', 'ea', 'sasa', 'halonet', 'botnet', 'quadratic', 'san', 'nat'),
    *('dinat', 'qna', 'elsa', 'lesa', 'gc', 'se', 'cbam', 'eca', 'bam', 'hornet', 'maxvit'),
    *('coatnet', 'mvitv2', 'vit', 'cvt', 'levit', *PLAIN),
}
MILLION, BILLION = 10**6, 10**9
SMALL = ('van', 'resnet')
"""Tested by default; the others are slow-marked."""
every = pytest.mark.parametrize(
    'name', [n if n in SMALL else pytest.param(n, marks=pytest.mark.slow) for n in ALL]
)


def record(system, last=30.0, seed=0, task='segmentation', digest='0', **changes):
    made = Record(
        task=task,
        system=system,
        seed=seed,
        digest=digest,
        last=last,
        best=last + 1,
        curve=[[100, last - 5], [200, last]],
        loss=[[100, 2.0], [200, 1.0]],
        params=3 * MILLION,
        macs=BILLION,
        whole_params=4 * MILLION,
        whole_macs=2 * BILLION,
        seconds=0.5,
        evaluation_seconds=10.0,
        total_seconds=300.0,
        step_bytes=200 * 2**20,
        resident_bytes=900 * 2**20,
        torch='2.1',
        hybrid_mm='0.1.0',
    )
    return replace(made, **changes)


def build(name):
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(Config(dict(net=ALL[name].backbone)).net)


def test_every_system_is_there():
    assert ALL.keys() >= NAMED
    assert list(ALL).index('resnet') < list(ALL).index('se')
    modules = {'coord', 'ge', 'triplet', 'nl', 'snl', 'lambda', 'sk'}  # the other attention modules
    assert {s.name for s in ALL.values() if s.host == 'resnet'} >= {*modules, 'se', 'gc', 'lesa'}


@every
def test_sizes_are_comparable(name):
    """Networks that stand alone have about one size, modifications the frame of their host."""
    system = ALL[name]
    if system.absent:
        pytest.skip(f'{system.package} is not installed')
    net = build(name)
    # trained from scratch: MMDetection's ResNet keeps its norms in evaluation mode by default
    net.train()
    assert all(m.training for m in net.modules()), name
    rates = [getattr(m, 'drop_prob', 0.0) for m in net.modules()]
    assert not any(rates), rates
    params, macs = complexity(net, systems.SIZES['segmentation'])
    if system.host and system.host in PLAIN:
        assert 2 * MILLION <= params <= 5.1 * MILLION and 0.7 * BILLION <= macs <= 1.8 * BILLION
        assert list(system.widths) == list(ALL[system.host].widths)
    elif not system.only_pair and not system.peer_of:
        assert 2.7 * MILLION <= params <= 5 * MILLION and 0.5 * BILLION <= macs <= 1.5 * BILLION
    if system.peer_of:
        ours = complexity(build(system.peer_of), systems.SIZES['segmentation'])
        assert params == ours[0]
        assert macs == pytest.approx(ours[1], rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize('task', systems.TASKS)
@pytest.mark.parametrize('name', ALL)
def test_whole_models_train(name, task):
    """Head and neck fit the maps, and every parameter of the backbone gets a gradient."""
    if ALL[name].absent:
        pytest.skip(f'{ALL[name].package} is not installed')
    cfg = systems.compose(ALL[name], task)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    model.init_weights()
    height, width = systems.SIZES[task]
    maps = model.train().extract_feat(torch.rand(2, 3, height, width))
    assert [m.shape[1] for m in maps] == [cfg.model.neck.out_channels] * len(maps)
    model.bbox_head(maps) if task == 'detection' else model.decode_head(maps)
    sum(m.square().mean() for m in maps).backward()
    without = [n for n, p in model.backbone.named_parameters() if p.grad is None]
    # of the last level that a head does not see
    assert len(without) <= 4, without


def test_config_of_a_training(tmp_path):
    cfg = systems.compose(ALL['vit'], 'detection', 3, data=tmp_path)
    assert cfg.randomness.seed == 3 and cfg.model.backbone.img_size == (160, 160)
    assert cfg.model.neck.scales == [2, 1, 0.5] and cfg.model.backbone.out_indices == (1, 2, 3)
    assert cfg.train_dataloader.dataset.data_root == str(tmp_path)
    assert cfg.val_evaluator.ann_file.startswith(str(tmp_path))


def test_digest_is_of_what_matters(tmp_path, monkeypatch):
    def digest(change=lambda cfg: None, seed=0, data=None):
        cfg = systems.compose(ALL['van'], 'detection', seed, data=data)
        change(cfg)
        return systems.digest(cfg)

    assert digest(seed=1, data=tmp_path) == digest(lambda c: c.update(work_dir='x')) == digest()
    assert digest(lambda c: c.optim_wrapper.optimizer.update(lr=2.0)) != digest()
    assert digest(lambda c: c.model.backbone.update(kernel_size=11)) != digest()


def test_choice_by_pattern():
    found = [system.name for system in systems.choose(ALL, ['acmix-*n', 'swin', 'van'])]
    assert sorted(found) == ['acmix-san', 'acmix-swin', 'swin', 'van']
    assert found.index('swin') < found.index('acmix-swin')  # hosts first
    with pytest.raises(UserError, match='--only vam'):
        systems.choose(ALL, ['vam'])


def test_records_are_kept(tmp_path):
    path = tmp_path / 'results.json'
    assert records.read(path) == {}
    kept = {r.key: r for r in (record('van'), record('se', 31.5, seed=2), record('aa'))}
    records.write(path, kept)
    assert records.read(path) == kept
    assert len(path.read_text().splitlines()) == 2 + len(kept)  # a diff shows what came
    path.write_text('{"records": [{"task": 1}]}')
    with pytest.raises(UserError, match='no results of the study'):
        records.read(path)


def test_missing_and_extremes():
    a, b = (System(name, '', {}, ()) for name in 'ab')
    todo = [Training(s, 'segmentation', 0, 'new', 10) for s in (a, b)]
    known = {r.key: r for r in (record('a', digest='new'), record('b', digest='old'))}
    assert [t.system.name for t in queue.missing(todo, known)] == ['b']
    known = {r.key: r for r in map(record, 'abcdef', range(6))}
    assert queue.extremes(known, 'segmentation', 'abcdefg', 1) == {'a', 'f'}
    assert queue.extremes(known, 'segmentation', 'abc', 2) == {'a', 'b', 'c'}
    assert queue.extremes(known, 'detection', 'abc', 2) == set()


SCRIPT = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
(folder / 'progress').write_text('2 2')
(folder / 'iter_2.pth').write_text('')
if 'bad' in folder.name:
    sys.exit('no good')
(folder / 'record.json').write_text(sys.argv[2])
"""


def test_queue_goes_on_after_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr(queue, '_LOOK', 0.02)
    made = {name: record(name) for name in ('bad', 'good', 'old')}
    todo = [Training(System(n, '', {}, ()), 'segmentation', 0, '0', 2) for n in made]
    folder = todo[2].folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / 'record.json').write_text(json.dumps(vars(made['old'])))  # ended, not collected
    ran, got, said = [], [], []

    def command(training):
        ran.append(training.system.name)
        text = json.dumps(vars(made[training.system.name]))
        return ['-S', '-c', SCRIPT, str(training.folder(tmp_path)), text]

    failures = queue.run_all(todo, tmp_path, 2, command, got.append, said.append)
    assert ran == ['bad', 'good'] and {r.system for r in got} == {'good', 'old'}
    assert len(failures) == 1 and 'bad (segmentation, seed 0): no good' in failures[0]
    assert not list(todo[1].folder(tmp_path).glob('*.pth'))
    assert any('good' in line and '30.0' in line for line in said)


def table_of(text):
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in text.splitlines()]
    return {row[0]: row for row in rows[2:]}


def test_tables():
    some = {n: System(n, '', dict(type='mmx.Y'), (), host=h) for n, h in (('h', None), ('m', 'h'))}
    some['p'] = System('p', '', dict(type='mmx.Y'), (), peer_of='m')
    some['none'] = System('none', '', {}, (), host='h')
    known = [record('h', 30.0), record('m', 32.0), record('m', 34.0, seed=1), record('p', 31.0)]
    known = {r.key: r for r in known}
    text = tables.main_table('segmentation', [some['h'], some['m'], some['none']], known)
    text, rest = text.split('\n\n')
    main = table_of(text)
    assert list(main) == ['m', 'h']  # the best first
    assert main['m'][2] == '33.0 ± 1.4 (2)' and main['m'][4] == '+2.0'
    assert rest == 'No result yet: `none`.'
    assert tables.main_table('detection', [some['none']], known) == rest
    assert tables.pair_table('detection', some, known) == 'No result yet: `p`.'
    known['segmentation', 'p', 0] = replace(known['segmentation', 'p', 0], seconds=1.0)
    pair = table_of(tables.pair_table('segmentation', some, known))['m']
    assert pair[2:5] == ['33.0 ± 1.4 (2)', '31.0', '+1.0'] and pair[5:8] == ['0.50', '1.00', '0.50']


def test_differences_are_means_over_the_seeds_that_both_have():
    some = {'h': System('h', '', {}, ()), 'm': System('m', '', {}, (), host='h')}
    some['p'] = System('p', '', dict(type='mmx.Y'), (), peer_of='m')
    scores = dict(h={0: 30.0, 1: 31.0, 3: 90.0}, m={0: 31.0, 1: 35.0, 2: 0.0}, p={1: 36.0, 3: 50.0})
    known = [record(n, last, seed=k) for n, found in scores.items() for k, last in found.items()]
    known = {r.key: r for r in known}
    main = table_of(tables.main_table('segmentation', [some['h'], some['m']], known))
    assert main['m'][4] == '+2.5' and main['h'][4] == ''
    assert table_of(tables.pair_table('segmentation', some, known))['m'][4] == '-1.0'
    for seed in (0, 1):
        del known['segmentation', 'h', seed]
    main = table_of(tables.main_table('segmentation', [some['h'], some['m']], known))
    assert main['m'][4] == '-'


def test_page_is_written_again(tmp_path):
    page = tmp_path / 'study.md'
    some = {'h': System('h', '', {}, ()), 'm': System('m', '', {}, (), host='h')}
    known = {r.key: r for r in (record('h', digest='now'), record('m', digest='before'))}
    digests = dict(h='now', m='now')
    written = tables.write(page, 'segmentation', some, known, digests)
    text, picture = page.read_text(), written[1].read_bytes()
    assert 'No result yet: `m`.' in text  # its config has changed since
    tables.write(page, 'segmentation', some, known, digests)
    assert page.read_text() == text and written[1].read_bytes() == picture
