"""Parts of tools/gpu_check.py: processes that crash or hang, comparisons, files."""

import json
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from hybrid_mm.benchmarks.gpu import modules, operators, record, suite, supervisor
from hybrid_mm.benchmarks.gpu.compare import compare, watched
from hybrid_mm.benchmarks.gpu.layers import LAYERS
from hybrid_mm.benchmarks.gpu.patterns import PATTERNS, Draw, Pattern, Problem, draw
from hybrid_mm.benchmarks.gpu.record import Record
from hybrid_mm.benchmarks.gpu.task import Failed, Options, Result, Skipped
from hybrid_mm.ops import kernels
from hybrid_mm.ops.dispatch import ALGORITHMS, chosen_impl

TASKS = Path(__file__).parent / 'gpu_tasks'
ROOT = Path(__file__).parents[2]
DRY = Options('cpu', dry=True)


@pytest.fixture
def supervise(tmp_path, monkeypatch):
    """Have the tasks that go wrong done, by so many processes, within a time."""
    # MMEngine is imported with the package; without it a process starts at once
    (tmp_path / 'mmengine.py').write_text('raise ImportError')
    monkeypatch.syspath_prepend(str(TASKS))
    from tasks_that_go_wrong import tasks

    path = f'{tmp_path}:{TASKS}:{ROOT}'
    place = supervisor.Suite('tasks_that_go_wrong:tasks', DRY, dict(PYTHONPATH=path), tmp_path)

    def call(*only, seconds=30.0, workers=1, started=lambda task: None):
        results = []
        deadline = time.monotonic() + seconds
        monkeypatch.setattr(supervisor, '_START', 5.0)
        todo = [task for task in tasks(DRY) if not only or task.name in only]
        supervisor.supervise(todo, place, deadline, started, results.append, workers)
        return {result.name: result for result in results}

    yield call
    sys.modules.pop('tasks_that_go_wrong')


@pytest.mark.parametrize('workers', [1, 3])
def test_processes_that_end_or_hang_are_started_anew(supervise, workers):
    results = supervise(workers=workers)
    assert {name: result.status for name, result in results.items()} == {
        'right': 'PASS',
        'crashes': 'CRASH',
        'wrong': 'FAIL',
        'hangs': 'HANG',
        'raises': 'FAIL',
        'impossible': 'SKIP',
    }
    assert results['right'].text == 'fine'
    assert results['right'].figures == dict(error=0.5)
    assert 'SIGABRT' in results['crashes'].text
    assert 'illegal memory access' in results['crashes'].details
    assert results['wrong'].figures == dict(error=1.0)
    assert results['raises'].text == 'ValueError: a mistake'
    assert 'in raises' in results['raises'].details
    assert results['impossible'].text == 'no GPU'


def test_what_the_time_does_not_suffice_for_is_skipped(supervise):
    results = supervise('hangs', 'impossible', seconds=1.5)
    assert {result.status for result in results.values()} == {'SKIP'}
    assert results['hangs'].text.startswith('the time was over after')
    assert results['impossible'].text == 'not reached: the time was over'


def test_an_error_of_the_tool_itself_ends_it(supervise):
    def started(task):
        raise OSError('disk full')

    threads = threading.active_count()
    with pytest.raises(OSError, match='disk full'):
        supervise(started=started)
    assert threading.active_count() == threads


# ---- comparisons


def test_differences_in_the_norm_and_of_single_entries():
    x = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    text, figures = compare(['result'], [x * (1 + 1e-5)], [x.double()], 1e-4)
    assert 'off by 1.0e-05' in text
    assert figures['errors'] == {'result': pytest.approx(1e-5, rel=0.01)}
    wrong = x.clone()
    wrong[3, 4] += 0.5  # an hundredth of a per cent of the norm's square
    with pytest.raises(Failed, match=r'gradient of q off by 5.0e-03, an entry by'):
        compare(['gradient of q'], [wrong], [x], 1e-2)
    with pytest.raises(Failed, match='inf'):
        compare(['result'], [x.where(x < 2, float('nan'))], [x], 1e-2)
    with pytest.raises(Failed, match=r'shape \(100,\) instead of'):
        compare(['result'], [x[0]], [x], 1e-2)


@pytest.mark.parametrize(('error', 'fits'), [(1e-6, True), (1e-3, False)])
@pytest.mark.parametrize('where', ['result', 'gradient'])
def test_a_wrong_algorithm_is_seen(error, fits, where):
    """Its result, or its gradient alone."""

    def call(x, impl):
        y = x.sin()
        if impl != 'reference':
            change = error * y if where == 'result' else error * (x - x.detach())
            y = y + change
        return y

    def build(*size):
        return Problem(dict(x=Draw(size)), call)

    pattern = Pattern('mixed_shift', 'a pattern', build, (5, 6), (5, 6), (5, 6))
    run = partial(operators.check, DRY, pattern, 'tiled', torch.float32)
    if fits:
        assert run()[1]['error'] < 1e-5
    else:
        with pytest.raises(Failed, match=where):
            run()


