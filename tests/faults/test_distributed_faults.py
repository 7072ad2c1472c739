"""Several processes: the losses of one, an end when a process dies, resuming with others, FSDP.

Two processes against one stand in tests/engine/test_model_wrapper.py.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from .conftest import children, command, environment

pytestmark = pytest.mark.timeout(300)


OTHERS = ('det', False), ('seg', True)


@pytest.mark.parametrize(
    ('task', 'sync'),
    [('det', True), *(pytest.param(*case, marks=pytest.mark.slow) for case in OTHERS)],
)
def test_four_processes_train_as_one(task, sync, train, request, tmp_path):
    """With SyncBN as it is; without, batch statistics are frozen, for they are per process."""
    config = request.getfixturevalue(f'{task}_config')
    options = ['train_cfg.max_iters=3']
    options += ['sync_bn=torch'] if sync else ['model.backbone.norm_eval=True']
    alone = [option for option in options if not option.startswith('sync_bn')]
    one = train(config, tmp_path / 'one', 1, *alone)
    four = train(config, tmp_path / 'four', 4, *options)
    assert len(one) == len(four) == 3
    assert one[0]['loss'] != one[2]['loss']
    for ours, theirs in zip(four, one, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4)


def test_resume_with_another_number_of_processes(train, det_config, tmp_path):
    """Stopped after two steps of two processes, one process goes on as if it had been alone."""
    whole = train(det_config, tmp_path / 'whole', 1, 'train_cfg.max_iters=4')
    first = train(det_config, tmp_path / 'parts', 2, 'train_cfg.max_iters=2', 'sync_bn=torch')
    both = train(det_config, tmp_path / 'parts', 1, '--resume', 'train_cfg.max_iters=4')
    assert [record['step'] for record in both] == [1, 2, 3, 4]
    assert both[:2] == first
    for ours, theirs in zip(both, whole, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.skipif(not Path('/proc/self/task').exists(), reason='needs /proc')
@pytest.mark.slow  # a quarter of a minute of waiting
def test_a_dead_process_ends_the_job(det_config, tmp_path):
    """Killed as by the kernel that is out of memory: the others end within a minute."""
    line = command(det_config, tmp_path / 'w', 2, 'train_cfg.max_iters=100000')
    with open(tmp_path / 'err', 'w') as err:
        job = subprocess.Popen(line, env=environment(), stdout=err, stderr=err)
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / 'w').glob('iter_*.pth')):  # it trains
            assert job.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        ranks = children(job.pid)
        assert len(ranks) == 2
        os.kill(ranks[1], signal.SIGKILL)
        start = time.monotonic()
        assert job.wait(timeout=60) != 0
        assert time.monotonic() - start < 60
    finally:
        if job.poll() is None:
            job.kill()
    text = (tmp_path / 'err').read_text()
    assert 'Signal 9 (SIGKILL)' in text and 'local_rank: 1' in text
    assert not any(Path(f'/proc/{rank}').exists() for rank in ranks)


FSDP = """
_base_ = '{config}'
runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy', state_dict_cfg='full',
    model_wrapper=dict(type='MMFullyShardedDataParallel', device_id='cpu'))
model = dict(decode_head=dict(norm_cfg=dict(type='BN')))
"""


def test_fully_sharded_training(train, seg_config, tmp_path):
    """Two steps end with the weights of data parallel training, in a checkpoint for any run."""
    config = tmp_path / 'fsdp.py'
    config.write_text(FSDP.format(config=seg_config.name))
    frozen = ('train_cfg.max_iters=2', 'model.backbone.norm_eval=True')
    sharded = train(config, tmp_path / 'sharded', 2, *frozen)
    train(seg_config, tmp_path / 'plain', 2, *frozen, 'model.decode_head.norm_cfg.type=BN')
    assert len(sharded) == 2
    assert sharded[1]['loss'] < sharded[0]['loss']
    saved = [
        torch.load(tmp_path / name / 'iter_2.pth', map_location='cpu', weights_only=False)
        for name in ('sharded', 'plain')
    ]
    ours, theirs = (checkpoint['state_dict'] for checkpoint in saved)
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        if not name.endswith(('running_mean', 'running_var')):  # of each process its own
            torch.testing.assert_close(ours[name], weight, rtol=1e-3, atol=1e-5, msg=name)
