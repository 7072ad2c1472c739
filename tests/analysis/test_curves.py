"""Where the values of logs are drawn: by iteration and by epoch, resumed, tested, of MMCV 1."""

import json
import os

import pytest
from matplotlib.figure import Figure

from hybrid_mm.analysis import curves
from hybrid_mm.analysis.curves import metrics_of, plot_curves, read_run


def write(path, lines, config='', age=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(map(json.dumps, lines)) + '\n')
    if config:
        path.with_name('config.py').write_text(config)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def train(step, loss=1.0, **more):
    return dict(loss=loss, iter=step, step=step, **more)


def val(value, step=0, name='mIoU', **more):
    return {name: value, 'time': 0.1, 'step': step, **more}


LOOP = "train_cfg = dict(max_iters={}, type='IterBasedTrainLoop', val_interval={})\n"


@pytest.mark.parametrize(
    ('lines', 'loop', 'expected'),
    [
        # logged at each validation
        ([train(50), train(100), val(1), train(150), train(200), val(2)], (200, 100), [100, 200]),
        # validated between logged iterations, the last time at the end
        ([val(1), train(50), val(2), val(3), train(100), val(4)], (110, 30), [30, 60, 90, 110]),
        # before the training, and no config
        ([val(1), train(50), val(2), train(100)], None, [0, 50]),
        # before the training
        ([val(1), train(50), train(100), val(2)], (200, 100), [0, 100]),
        # log_metric_by_epoch=False
        ([train(50), val(1, 70), train(100), val(2, 140)], (200, 70), [70, 140]),
    ],
)
def test_iterations_of_validations(lines, loop, expected, tmp_path):
    write(tmp_path / 'vis_data/scalars.json', lines, LOOP.format(*loop) if loop else '')
    run = read_run(tmp_path)
    assert run.curves['mIoU'].iterations == expected
    assert run.curves['loss'].iterations == [r['step'] for r in lines if 'loss' in r]
    assert set(run.curves['mIoU'].epochs) == {None} and run.metrics == ['mIoU']


def test_epochs_of_validations(tmp_path):
    name = 'accuracy/top1'
    lines = [
        val(0.1, 0, name),
        train(10, epoch=1),
        val(0.2, 1, name),
        train(20, epoch=2),
        val(0.3, 2, name),
    ]
    run = read_run(write(tmp_path / 'scalars.json', lines))
    curve = run.curves[name]
    assert (curve.epochs, curve.iterations) == ([0, 1, 2], [0, 10, 20])
    assert metrics_of(run) == ({name: 0.3}, 'the last validation, epoch 2,')


def test_a_resumed_run_is_whole(tmp_path):
    """Three starts; the second began anew, the third went on at iteration 20."""
    write(tmp_path / 'a/vis_data/scalars.json', [train(10, 9.0), train(20, 9.0)], age=30)
    first = [train(10, 1.0), train(20, 2.0), val(0.5), train(30, 8.0)]
    write(tmp_path / 'b/vis_data/scalars.json', first, LOOP.format(60, 20), age=20)
    then = [train(30, 3.0), train(40, 4.0), val(0.6)]
    write(tmp_path / 'c/vis_data/scalars.json', then, LOOP.format(60, 20), age=10)
    run = read_run(tmp_path)
    assert run.curves['loss'].iterations == [10, 20, 30, 40]
    assert run.curves['loss'].values == [1, 2, 3, 4]
    assert run.curves['mIoU'].iterations == [20, 40]
    write(tmp_path / 'd/vis_data/scalars.json', [train(50, 5.0)], age=5)
    write(tmp_path / 'e/vis_data/scalars.json', []).write_text('')  # no line yet
    run = read_run(tmp_path)
    assert run.curves['loss'].iterations == [10, 20, 30, 40, 50]
    with pytest.raises(FileNotFoundError, match='nowhere does not exist'):
        read_run(tmp_path / 'nowhere')


