"""Two machines: network namespaces with an address each, joined by a cable, and nothing else."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import ROOT, children, command, environment, losses

HOSTS = ('hybrid-mm-a', 'hybrid-mm-b')
ADDRESSES = ('10.213.57.1', '10.213.57.2')
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        os.name != 'posix' or os.geteuid() != 0 or shutil.which('ip') is None,
        reason='network namespaces need root and iproute2',
    ),
]


def ip(*words: str) -> None:
    subprocess.run(['ip', *words], check=True, capture_output=True)


def unplug() -> None:
    for host in HOSTS:
        subprocess.run(['ip', 'netns', 'delete', host], capture_output=True)


@pytest.fixture
def hosts():
    unplug()
    try:
        for host in HOSTS:
            ip('netns', 'add', host)
        a, b = HOSTS
        ip('-n', a, 'link', 'add', 'cable', 'type', 'veth', 'peer', 'cable', 'netns', b)
    except subprocess.CalledProcessError as error:
        unplug()
        pytest.skip(f'no network namespaces here: {error.stderr.decode().strip()}')
    for host, address in zip(HOSTS, ADDRESSES, strict=True):
        ip('-n', host, 'address', 'add', f'{address}/24', 'dev', 'cable')
        ip('-n', host, 'link', 'set', 'cable', 'up')
        ip('-n', host, 'link', 'set', 'lo', 'up')
    yield HOSTS
    unplug()


def by_script(rank: int, config: str, rest: list[str]) -> list[str]:
    return ['bash', str(ROOT / 'tools' / 'dist_train.sh'), config, '1', *rest]


def by_rendezvous(rank: int, config: str, rest: list[str]) -> list[str]:
    # the namespaces share a name of the machine, by which torchrun finds out who is the host
    return [
        'torchrun',
        '--nnodes=2',
        '--nproc_per_node=1',
        '--rdzv-backend=c10d',
        '--rdzv-id=JOB',
        f'--rdzv-endpoint={ADDRESSES[0]}:29500',
        f'--rdzv-conf=is_host={int(rank == 0)}',
        f'--local-addr={ADDRESSES[rank]}',
        str(ROOT / 'tools' / 'train.py'),
        config,
        *rest,
    ]


def start(line: Callable, config: Path, folder: Path, *options: str) -> list[subprocess.Popen]:
    """A line of docs/distributed.md on both machines, one process each."""
    rest = command(config, folder / 'w', 2, *options)
    rest = rest[rest.index(str(config)) + 1 :]
    jobs = []
    for rank, host in enumerate(HOSTS):
        path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
        env = {**environment(), 'GLOO_SOCKET_IFNAME': 'cable', 'PATH': path}
        env |= dict(NNODES='2', NODE_RANK=str(rank), MASTER_ADDR=ADDRESSES[0])
        words = ['ip', 'netns', 'exec', host, *line(rank, str(config), rest)]
        with open(folder / host, 'w') as err:
            jobs.append(subprocess.Popen(words, env=env, stdout=err, stderr=err))
    return jobs


@pytest.mark.slow  # one machine is tested in test_distributed_faults.py
def test_two_machines_train_as_one_process(hosts, train, det_config, tmp_path):
    jobs = start(by_script, det_config, tmp_path, 'train_cfg.max_iters=3', 'sync_bn=torch')
    codes = [job.wait(timeout=200) for job in jobs]
    assert codes == [0, 0], (tmp_path / hosts[0]).read_text()[-3000:]
    one = train(det_config, tmp_path / 'one', 1, 'train_cfg.max_iters=3')
    both = losses(tmp_path / 'w')
    assert len(both) == len(one) == 3
    for ours, theirs in zip(both, one, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4)


@pytest.mark.slow
def test_a_dead_process_ends_the_job_on_the_other_machine(hosts, det_config, tmp_path):
    jobs = start(by_rendezvous, det_config, tmp_path, 'train_cfg.max_iters=100000')
    try:
        deadline = time.monotonic() + 120
        while not list((tmp_path / 'w').glob('iter_*.pth')):  # it trains
            assert all(job.poll() is None for job in jobs) and time.monotonic() < deadline
            time.sleep(0.2)
        (rank,) = children(jobs[1].pid)
        os.kill(rank, signal.SIGKILL)
        begun = time.monotonic()
        assert all(job.wait(timeout=60) != 0 for job in jobs)
        assert time.monotonic() - begun < 60
    finally:
        for job in jobs:
            if job.poll() is None:
                job.kill()
    assert 'Signal 9 (SIGKILL)' in (tmp_path / hosts[1]).read_text()
