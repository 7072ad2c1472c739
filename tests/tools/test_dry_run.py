"""``--dry-run``, ``--tensorboard`` and ``--wandb`` of the tools."""

import re
import subprocess
import sys

import pytest
from mmengine.config import Config

from hybrid_mm.errors import UserError
from hybrid_mm.run import dry_run, launch
from hybrid_mm.run.console import duration, progress


def test_dry_run(tool, capsys, det_config, tmp_path):
    """One step and one validation batch; no file is left."""
    load = dry_run.show
    rows = []

    def show(result, macs):
        rows.append((result, macs))
        load(result, macs)

    dry_run.show = show
    try:
        work = tmp_path / 'work'
        before = sorted(path.name for path in tmp_path.rglob('*'))
        options = ('train_cfg.max_iters=90', 'train_cfg.val_interval=40')
        status, err = tool(
            'train', det_config, '--work-dir', work, '--dry-run', '--cfg-options', *options
        )
    finally:
        dry_run.show = load
    assert status == 0, err
    assert sorted(path.name for path in tmp_path.rglob('*')) == before
    (result, macs) = rows[0]
    assert result.shape == (2, 3, 64, 64)
    assert result.parameters >= result.trainable > 0
    assert macs > 0
    assert result.losses['loss'] > 0
    assert (result.steps, result.validations, result.val_batches) == (90, 3, 4)
    assert result.step > 0 and result.val_step > 0 and result.growth >= 0
    assert result.memory > result.growth
    train, val = result.load + result.step, result.val_load + result.val_step  # no workers
    assert result.seconds == pytest.approx(90 * train + 3 * 4 * val)
    # SGD with momentum: a buffer for each weight
    assert result.checkpoint >= 4 * (result.parameters + result.trainable)


def test_dry_run_of_epochs_without_validation(tool, capsys, seg_config, tmp_path):
    text = (
        seg_config.read_text()
        .replace(
            "train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=100)",
            "train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=5)",
        )
        .replace('InfiniteSampler', 'DefaultSampler')
    )
    seg_config.write_text(text)
    status, err = tool(
        'train', seg_config, '--dry-run', '--no-validate', '--work-dir', tmp_path / 'w'
    )
    assert status == 0, err
    assert not (tmp_path / 'w').exists()


def test_loss_that_is_no_number(fails, det_config, tmp_path):
    with det_config.open('a') as file:
        file.write("\nmodel['data_preprocessor']['std'] = [0.] * 3\n")
    assert 'of the first step is' in fails('train', det_config, '--dry-run')


def test_estimate():
    result = dry_run.DryRun(1, 1, steps=100, load=2.0, step=1.0, workers=4)
    assert result.seconds == 100
    result.workers = 1
    assert result.seconds == 200
    result.workers = 0
    assert result.seconds == 300
    result.val_load, result.val_step, result.validations, result.val_batches = 1.0, 3.0, 2, 5
    assert result.seconds == 340
    assert [duration(s) for s in (0.25, 45, 720, 19200, 273600)] == [
        *('0.25 s', '45 s', '12 min', '5 h 20 min', '3 days 4 h')
    ]


PEAK = """
import torch
from hybrid_mm.run import dry_run
model, result = torch.nn.Linear(2, 2), dry_run.DryRun(0, 0, 0)
torch.ones(64 * 2**20)  # 256 MiB before
with dry_run._memory(model, result):
    torch.ones(32 * 2**20)
print(result.growth)
"""


def test_peak_memory_is_that_of_the_step():
    if not dry_run._reset_peak():
        pytest.skip('the kernel does not let the peak be reset')
    # in a process of its own, that has no garbage of other tests to give back meanwhile
    done = subprocess.run([sys.executable, '-c', PEAK], capture_output=True, text=True, check=True)
    assert 100 * 2**20 < int(done.stdout) < 200 * 2**20


def test_tensorboard_curves(tool, det_config, tmp_path):
    pytest.importorskip('tensorboard')
    status, err = tool('train', det_config, '--work-dir', tmp_path / 'w', '--tensorboard')
    assert status == 0, err
    assert list((tmp_path / 'w').rglob('events.out.tfevents*'))


WANDB = """
import json, os
def init(**kwargs):
    write(dict(init=kwargs))
def log(values, commit=True, **kwargs):
    write(dict(log={k: float(v) for k, v in values.items()}))
def write(entry):
    with open(os.environ['WANDB_STUB'], 'a') as file:
        file.write(json.dumps(entry) + '\\n')
class config:
    update = staticmethod(lambda values, **kwargs: None)
def join(): pass
def finish(): pass
class run:
    log_code = staticmethod(lambda **kwargs: None)
"""


def test_wandb(tool, det_config, tmp_path, monkeypatch):
    """The curves reach a module with the functions of wandb that MMEngine calls."""
    folder = tmp_path / 'site'
    folder.mkdir()
    (folder / 'wandb.py').write_text(WANDB)
    log = tmp_path / 'log.jsonl'
    monkeypatch.setenv('WANDB_STUB', str(log))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, 'wandb', raising=False)
    status, err = tool('train', '--wandb', det_config, '--work-dir', tmp_path / 'try')
    monkeypatch.delitem(sys.modules, 'wandb', raising=False)
    assert status == 0, err
    text = log.read_text()
    assert '"project": "hybrid_mm", "name": "try"' in text
    assert re.search(r'"log": \{.*"loss"', text)


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(launch, 'find_spec', lambda name: None)
    for flags, name in (((True, None), 'tensorboard'), ((False, 'mine'), 'wandb')):
        with pytest.raises(
            UserError, match=f'--{name} needs the package {name}: pip install {name}'
        ):
            launch.set_tracking(Config(dict(work_dir='w')), *flags)


def test_backends_are_added_once(monkeypatch):
    monkeypatch.setattr(launch, 'find_spec', lambda name: object())
    backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    cfg = Config(dict(work_dir='a/try', visualizer=dict(type='Visualizer', vis_backends=backends)))
    launch.set_tracking(cfg, True, 'mine')
    assert [backend.type for backend in cfg.visualizer.vis_backends] == [
        *('LocalVisBackend', 'TensorboardVisBackend', 'WandbVisBackend')
    ]
    assert cfg.visualizer.vis_backends[2].init_kwargs == dict(project='mine', name='try')
    bare = Config(dict(work_dir='a/try'))
    launch.set_tracking(bare, False, 'mine')
    assert len(bare.visualizer.vis_backends) == 2


def test_progress_in_a_pipe(capsys, monkeypatch):
    from hybrid_mm.run import console

    now = iter(range(0, 1000, 10))
    monkeypatch.setattr(console.time, 'monotonic', lambda: next(now))
    with progress('reading', 9) as advance:
        for _ in range(9):
            advance()
    lines = capsys.readouterr().err.splitlines()
    assert lines == ['reading 3/9, 60 s left', 'reading 6/9, 30 s left']
