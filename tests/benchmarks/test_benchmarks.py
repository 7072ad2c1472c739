"""The measurements against what is known, and what must not be measured."""

import csv
import itertools
import json

import pytest
import torch

from hybrid_mm.benchmarks import (
    acmix,
    backbones,
    elsa,
    evolving_attention,
    floor,
    lesa,
    local_attention,
    neighborhood,
    peripheral,
    qna,
    train,
)
from hybrid_mm.benchmarks.core import (
    Case,
    DisagreementError,
    Row,
    check,
    measure,
    memory,
    memory_limit,
)
from hybrid_mm.benchmarks.report import (
    as_json,
    cells,
    environment,
    markdown,
    notes,
    plot,
    put_into,
    write_csv,
)

CPU = torch.device('cpu')
SIZE = 4 * 1024  # bytes of the inputs below


def inputs(grad=True):
    return dict(x=torch.rand(32, 32, requires_grad=grad))


def twice(x):
    return (x * 2).exp()


def row_of(rows, candidate):
    (row,) = [r for r in rows if r.candidate == candidate]
    return row


def test_memory_of_known_calls():
    x = inputs(grad=False)['x']

    def chain():
        a = x + 1
        b = a + 1  # two alive
        del a
        return b.sin()  # two alive

    # the scalars are tensors of a few bytes
    assert memory(chain, CPU) == (pytest.approx(2 * SIZE, abs=64), SIZE)
    assert memory(lambda: torch.cat([x, x]).sum().item(), CPU)[0] == pytest.approx(2 * SIZE, abs=64)
    assert memory(lambda: x.view(-1), CPU) == (0, 0)


def test_memory_of_the_passes():
    def thrice(x):
        return x.exp().exp().exp()  # each keeps its result, the last one is the output

    (row,) = measure(Case('c', inputs(), dict(a=thrice)), rounds=1)
    assert row.kept == 2 * SIZE
    assert row.inference_peak == 2 * SIZE
    # in the backward pass three results, and the incoming and the outgoing gradient of a step
    assert 4 * SIZE <= row.training_peak <= 5 * SIZE


def test_rows():
    case = Case(
        'c', inputs(), dict(a=twice, b=lambda x: x.exp().square()), dict(c='no such package')
    )
    a, b, c = measure(case, rounds=3)
    assert (a.candidate, b.candidate, c.candidate) == ('a', 'b', 'c')
    assert a.inference_ratio == a.training_ratio == a.training_peak_ratio == 1
    assert 0 < b.difference < 1e-5
    assert a.difference == 0
    assert b.rounds == 3
    assert b.training_ms > 0
    assert b.training_ratio > 0
    assert (c.note, c.training_ms) == ('no such package', None)


def test_rounds_stop_after_the_time():
    rows = measure(Case('c', inputs(), dict(a=twice)), seconds=0, rounds=50)
    assert rows[0].rounds == 3


@pytest.mark.parametrize(
    ('wrong', 'what'),
    [
        (lambda x: (x * 2.02).exp(), 'output'),
        (lambda x: (x.detach() * 2).exp() + 0 * x, 'gradient of x'),
        (lambda x: (x * 2).exp()[:5], 'output of shape'),
        (lambda x: (x * 2).exp() * float('nan'), 'output'),
    ],
)
def test_a_candidate_that_disagrees_is_an_error(wrong, what):
    with pytest.raises(DisagreementError, match=rf'c: odd .*{what}'):
        measure(Case('c', inputs(), dict(a=twice, odd=wrong)))


def test_other_errors_pass():
    def broken(x):
        raise RuntimeError('something else')

    with pytest.raises(RuntimeError, match='something else'):
        measure(Case('c', inputs(), dict(a=twice, b=broken)))


def test_out_of_memory_is_a_note():
    def greedy(x):
        return twice(x) + torch.empty(2**35, dtype=torch.uint8)[0]

    with memory_limit(16):
        rows = measure(Case('c', inputs(), dict(a=greedy, b=twice)), rounds=1)
    assert row_of(rows, 'a').note == 'out of memory'
    assert row_of(rows, 'b').training_ratio == 1  # the first that could be measured
    torch.empty(2**34, dtype=torch.uint8)  # 16 GiB, untouched: the limit is gone


