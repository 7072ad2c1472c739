"""Batches that workers cannot hand over, and workers that die: an error, where torch waits."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
from torch.utils.data import DataLoader, Dataset

from hybrid_mm.compat.shared_memory import explain_workers
from hybrid_mm.data import LostBatchError
from hybrid_mm.run.explain import explain

pytestmark = pytest.mark.timeout(240)  # where torch would wait for ever


class Sample:
    """What cannot be handed over, for a reason."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        raise self.error


class Samples(Dataset):
    def __init__(self, error=None, kill=None):
        self.error, self.kill = error, kill

    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index == 3 and self.kill:
            os.kill(os.getpid(), self.kill)
        return Sample(self.error) if index == 3 and self.error else index


def load(context='fork', **settings):
    options = dict(num_workers=2, batch_size=1, collate_fn=list, multiprocessing_context=context)
    return list(DataLoader(Samples(**settings), **options))


FULL = 'unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)'


@pytest.mark.parametrize(
    ('error', 'text'),
    [
        (RuntimeError(FULL), 'No space left.*/dev/shm .*--shm-size'),
        (OSError(24, 'Too many open files'), 'Too many open files; .*ulimit -n'),
        (TypeError('cannot pickle a lock'), 'cannot pickle a lock; with num_workers=0'),
    ],
    ids=['full', 'files', 'other'],
)
def test_a_batch_that_cannot_be_handed_over(error, text):
    with pytest.raises(
        LostBatchError, match=f'^worker 1 of a data loader cannot hand over a batch: .*{text}'
    ) as caught:
        load(error=error)
    assert '\n' not in str(caught.value)


def test_other_batches_arrive():
    assert load() == [[i] for i in range(6)]


def test_a_worker_that_is_killed():
    """By the system for want of memory, or for memory that is not there."""
    for number in (signal.SIGKILL, signal.SIGBUS):
        with pytest.raises(RuntimeError, match='DataLoader worker') as caught:
            load(kill=number)
        message = explain(caught.value)
        assert message.startswith('DataLoader worker (pid')
        assert 'because memory ran out' in message and '--shm-size' in message
        assert '\n' not in message
    assert '--shm-size' in explain_workers(RuntimeError(FULL))
    assert explain_workers(RuntimeError('CUDA error')) is None
    with pytest.raises(SyntaxError) as caught:  # MMEngine 0.10 was formatting the config
        try:
            raise RuntimeError('DataLoader worker (pid 5) is killed by signal: Bus error. It is ')
        except RuntimeError:
            raise SyntaxError('Failed to format the config file, please check') from None
    assert explain(caught.value).startswith('DataLoader worker (pid 5)')


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_small_dev_shm(det_config, tmp_path):
    """The whole tool, in a container of 1 MB."""
    if shutil.which('unshare') is None:
        pytest.skip('no unshare')
    mount = 'mount -t tmpfs -o size=1m tmpfs /dev/shm'
    if subprocess.run(['unshare', '-rm', 'sh', '-c', mount], capture_output=True).returncode:
        pytest.skip('no namespaces of mounts here')
    text = det_config.read_text().replace('num_workers=0', 'num_workers=2')
    det_config.write_text(text.replace('scale=(64, 64)', 'scale=(640, 640)'))
    tool = os.path.join(os.path.dirname(__file__), '..', '..', 'tools', 'train.py')
    line = f'{sys.executable} {tool} {det_config} --work-dir {tmp_path / "w"} --no-validate'
    done = subprocess.run(
        ['unshare', '-rm', 'sh', '-c', f'{mount} && exec {line}'],
        env=dict(os.environ, CUDA_VISIBLE_DEVICES='', OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 2, done.stderr[-2000:]
    lines = done.stderr.replace('\0', '').splitlines()  # of torch's own message
    (error,) = [x for x in lines if x.startswith('error: ')]
    assert '/dev/shm (1 MB' in error and '--shm-size' in error
    assert 'Traceback' not in done.stderr
