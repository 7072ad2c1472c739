"""Two gloo processes against one process with the whole batch."""

import json
import os
import subprocess
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from torch import distributed, nn

from hybrid_mm.engine.gloo_sync_batch_norm import GlooSyncBatchNorm, to_gloo_sync_batchnorm
from hybrid_mm.errors import UserError
from hybrid_mm.run.distributed import init_distributed


def _run(fork_tool, config: Path, work_dir: Path, processes: int, *options: str) -> dict:
    """Train; return the losses of each iteration and the last checkpoint."""
    flags = ('--work-dir', work_dir, '--no-validate', '--cfg-options', 'train_cfg.max_iters=4')
    fork_tool('train', processes, config, *flags, *options)
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    losses = [{k: v for k, v in r.items() if 'loss' in k} for r in records]
    checkpoint = torch.load(work_dir / 'iter_4.pth', map_location='cpu', weights_only=False)
    return dict(losses=losses, weights=checkpoint['state_dict'])


@pytest.mark.timeout(600)
@pytest.mark.parametrize('kind', ['det', 'seg'])
def test_two_processes_train_as_one_with_the_whole_batch(kind, request, fork_tool, tmp_path):
    config = request.getfixturevalue(f'{kind}_config')
    # the batch statistics of the backbone too are those of all processes
    sync = 'sync_bn=torch'
    one = _run(fork_tool, config, tmp_path / 'one', 1, 'train_dataloader.batch_size=4')
    two = _run(fork_tool, config, tmp_path / 'two', 2, 'train_dataloader.batch_size=2', sync)
    assert len(one['losses']) == len(two['losses']) == 4
    assert one['losses'][0]['loss'] != one['losses'][3]['loss']  # it trains
    for ours, theirs in zip(two['losses'], one['losses'], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert one['weights'].keys() == two['weights'].keys()
    for name, weight in one['weights'].items():
        torch.testing.assert_close(two['weights'][name], weight, rtol=1e-3, atol=1e-5, msg=name)


def _batch_norm(out: Path) -> None:
    """Body of a process of the next test."""
    distributed.init_process_group('gloo')
    rank = distributed.get_rank()
    torch.manual_seed(0)
    layer = GlooSyncBatchNorm(5).double()
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.uniform_(-1, 1)
    x = (torch.randn(6, 5, 3, 4, dtype=torch.float64) * 3 + 100).requires_grad_()
    cotangent = torch.randn(6, 5, 3, 4, dtype=torch.float64)
    part = slice(0, 4) if rank == 0 else slice(4, 6)  # batches of different sizes
    y = layer(x[part])
    (y * cotangent[part]).sum().backward()
    for parameter in layer.parameters():  # what DDP does, without its division
        distributed.all_reduce(parameter.grad)
    result = dict(y=y.detach(), grad=x.grad[part], state=layer.state_dict())
    result['params'] = [parameter.grad for parameter in layer.parameters()]
    torch.save(result, f'{out}/{rank}.pt')
    distributed.destroy_process_group()


def test_gloo_sync_batchnorm_is_batchnorm_of_the_whole_batch(tmp_path, fork):
    assert fork([lambda: _batch_norm(tmp_path)] * 2) == [0, 0], fork.text
    parts = [torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1)]
    torch.manual_seed(0)
    layer = nn.BatchNorm2d(5).double()
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2)
        layer.bias.uniform_(-1, 1)
    x = (torch.randn(6, 5, 3, 4, dtype=torch.float64) * 3 + 100).requires_grad_()
    cotangent = torch.randn(6, 5, 3, 4, dtype=torch.float64)
    y = layer(x)
    (y * cotangent).sum().backward()
    torch.testing.assert_close(torch.cat([p['y'] for p in parts]), y.detach())
    torch.testing.assert_close(torch.cat([p['grad'] for p in parts]), x.grad)
    for part in parts:
        torch.testing.assert_close(part['params'], [p.grad for p in layer.parameters()])
        for name, buffer in layer.state_dict().items():
            torch.testing.assert_close(part['state'][name], buffer, msg=name)


def test_conversion_keeps_tensors_and_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.SyncBatchNorm(4))).eval()
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    model = to_gloo_sync_batchnorm(model)
    assert isinstance(model[1][0], GlooSyncBatchNorm)
    assert not model[1][0].training
    assert before == {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(model(x), model[0](x) / (1 + 1e-5) ** 0.5)


def test_conversion_keeps_settings():
    """Numbers that differ from the defaults and from each other."""
    for settings in (
        dict(eps=0.3, momentum=0.02),
        dict(eps=0.05, momentum=None, affine=False),
        dict(eps=0.2, momentum=0.4, track_running_stats=False),
    ):
        layer = nn.SyncBatchNorm(3, **settings)
        if layer.running_mean is not None:
            layer.running_mean.uniform_(-1, 1)
            layer.running_var.uniform_(0.5, 2)
        plain = nn.BatchNorm2d(3, **settings)
        plain.load_state_dict(layer.state_dict())
        ours = to_gloo_sync_batchnorm(layer)
        x = torch.randn(4, 3, 5, 6) * 3 + 1
        for mode in (True, False, True):
            torch.testing.assert_close(ours.train(mode)(x), plain.train(mode)(x))
        assert ours.state_dict().keys() == plain.state_dict().keys()
        for name, tensor in plain.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], tensor)


def started(monkeypatch, cfg, launcher='pytorch', gpus=0, local_rank=0, **environment):
    """What ``init_distributed`` starts a process group with."""
    calls = []
    names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')
    for name in (*names, *(f'SLURM_{n}' for n in ('PROCID', 'LOCALID', 'NTASKS', 'NODELIST'))):
        monkeypatch.setenv(name, '')  # so that it is given back
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
    assert call == (('gloo',), dict(timeout=None))
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
