"""A comparison of models: what is measured, in which order, what is written and what is said."""

import json

import pytest
import torch
from torch import nn

from hybrid_mm.analysis import comparison, comparison_report, report
from hybrid_mm.analysis.comparison import Entry, Settings, Subject, compare
from hybrid_mm.analysis.complexity import complexity
from hybrid_mm.errors import UserError


def settings(**changes):
    return Settings(**dict(dict(size=(64, 64), rounds=2), **changes))


def test_training_steps_change_no_weight(det_config):
    """Yet the optimizer has its state, as in a training."""
    subject = Subject(str(det_config), None, settings())
    subject.size = 64, 64
    before = {k: v.clone() for k, v in subject.module.named_parameters()}
    for _ in range(2):
        subject.prepare('training')()
    assert all(torch.equal(v, before[k]) for k, v in subject.module.named_parameters())
    assert all(p.grad is None for p in subject.module.parameters())
    assert len(subject.optimizer.optimizer.state) > 10
    assert subject.count() == complexity(subject.module, (64, 64))[1]


def test_rounds_in_turn_and_failures_in_the_middle(monkeypatch):
    """The order rotates; results are there after every model and round; a failed model is left."""
    order, seen, released = [], [], []

    class Scripted:
        def __init__(self, spec, checkpoint, settings):
            self.module, self.weights, self.task = nn.Linear(2, 1), 'w', 'backbone'
            self.spec, self.size, self.calls = spec, (64, 64), 0

        def choose_size(self, common):
            assert common == (64, 64)

        def count(self):
            return 7

        def release(self):
            released.append(self.spec)

        def peak(self, mode):
            return 9

        def prepare(self, mode):
            order.append(self.spec)
            self.calls += 1
            if self.spec == 'b' and self.calls > 2:
                raise RuntimeError('broken\nat length')
            return self.calls

    monkeypatch.setattr(comparison, 'Subject', Scripted)
    monkeypatch.setattr(comparison, 'seconds_of', lambda calls, device: float(calls))
    entries = [Entry(name, name) for name in 'abc']
    done = lambda: seen.append([(e.rounds, e.forward_ms) for e in entries])  # noqa: E731
    compare(entries, [None] * 3, settings(rounds=4, training=False), done)
    assert ''.join(order) == 'cab' + 'abc' + 'bca' + 'cab'[:2] + 'ac'
    assert len(seen) == 3 + 4 and seen[3][0] == (1, 2000.0)
    a, b, _ = entries
    assert released == ['b'] and a.forward_ratio == 1.0
    assert b.errors == {'forward': 'RuntimeError: broken'} and b.forward_ms is None
    assert (a.forward_ms, a.macs, a.params, a.forward_bytes) == (3500, 7, 3, 9)
    assert a.forward_spread == pytest.approx(1.5 / 2 / 3.5)
    assert 'differ by up to 21% between the rounds' in comparison.busy(entries)


def test_sizes_of_the_tests_of_configs(tmp_path):
    def size(text, task):
        (tmp_path / 'c.py').write_text(text)
        cfg = comparison.load_config(str(tmp_path / 'c.py'))
        return comparison._own_size(cfg, task)

    pipeline = 'test_pipeline = [dict(type="Resize", scale=({}, {}), keep_ratio=True)]\nmodel = {}'
    assert size(pipeline.format(1333, 800, '{}'), 'detection') == (800, 1344)
    model = 'dict(data_preprocessor=dict(size=(64, 96)))'
    assert size(pipeline.format(2048, 512, model), 'segmentation') == (64, 96)
    crop = 'test_pipeline = [dict(type="CenterCrop", crop_size=224)]'
    assert size(crop, 'classification') == (224, 224)
    assert size('model = dict()', 'detection') == (800, 1280)


def test_labels_of_points_do_not_cover_each_other(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda self, *_, **__: figures.append(self))
    entries = [
        Entry(f'network-{i}', 'x', forward_ms=50.0 + 0.1 * i, macs=10**9, metrics=dict(mIoU=40.0))
        for i in range(5)
    ]
    assert comparison_report.plot(entries, tmp_path / 'x.png')
    for axes in figures[0].axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert len(boxes) == 5
        for i, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:i])
    assert not comparison_report.plot([Entry('x', 'x')], tmp_path / 'x.png')


def test_tasks_without_a_model(tmp_path):
    (tmp_path / 'c.py').write_text('model = [1]\n')
    with pytest.raises(UserError, match='has no model'):
        Subject(str(tmp_path / 'c.py'), None, settings())


def test_comparisons_in_the_report(tmp_path):
    entries = [
        Entry('<a>', 'x', size=(64, 96), params=10**7, macs=2 * 10**9, forward_ms=5.0, batch=2),
        Entry('b', 'y', errors=dict(build='no such file')),
    ]
    how = dict(batch=2, rounds=3, precision='float32', device='cpu', input='noise')
    content = comparison_report.as_json(entries, how, dict(cpu='fast'))
    (tmp_path / 'comparison.json').write_text(json.dumps(content))
    page = report.page(report.collect([tmp_path]), 'title', tmp_path)
    assert '<td>&lt;a&gt;</td><td>10.00</td><td>2.00</td><td>5.0</td><td>400</td>' in page
    assert 'b: no such file' in page and 'cpu fast' in page


def test_markdown_of_odd_names_and_numbers(tmp_path):
    """Labels stay in their cells; JSON has no NaN; what was not measured is not described."""
    entry = Entry('a|b\n<i>', 'x', batch=2, forward_ms=1.0, metrics={'m|n': float('nan')})
    how = dict(batch=2, rounds=1, precision='float32', device='cpu', input='noise')
    lines = comparison_report.markdown([entry], how, {}).splitlines()
    assert lines[0].endswith(r'| m\|n |') and lines[2].startswith(r'| a\|b \<i> | 1.0 | 2,000 |')
    assert '; times of one round; x:' in lines[4]
    assert comparison_report.conditions({**how, 'rounds': 0}).endswith('; no times were measured.')
    json.dumps(comparison_report.as_json([entry], how, {}), allow_nan=False)


def test_ratios_to_the_first_that_is_measured(monkeypatch):
    """The first model fails in training only; memory that does not suffice is no wrong size."""

    class Scripted(Subject):
        def __init__(self, spec, checkpoint, settings):
            self.module, self.weights, self.task = nn.Linear(2, 1), 'w', 'backbone'
            self.spec, self.size, self.settings, self.cfg = spec, (64, 64), settings, {}

        def peak(self, mode):
            return 9

        def count(self):
            return 7

        def prepare(self, mode):
            if self.spec == 'c':
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            if mode == 'training' and self.spec == 'a':
                raise RuntimeError('broken')
            return lambda: self.spec

    monkeypatch.setattr(comparison, 'Subject', Scripted)
    monkeypatch.setattr(comparison, 'seconds_of', lambda run, device: {'a': 1, 'b': 2}[run()])
    a, b, c = entries = [Entry(name, f'{name}') for name in 'abc']
    compare(entries, [None] * 3, settings())
    assert (a.forward_ratio, a.training_ratio, list(a.errors)) == (1, None, ['training'])
    assert (b.forward_ratio, b.training_ratio) == (2, 1)
    assert "can't allocate" in c.errors['forward'] and c.size is None
