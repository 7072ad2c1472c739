"""Checkpoints that survive a crash at any point of a save."""

import errno
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.fileio import LocalBackend
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from hybrid_mm.engine import atomic_files
from hybrid_mm.engine.hooks.atomic_checkpoint import AtomicCheckpointHook, checksum
from hybrid_mm.errors import UserError
from hybrid_mm.run.resume import find_training_state, read_training_state


class Crash(BaseException):
    """Simulates the end of the process."""


class Net(BaseModel):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 2)

    def forward(self, inputs, mode='tensor'):
        out = self.fc(inputs)
        return dict(loss=out.pow(2).mean()) if mode == 'loss' else [out]


class Score(BaseMetric):
    """A metric that grows, and falls in every third validation."""

    calls = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        Score.calls += 1
        return dict(score=float(Score.calls % 3))


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())
    monkeypatch.setattr(Score, 'calls', 0)


def runner(work_dir, epochs=3, validate=False, **hook):
    loader = dict(
        dataset=[torch.ones(3)] * 4,
        batch_size=2,
        num_workers=0,
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='DefaultSampler', shuffle=False),
    )
    model = Net()
    model.data_preprocessor.forward = lambda batch, training=False: dict(inputs=batch)
    validation = dict(
        val_dataloader=loader, val_cfg=dict(), val_evaluator=dict(type=Score, prefix='x')
    )
    settings = dict(type='hybrid_mm.AtomicCheckpointHook', interval=1, max_keep_ckpts=1) | hook
    return Runner(
        model,
        str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        default_hooks=dict(checkpoint=settings),
        default_scope='mmengine',
        randomness=dict(seed=0),
        experiment_name=f'{work_dir.name}{epochs}{os.urandom(4).hex()}',
        **(validation if validate else {}),
    )


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


def test_crash_at_every_step(tmp_path, monkeypatch):
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


def test_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        FileSystem(patch, crash_at=12, error=OSError)
        with pytest.raises(OSError, match='No space left'):
            runner(tmp_path / 'full').train()
    assert Path(check(tmp_path / 'full')).name == 'epoch_1.pth'
    assert files(tmp_path / 'full') == ['epoch_1.pth']


def test_best_checkpoint_outlives_a_crash(tmp_path, monkeypatch):
    settings = dict(validate=True, save_best='x/score', rule='greater')
    with monkeypatch.context() as patch:
        system = FileSystem(patch)
        runner(tmp_path / 'whole', **settings).train()
    assert files(tmp_path / 'whole') == ['best_x_score_epoch_2.pth', 'epoch_3.pth']
    seen = False
    for step in range(system.steps):
        Score.calls = 0
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


def test_checksum_sees_every_tensor_and_its_place():
    state = dict(state_dict=dict(a=torch.arange(4.0), b=torch.ones(())), optimizer=dict(lr=0.1))
    plain = checksum(state)
    assert plain == checksum(dict(state, meta=3)) and len(plain) == 32
    for part in (
        dict(state_dict=dict(a=torch.arange(4.0).view(2, 2), b=torch.ones(()))),
        dict(state_dict=dict(a=torch.arange(4.0), b=torch.zeros(()))),
        dict(state_dict=dict(a=torch.arange(4.0), c=torch.ones(()))),
        dict(state_dict=dict(a=torch.arange(4), b=torch.ones(()))),
        dict(optimizer=dict(lr=0.2)),
    ):
        assert checksum(state | part) != plain
    low = dict(state_dict=dict(a=torch.ones(2, dtype=torch.bfloat16), b=torch.empty(0)))
    assert checksum(low) == checksum(low)


def test_checksum_sees_large_tensors_to_their_ends():
    """Tensors larger than any block that is hashed or read at once, of many layouts and types."""
    for tensor in (
        torch.arange(300.0),
        torch.arange(1_200_003) % 251,
        torch.arange(70_000, dtype=torch.float32).to(torch.bfloat16).view(35_000, 2),
        torch.arange(90_000.0).view(300, 300).t(),
        (torch.arange(5000) % 3 == 0),
    ):
        for place in ('state_dict', 'optimizer'):
            state = dict(state_dict=dict(w=tensor), optimizer=dict(lr=0.1))
            if place == 'optimizer':
                state = dict(state_dict={}, optimizer=dict(state=[dict(m=(tensor,))]))
            plain = checksum(state)
            for index in (0, tensor.numel() // 3, tensor.numel() - 1):
                where = np.unravel_index(index, tuple(tensor.shape))
                before = tensor[where].clone()
                tensor[where] = ~before if tensor.dtype == torch.bool else before + 512
                assert checksum(state) != plain, (tensor.dtype, place, index)
                tensor[where] = before
            assert checksum(state) == plain


def test_ten_checkpoints_and_the_last_three_kept(tmp_path):
    runner(tmp_path, epochs=11, max_keep_ckpts=3).train()
    assert files(tmp_path) == ['epoch_10.pth', 'epoch_11.pth', 'epoch_9.pth']
    assert check(tmp_path) == str(tmp_path / 'epoch_11.pth')
    run = runner(tmp_path, epochs=13, max_keep_ckpts=3)
    run._resume, run._load_from = True, str(tmp_path / 'epoch_11.pth')
    run.train()
    assert files(tmp_path) == ['epoch_11.pth', 'epoch_12.pth', 'epoch_13.pth']


def test_other_storage_is_left_to_mmengine(tmp_path):
    class Remote(LocalBackend):
        pass

    run = runner(tmp_path)
    (hook,) = (h for h in run.hooks if isinstance(h, AtomicCheckpointHook))
    atomic_files.register_backend('test_remote', Remote, force=True)
    hook.backend_args = dict(backend='test_remote')
    run.train()
    assert type(hook.file_backend) is Remote
    assert files(tmp_path) == ['epoch_3.pth']