def test_reports(tmp_path):
    rows = measure(Case('one', inputs(), dict(a=twice), dict(b='not here')), rounds=1)
    rows += measure(Case('two', inputs(), dict(a=twice), pixels=1024), rounds=1)
    where = environment(CPU, ['nosuchpackage'])
    assert where['nosuchpackage'] == 'not installed'
    figures = json.loads(json.dumps(as_json('n', where, rows)))
    assert [r['case'] for r in figures['rows']] == ['one', 'one', 'two']
    assert figures['environment']['torch'] == torch.__version__

    text = markdown('n', where, rows)
    assert '| one | a |' in text
    assert '| one | b (not measured) | - |' in text
    assert 'b: not here (1 cases)' in text

    file = tmp_path / 'docs' / 'b.md'
    put_into(file, 'n', text)
    put_into(file, 'm', 'other\n')
    before = file.read_text()
    put_into(file, 'n', 'new\n')
    assert file.read_text() == before.replace(text, 'new\n')
    assert file.read_text().startswith('# Benchmarks\n')

    plot('n', rows, tmp_path / 'n.png')
    assert (tmp_path / 'n.png').stat().st_size > 5000


@pytest.mark.parametrize(
    'benchmark',
    [
        acmix,
        elsa,
        evolving_attention,
        lesa,
        neighborhood,
        peripheral,
        qna,
    ],
)
def test_candidates_agree(benchmark):
    rows = [row for case in benchmark.cases(CPU, torch.float64, quick=True) for row in check(case)]
    assert len(rows) >= 4
    assert all(row.note or row.difference < 1e-10 for row in rows)
    assert all(not row.note for row in rows if not row.candidate.startswith(('NATTEN', 'triton')))


@pytest.mark.parametrize('few', [True, pytest.param(False, marks=pytest.mark.slow)])
def test_backbones_agree_with_their_peers(few, monkeypatch):
    """A few small ones of each package, or all."""
    if few:
        few = [p for p in backbones.PEERS if p.name in ('HorNet-tiny', 'LeViT-128s')]
        monkeypatch.setattr(backbones, 'PEERS', few)
    rows = [row for case in backbones.cases(CPU, torch.float32, True) for row in check(case)]
    assert {row.candidate for row in rows} == {'ours', 'mmpretrain', 'timm'}
    assert all(row.note or row.difference < 1e-5 for row in rows)
    assert all(not row.note for row in rows if row.candidate != 'timm')


@pytest.mark.slow
@pytest.mark.parametrize('tree', ['sasa', 'hornet'])
def test_training_of_whole_models_agrees(tree, monkeypatch):
    """A detector against the plain formulation, a segmenter against MMPretrain's backbone."""
    found = [training for training in train.TRAININGS if training.config.startswith(tree)]
    monkeypatch.setattr(train, 'TRAININGS', found)
    (case,) = train.cases(CPU, torch.float64, True)
    ours, other = check(case)
    assert (ours.note, other.note) == ('', '')
    assert other.candidate == {'sasa': 'plain formulation', 'hornet': 'mmpretrain'}[tree]
    assert other.difference < 1e-6


def test_local_attention_candidates_agree():
    """In double precision: engine, gather, unfold, and timm's and NATTEN's where they are."""
    found = {}
    for case in local_attention.cases(CPU, torch.float64, quick=True):
        for row in check(case):
            assert row.note or row.difference < 1e-12, row
            found.setdefault(row.candidate, []).append(row)
    assert {'tiled', 'gather', 'unfold', 'NATTEN', 'timm HaloAttn', 'timm BottleneckAttn'} <= set(
        found
    )
    assert len(found['tiled']) == 5
    for candidate in ('tiled', 'gather', 'unfold'):
        assert not any(row.note for row in found[candidate])