class Layer(nn.Module):
    """A branch behind a scale that starts near nothing; the gradient of its weight is wrong."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.scale, self.error = nn.Parameter(torch.full((4,), 1e-6)), error
        self.weight = nn.Parameter(torch.rand(4))

    def forward(self, x):
        factor = 1 + self.error * (chosen_impl('auto', 'mixed_shift') != 'reference')
        weight = self.weight.detach() + factor * (self.weight - self.weight.detach())
        return x + self.scale * weight * x.sin()


def test_a_wrong_layer_is_seen_behind_a_small_scale():
    modules.check(partial(Layer, 1e-6), (2, 4), DRY, torch.float32)
    with pytest.raises(Failed, match='gradient of weight off by'):
        modules.check(partial(Layer, 0.1), (2, 4), DRY, torch.float32)


def test_kernels_that_do_not_run_are_failures():
    def run():
        raise RuntimeError('shared memory')

    with pytest.raises(Failed, match=r'fell back .*: mixed_shift: .*shared memory'), watched():
        assert kernels.launched('mixed_shift', run, lambda: 3) == 3
    assert not kernels.forget_failures()


def test_inputs_keep_their_numbers_in_any_order_of_memory():
    size = (2, 3, 4, 5, 6)
    plain, tokens = (
        draw(dict(x=Draw(size, order=order)), 0)['x'] for order in (None, (0, 2, 3, 1, 4))
    )
    assert torch.equal(plain, tokens)
    assert tokens.permute(0, 2, 3, 1, 4).is_contiguous()


# ---- what is checked


def test_every_operator_is_checked_its_kernel_first():
    found = suite.tasks(Options())
    names = [task.name for task in found]
    assert len(set(names)) == len(names)
    assert names[0] == suite.ENVIRONMENT
    operators_ = {pattern.operator for pattern in PATTERNS}
    on_cpus = {'depthwise_convolution'}  # on a GPU it is torch's own
    assert operators_ | {'vector_attention'} | on_cpus == set(ALGORITHMS)
    assert 'pairwise 7 (SAN)' in LAYERS  # which stands for vector attention
    first = names[1 : 1 + len(operators_)]
    for operator in operators_:
        last = ALGORITHMS[operator][-1]
        assert any(n.startswith(f'operators/{operator}') for n in first if f'/{last}/' in n)
    measured = [i for i, task in enumerate(found) if task.alone]
    checked = [i for i, task in enumerate(found) if not task.alone and task.order < 10]
    assert max(checked) < min(measured)


def test_no_graph_without_a_gpu():
    with pytest.raises(Skipped, match='needs a GPU'):
        operators.check(DRY, PATTERNS[-1], 'auto', torch.float16, 'CUDA graph')


# ---- files


def test_files_are_whole_after_every_task(tmp_path, monkeypatch):
    notes = Record(tmp_path / 'out', 'python tools/gpu_check.py', dict(gpu='G'), open=4)
    replaced = []

    def replace(source, target):
        text = Path(source).read_text()
        if Path(target).suffix == '.json':
            replaced.append(json.loads(text))
        Path(source).rename(target)

    monkeypatch.setattr(record.os, 'replace', replace)
    notes.begin('operators/a')
    assert replaced[-1]['running'] == ['operators/a']
    notes.add(Result('operators/a', 'PASS', 'off by 1e-05', dict(error=1e-5)))
    notes.add(Result('operators/b|c', 'FAIL', 'off by 2', dict(error=2.0), 'Traceback'))
    notes.add(Result('networks/all', 'SKIP', 'no mmengine'))
    assert [r['name'] for r in replaced[-1]['results']][:2] == ['operators/a', 'operators/b|c']
    assert replaced[-1]['open'] == 1
    text = (tmp_path / 'out/gpu_check.md').read_text()
    for line in (
        '1 PASS (right), 1 FAIL (wrong results, or an exception), 1 SKIP (not done)',
        '- FAIL operators/b|c: off by 2',
        '- SKIP 1: no mmengine (networks/all)',
        '| operators/a | PASS | off by 1e-05 | 0.0 |',
        'gpu G;',
    ):
        assert line in text
    assert '\n```text\nTraceback\n```\n' in text
    assert not list((tmp_path / 'out').glob('*.part'))