def test_logs_of_mmcv_1(tmp_path):
    lines = [dict(env_info='x', mmdet_version='2.28')]
    for epoch in (1, 2):
        for step in (50, 100):
            lines.append(dict(mode='train', epoch=epoch, iter=step, lr=0.1, loss=step))
        lines.append(dict(mode='val', epoch=epoch, iter=5000, lr=0.1, bbox_mAP=0.1 * epoch))
    write(tmp_path / '2023.log.json', lines)
    run = read_run(tmp_path)
    assert run.curves['loss'].iterations == [50, 100, 150, 200]
    curve = run.curves['bbox_mAP']
    assert (curve.epochs, curve.iterations, curve.values) == ([1, 2], [100, 200], [0.1, 0.2])
    assert run.metrics == ['bbox_mAP']


def test_logs_of_tests(tmp_path):
    metrics = {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5, 'time': 0.1}
    file = tmp_path / '20260101_000000/20260101_000000.json'
    file.parent.mkdir()
    file.write_text(json.dumps(metrics, indent=4))
    for path in (file, tmp_path):
        run = read_run(path)
        assert run.tested and run.metrics == ['coco/bbox_mAP', 'coco/bbox_mAP_50']
        assert metrics_of(run)[0] == {'coco/bbox_mAP': 0.25, 'coco/bbox_mAP_50': 0.5}


def test_best_and_last_metrics(tmp_path):
    lines = []
    for step, value in ((10, 0.2), (20, 0.6), (30, 0.4)):
        lines += [train(step), val(value, aAcc=1 - value)]
    run = read_run(write(tmp_path / 'scalars.json', lines))
    assert metrics_of(run, 'best') == (
        {'mIoU': 0.6, 'aAcc': 0.4},
        'the best validation, iteration 20,',
    )
    assert metrics_of(run)[0] == {'mIoU': 0.4, 'aAcc': 0.6}
    assert metrics_of(run, 'best', ['aAcc'])[0] == {'aAcc': 0.8}
    lines = [train(10), dict(step=0, aAcc=0.9, mIoU=0.1), train(20), dict(step=0, aAcc=0.1, mIoU=1)]
    lines += [train(30), dict(step=0, aAcc=0.5, mIoU=float('nan'))]
    run = read_run(write(tmp_path / 'b/scalars.json', lines))
    assert metrics_of(run, 'best')[0] == {'aAcc': 0.1, 'mIoU': 1}  # by mIoU, the main one


def test_axes(tmp_path, monkeypatch):
    """Metrics over epochs if all runs count them, else over iterations; tests as lines."""
    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda self, *_, **__: figures.append(self))
    epochs = [train(10, epoch=1), val(0.2, 1), train(20, epoch=2), val(0.3, 2)]
    by_epoch = read_run(write(tmp_path / 'a/scalars.json', epochs))
    iterations = [train(5), val(0.1), train(10), val(0.2), train(15), val(0.5)]
    by_iteration = read_run(write(tmp_path / 'b/scalars.json', iterations))
    (tmp_path / 'm.json').write_text('{"mIoU": 0.4}')
    tested = read_run(tmp_path / 'm.json')

    def drawn(**runs):
        plot_curves(runs, ['mIoU'], tmp_path / 'x.png')
        axes = figures[-1].axes[0]
        return axes.get_xlabel(), [list(line.get_xdata()) for line in axes.lines]

    assert drawn(a=by_epoch) == ('epoch', [[1, 2]])
    assert drawn(a=by_epoch, t=tested) == ('epoch', [[1, 2], [0, 1]])
    assert drawn(a=by_epoch, b=by_iteration) == ('iteration', [[10, 20], [5, 10, 15]])
    assert drawn(t=tested)[1] == [[0, 1]]
    monkeypatch.undo()
    names = r'$\frac$', 'b'  # is no formula
    plot_curves(dict.fromkeys(names, by_epoch), ['mIoU'], tmp_path / 'x.png')
    assert curves.TIMES[0] not in by_epoch.metrics
