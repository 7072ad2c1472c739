"""Checkpoints that survive a crash at any point of a save."""

import errno
import os
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook

from hybrid_mm.engine import atomic_files
from hybrid_mm.engine.hooks.atomic_checkpoint import AtomicCheckpointHook
from hybrid_mm.errors import UserError
from hybrid_mm.run.resume import find_training_state, read_training_state


class Crash(BaseException):
    """Simulates the end of the process."""


class HalfFile:
    """A file that a crash leaves half written."""

    def __init__(self, file, step):
        self.file, self.step = file, step

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        self.step()
        self.file.write(data[len(data) // 2 :])

    def __getattr__(self, name):
        return getattr(self.file, name)


class FileSystem:
    """Counts the steps of writing and removing, and crashes before one of them."""

    def __init__(self, monkeypatch, crash_at=None, error=Crash):
        self.steps, self.crash_at, self.error = 0, crash_at, error
        self.crashed = False
        self.unlink = os.unlink
        for name in ('fsync', 'replace'):
            monkeypatch.setattr(os, name, self.counted(getattr(os, name)))
        monkeypatch.setattr(LocalBackend, 'remove', self.counted(LocalBackend.remove))
        monkeypatch.setattr(atomic_files, 'open', self.open, raising=False)
        monkeypatch.setattr(os, 'unlink', self.clean_up)

    def step(self):
        if self.steps == self.crash_at:
            self.crashed = True
            raise self.error(errno.ENOSPC, 'No space left on device')
        self.steps += 1

    def counted(self, function):
        def call(*args, **kwargs):
            self.step()
            return function(*args, **kwargs)

        return call

    def open(self, path, mode):
        self.step()
        return HalfFile(open(path, mode), self.step)

    def clean_up(self, path, **kwargs):
        if self.crashed and self.error is Crash:
            raise OSError('a killed process cleans nothing up')
        self.unlink(path, **kwargs)


def files(folder):
    return sorted(p.name for p in Path(folder).glob('*.pth*'))


def check(work_dir):
    """Check the promises after a crash; return the checkpoint to resume from."""
    pointer = work_dir / 'last_checkpoint'
    if pointer.exists():
        read_training_state(pointer.read_text(), complete=True)
    try:
        state = find_training_state(work_dir)
        return state and state.path
    except UserError:
        pytest.fail(f'nothing to resume from: {files(work_dir)}')


def test_crash_at_every_step(runner, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        system = FileSystem(patch)
        runner(tmp_path / 'whole').train()
    assert files(tmp_path / 'whole') == ['epoch_3.pth']
    assert system.steps > 20
    reached = set()
    for step in range(system.steps):
        work_dir = tmp_path / f'crash{step}'
        with monkeypatch.context() as patch:
            FileSystem(patch, crash_at=step)
            with pytest.raises(Crash):
                runner(work_dir).train()
        found = check(work_dir)
        reached.add(Path(found).name if found else None)
        run = runner(work_dir, epochs=4)
        run._resume, run._load_from = found is not None, found
        run.train()
        assert files(work_dir) == ['epoch_4.pth']  # and nothing half written
        assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'epoch_4.pth')
    assert reached == {None, 'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth'}


def test_full_disk_keeps_the_previous_checkpoint(runner, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        FileSystem(patch, crash_at=12, error=OSError)
        with pytest.raises(OSError, match='No space left'):
            runner(tmp_path / 'full').train()
    assert Path(check(tmp_path / 'full')).name == 'epoch_1.pth'
    assert files(tmp_path / 'full') == ['epoch_1.pth']


def test_best_checkpoint_outlives_a_crash(runner, tmp_path, monkeypatch):
    settings = dict(validate=True, save_best='x/score', rule='greater')
    with monkeypatch.context() as patch:
        system = FileSystem(patch)
        runner(tmp_path / 'whole', **settings).train()
    assert files(tmp_path / 'whole') == ['best_x_score_epoch_2.pth', 'epoch_3.pth']
    seen = False
    for step in range(system.steps):
        runner.score.calls = 0
        work_dir = tmp_path / f'crash{step}'
        with monkeypatch.context() as patch:
            FileSystem(patch, crash_at=step)
            with pytest.raises(Crash):
                runner(work_dir, **settings).train()
        check(work_dir)
        best = list(work_dir.glob('best_*.pth'))
        assert best or not seen, 'the best one was gone for a while'
        seen = seen or bool(best)
        for path in best:
            torch.load(path, weights_only=False)
    assert seen


def test_ten_checkpoints_and_the_last_three_kept(runner, tmp_path):
    runner(tmp_path, epochs=11, max_keep_ckpts=3).train()
    assert files(tmp_path) == ['epoch_10.pth', 'epoch_11.pth', 'epoch_9.pth']
    assert check(tmp_path) == str(tmp_path / 'epoch_11.pth')
    run = runner(tmp_path, epochs=13, max_keep_ckpts=3)
    run._resume, run._load_from = True, str(tmp_path / 'epoch_11.pth')
    run.train()
    assert files(tmp_path) == ['epoch_11.pth', 'epoch_12.pth', 'epoch_13.pth']


def test_other_storage_is_left_to_mmengine(runner, tmp_path):
    class Remote(LocalBackend):
        pass

    run = runner(tmp_path)
    (hook,) = (h for h in run.hooks if isinstance(h, AtomicCheckpointHook))
    atomic_files.register_backend('test_remote', Remote, force=True)
    hook.backend_args = dict(backend='test_remote')
    run.train()
    assert type(hook.file_backend) is Remote
    assert files(tmp_path) == ['epoch_3.pth']


def test_checksum_of_what_is_saved(runner, tmp_path):
    """Other hooks may change a checkpoint before it is saved, the last of them as well."""

    class Adds(Hook):
        priority = 'LOWEST'

        def before_save_checkpoint(self, runner, checkpoint):
            checkpoint['mine'] = 3

    run = runner(tmp_path, epochs=1)
    run.register_hook(Adds())
    run.train()
    assert read_training_state(str(tmp_path / 'epoch_1.pth')).checkpoint['mine'] == 3