def test_times_are_medians_in_turns(monkeypatch):
    """A clock that the candidates move: the median of three rounds, and ratios within a round."""
    clock, order = [0.0], []
    monkeypatch.setattr('hybrid_mm.benchmarks.core.time.perf_counter', lambda: clock[0])

    def candidate(name, seconds):
        waiting = {False: itertools.cycle(seconds), True: itertools.cycle(seconds)}

        def run(x):
            clock[0] += next(waiting[torch.is_grad_enabled()])
            order.append(name)
            return x * 2

        return run

    case = Case('c', inputs(), dict(a=candidate('a', (1, 2, 9)), b=candidate('b', (3, 3, 3))))
    a, b = measure(case, rounds=3)
    assert (a.inference_ms, a.training_ms) == (2000, 2000)  # whatever the first of the three is
    assert (b.inference_ms, b.training_ms) == (3000, 3000)
    assert (b.inference_ratio, b.training_ratio) == (1.5, 1.5)
    # two passes of each, the rounds beginning with a, b, a
    assert ''.join(order[-12:]) == 'aabb' + 'bbaa' + 'aabb'


def test_ratio_of_memory_is_that_to_the_first():
    rows = measure(
        Case('c', inputs(), dict(a=twice, b=lambda x: torch.cat([twice(x)] * 4)[:32])), rounds=1
    )
    a, b = rows
    assert b.training_peak > a.training_peak
    assert b.training_peak_ratio == b.training_peak / a.training_peak
    assert a.training_peak_ratio == 1


ROW = Row(
    'window', 'ours', 64, 7, 3.2e-7, 12.34, 1.0, 56.78, 0.456, 2**20, 5 * 2**20, 0.25, 3 * 2**19, 20
)


def test_figures_of_a_report(tmp_path):
    times, memory = ['12.3', '1.00', '56.8', '0.46'], ['1.0', '5.0', '0.25', '1.5']
    assert cells(ROW) == ['window', 'ours', *times, *memory, '3e-07']
    failed = Row('window', 'other', note='no wheel')
    assert cells(failed) == ['window', 'other (not measured)', *['-'] * 9]
    again = Row('halo', 'other', note='no wheel')
    assert notes([ROW, failed, again]) == ['other: no wheel (2 cases)']
    write_csv([ROW, failed], tmp_path / 'x.csv')
    with (tmp_path / 'x.csv').open(newline='') as file:
        first, second = csv.DictReader(file)
    assert first == dict(
        case='window',
        candidate='ours',
        pixels='64',
        kernel_size='7',
        difference='3.2e-07',
        inference_ms='12.34',
        inference_ratio='1.0',
        training_ms='56.78',
        training_ratio='0.456',
        inference_peak='1048576',
        training_peak='5242880',
        training_peak_ratio='0.25',
        kept='1572864',
        rounds='20',
        note='',
    )
    assert (second['note'], second['training_ms']) == ('no wheel', '')


def test_floor_counts_the_definition():
    """Counted by hand: queries, keys of each, widths; and the share of a known time."""
    found = {work.name.split(',')[0]: work for work in floor.works(quick=True)}
    nat = found['neighborhood attention (NAT)']
    assert nat.forward == 2 * 14 * 14 * 49 * (32 + 32)
    assert nat.backward == 2 * 14 * 14 * 49 * (32 + 2 * 32 + 2 * 32)
    shrinking = next(w for w in floor.works(quick=True) if 'stride 2' in w.name)
    assert shrinking.forward == 2 * 4 * 4 * 49 * (16 + 64)
    assert found['depthwise convolution (VAN)'].backward == 2 * 4 * 14 * 14 * 7 * 7

    peaks = dict(multiplications=2.0 * nat.forward, bytes=1e12)
    forward, backward = floor.shares(nat, dict(forward=1.0, both=3.0), peaks)
    assert forward.share == pytest.approx(0.5)
    assert backward.share == pytest.approx(2.5 / 2 / 2)
    given = 3 * 2 * 14 * 14 * 32 + 2 * 13 * 13
    assert forward.moved == 4 * (given + 2 * 14 * 14 * 32)
    assert backward.moved == 4 * (2 * given + 2 * 14 * 14 * 32)
    slow_memory = dict(multiplications=1e20, bytes=forward.moved / 0.25)
    assert floor.shares(nat, dict(forward=1.0, both=3.0), slow_memory)[0].share == pytest.approx(
        0.25
    )
    lines = floor.table(floor.shares(nat, dict(forward=1.0, both=3.0), slow_memory), [peaks])
    assert '| memory | 25% |' in lines[3]
