"""Process groups and wrappers that a launcher gets."""

import os
import subprocess
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import distributed

from hybrid_mm.errors import UserError
from hybrid_mm.run.distributed import init_distributed


def started(monkeypatch, cfg, launcher='pytorch', gpus=0, local_rank=0, **environment):
    """Arguments with which ``init_distributed`` starts a process group."""
    calls = []
    names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
    for name in (*names, *(f'SLURM_{n}' for n in ('PROCID', 'LOCALID', 'NTASKS', 'NODELIST'))):
        monkeypatch.setenv(name, '')  # so that it is restored
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    monkeypatch.setattr(distributed, 'init_process_group', lambda *a, **k: calls.append((a, k)))
    init_distributed(cfg, launcher, local_rank)
    return calls


def test_process_group_on_a_cpu(monkeypatch):
    cfg = Config(dict(env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=40))))
    (call,) = started(monkeypatch, cfg, RANK='0')
    assert call == (('gloo',), dict(timeout=timedelta(seconds=40)))
    assert cfg.launcher == 'pytorch'
    (call,) = started(monkeypatch, Config(), RANK='0')
    assert call == (('gloo',), {})  # torch < 2.2 takes no timeout=None
    alone = Config()
    assert started(monkeypatch, alone, 'none', local_rank=3) == []
    assert alone.launcher == 'none' and 'model_wrapper_cfg' not in alone
    assert os.environ['LOCAL_RANK'] == '3'


def test_wrapper_of_the_model(monkeypatch):
    ours = 'hybrid_mm.DeviceAwareDistributedDataParallel'
    for settings, expected in (
        (dict(), dict(type=ours, broadcast_buffers=False, find_unused_parameters=False)),
        (
            dict(find_unused_parameters=True),
            dict(type=ours, broadcast_buffers=False, find_unused_parameters=True),
        ),
        (
            dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', static_graph=True)),
            dict(type=ours, static_graph=True),
        ),
        (
            dict(model_wrapper_cfg=dict(detect_anomalous_params=True)),
            dict(type=ours, detect_anomalous_params=True),
        ),
        (dict(model_wrapper_cfg=dict(type='Mine')), dict(type='Mine')),
    ):
        for gpus in (0, 2):
            cfg = Config(dict(settings))
            started(monkeypatch, cfg, gpus=gpus, RANK='0', LOCAL_RANK='1')
            assert dict(cfg.model_wrapper_cfg) == expected


def test_more_processes_than_gpus(monkeypatch):
    assert started(monkeypatch, Config(), gpus=2, RANK='5', LOCAL_RANK='1') == []
    with pytest.raises(UserError, match='local rank 2 has no GPU: this machine shows 2'):
        started(monkeypatch, Config(), gpus=2, RANK='6', LOCAL_RANK='2')


def test_environment_of_slurm(monkeypatch):
    slurm = dict(SLURM_PROCID='5', SLURM_LOCALID='1', SLURM_NTASKS='8', SLURM_NODELIST='n[1-4]')
    hosts = lambda *args, **kwargs: SimpleNamespace(stdout='n1\nn2\n')  # noqa: E731
    monkeypatch.setattr(subprocess, 'run', hosts)
    (call,) = started(monkeypatch, Config(), 'slurm', **slurm)
    assert call[0] == ('gloo',)
    names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
    assert [os.environ[name] for name in names] == ['5', '1', '8', 'n1', '29500']
    started(monkeypatch, Config(), 'slurm', **slurm, MASTER_ADDR='me', MASTER_PORT='7')
    assert [os.environ[name] for name in names[3:]] == ['me', '7']
    del slurm['SLURM_NTASKS']
    with pytest.raises(UserError, match=r'environment of srun \(SLURM_NTASKS'):
        started(monkeypatch, Config(), 'slurm', **slurm)


def test_launcher_without_torchrun_is_a_user_error(monkeypatch):
    monkeypatch.delenv('RANK', raising=False)
    with pytest.raises(UserError, match='torchrun'):
        init_distributed(Config(), 'pytorch')


@pytest.mark.skipif(torch.cuda.is_available(), reason='on a machine without a GPU')
@pytest.mark.parametrize(('launcher', 'message'), [('mpi', 'needs GPUs'), ('slurm', 'srun')])
def test_launcher_without_its_environment_is_a_user_error(launcher, message, monkeypatch):
    monkeypatch.delenv('SLURM_PROCID', raising=False)
    with pytest.raises(UserError, match=message):
        init_distributed(Config(), launcher)
