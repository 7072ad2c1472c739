"""Ctrl-C and SIGTERM: one line, the usual status, nothing damaged, nothing left over."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hybrid_mm.checkpoints import read_checkpoint

from .conftest import ROOT, children, command, environment, losses
from .test_kill_and_resume import replaced, validating

OPTIONS = ('train_cfg.max_iters=8', 'train_cfg.val_interval=4', 'train_dataloader.num_workers=2')


def iteration(number):
    """Moment within a step of the training."""

    def arm(shoot) -> None:
        from mmengine.runner import Runner

        call = Runner.call_hook

        def watched(self, name, **kwargs):
            call(self, name, **kwargs)
            if name == 'before_train_iter' and self.iter == number:
                shoot()

        Runner.call_hook = watched

    return arm


@pytest.fixture
def interrupted(fork_tool):
    """End a tool in a copy of this process by a signal; return what it wrote."""

    def end(name: str, moment, number: int, *argv, processes: int = 1) -> str:
        settings = dict(dies=moment, by=number, status=128 + number)
        return fork_tool(name, processes, *argv, **settings)

    return end


def line_of(text: str) -> str:
    """The one line of an interruption."""
    assert 'Traceback' not in text and 'Error' not in text, text
    (line,) = [each for each in text.splitlines() if 'interrupted' in each]
    return line


def test_ctrl_c_in_a_training_that_then_goes_on(interrupted, fork_tool, det_config, tmp_path):
    run = (det_config, '--work-dir', tmp_path / 'w', '--cfg-options', *OPTIONS)
    text = interrupted('train', iteration(5), signal.SIGINT, *run)
    line = line_of(text)
    start = 'interrupted at iteration 5; newest checkpoint iter_4.pth; go on with: '
    assert line.startswith(start)
    (log,) = (tmp_path / 'w').glob('*/*.log')
    assert line in log.read_text()
    words = shlex.split(line.removeprefix(start))
    assert words[-1] == '--resume'
    fork_tool('train', 1, *words[words.index(str(det_config)) :])
    assert [record['step'] for record in losses(tmp_path / 'w') if 'loss' in record][5:] == [
        *(5, 6, 7, 8)
    ]


def test_sigterm_while_a_checkpoint_is_saved(interrupted, det_config, tmp_path):
    run = (det_config, '--work-dir', tmp_path / 'w', '--cfg-options', *OPTIONS)
    text = interrupted('train', replaced('iter_2.pth', True), signal.SIGTERM, *run)
    assert line_of(text).startswith('interrupted at iteration 2; newest checkpoint iter_2.pth; ')
    read_checkpoint(str(tmp_path / 'w' / 'iter_2.pth'))
    names = {path.name for path in (tmp_path / 'w').iterdir() if path.is_file()}
    assert names - {'training.lock'} == {'iter_2.pth', 'last_checkpoint', det_config.name}


@pytest.mark.slow
def test_other_moments(interrupted, det_config, tmp_path):
    run = (det_config, '--work-dir', tmp_path / 'w', '--cfg-options', *OPTIONS)
    text = interrupted('train', iteration(1), signal.SIGTERM, *run)
    assert 'at iteration 1; nothing saved yet; start again with: ' in line_of(text)
    text = interrupted('train', validating, signal.SIGINT, *run)
    assert 'iteration 4, in the validation; newest checkpoint iter_4.pth' in line_of(text)
    checkpoint = tmp_path / 'w' / 'iter_4.pth'
    flags = ('--work-dir', tmp_path / 't')
    text = interrupted('test', validating, signal.SIGTERM, det_config, checkpoint, *flags)
    assert 'interrupted before the first batch; start again with: ' in line_of(text)
    text = interrupted('train', validating, signal.SIGINT, *run, '--dry-run')
    assert 'a dry run saves nothing' in line_of(text)


@pytest.mark.slow
def test_epochs(interrupted, seg_config, tmp_path):
    with open(seg_config, 'a') as file:
        file.write(
            "\ntrain_cfg = dict(type='EpochBasedTrainLoop', max_epochs=3, val_interval=9)\n"
            "default_hooks['checkpoint'].update(by_epoch=True, interval=1)\n"
            'log_processor = dict(by_epoch=True)\n'
        )
    run = (seg_config, '--work-dir', tmp_path / 'w')
    text = interrupted('train', iteration(6), signal.SIGINT, *run)
    assert line_of(text).startswith(
        'interrupted at epoch 2 of 3, iteration 6; newest checkpoint epoch_1.pth; go on with: '
    )


@contextmanager
def training(line: list, work_dir: Path, err: Path, **settings) -> Iterator[subprocess.Popen]:
    """A process that trains, and has saved a checkpoint."""
    with open(err, 'w') as file:
        job = subprocess.Popen(line, stdout=file, stderr=file, start_new_session=True, **settings)
    try:
        deadline = time.monotonic() + 200
        while not list(work_dir.glob('iter_*.pth')):
            assert job.poll() is None and time.monotonic() < deadline, err.read_text()
            time.sleep(0.1)
        yield job
    finally:
        if job.poll() is None:
            job.send_signal(signal.SIGTERM)
            job.wait(60)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='needs /proc')
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize('processes', [1, 2])
def test_real_processes(number, processes, det_config, tmp_path):
    """As a terminal and a cluster do it: the signal reaches all processes, workers too."""
    options = ('train_cfg.max_iters=100000', 'train_dataloader.num_workers=2')
    line = command(det_config, tmp_path / 'w', processes, *options)
    if processes > 1:
        line[1:3] = ['-m', 'hybrid_mm.run.launcher']
    with training(line, tmp_path / 'w', tmp_path / 'err', env=environment()) as job:
        family = [job.pid]
        for pid in family:
            family += children(pid)
        assert len(family) > processes
        os.killpg(job.pid, number)
        assert job.wait(100) == 128 + number
    said = line_of((tmp_path / 'err').read_text())
    assert re.match(r'interrupted at iteration \d+; newest checkpoint iter_\d+.pth; go on', said)
    assert said.endswith(' --resume')
    deadline = time.monotonic() + 60
    while any(Path(f'/proc/{pid}').exists() for pid in family):
        assert time.monotonic() < deadline, 'a process is left over'
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_launch_script(det_config, tmp_path):
    """tools/dist_train.sh names itself in the line."""
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    line = ['bash', ROOT / 'tools' / 'dist_train.sh', det_config, '2', '--work-dir', tmp_path / 'w']
    line += ['--cfg-options', 'train_cfg.max_iters=100000', 'train_dataloader.batch_size=1']
    env = environment() | dict(PATH=path, PORT='29533')
    with training(line, tmp_path / 'w', tmp_path / 'err', env=env) as job:
        job.send_signal(signal.SIGINT)
        assert job.wait(100) == 130
    said = line_of((tmp_path / 'err').read_text())
    assert f'go on with: env PORT=29533 bash {ROOT}/tools/dist_train.sh {det_config} 2' in said
