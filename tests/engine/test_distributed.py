"""Two gloo processes against one process with the whole batch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import distributed, nn

from hybrid_mm.engine.cli import UserError
from hybrid_mm.engine.distributed import (
    GlooSyncBatchNorm,
    init_distributed,
    to_gloo_sync_batchnorm,
)

ROOT = Path(__file__).resolve().parents[2]


def _run(config: Path, work_dir: Path, processes: int, *options: str) -> dict:
    """Train; return the losses of each iteration and the last checkpoint."""
    tool = [str(ROOT / 'tools' / 'train.py'), str(config), '--work-dir', str(work_dir)]
    command = [sys.executable, *tool]
    if processes > 1:
        launch = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
        command = [sys.executable, *launch, *tool, '--launcher', 'pytorch']
    command += ['--no-validate', '--cfg-options', 'train_cfg.max_iters=4', *options]
    env = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    (scalars,) = work_dir.glob('*/vis_data/scalars.json')
    records = [json.loads(line) for line in scalars.read_text().splitlines()]
    losses = [{k: v for k, v in r.items() if 'loss' in k} for r in records]
    checkpoint = torch.load(work_dir / 'iter_4.pth', map_location='cpu', weights_only=False)
    return dict(losses=losses, weights=checkpoint['state_dict'])


@pytest.mark.timeout(600)
@pytest.mark.parametrize('kind', ['det', 'seg'])
def test_two_processes_train_as_one_with_the_whole_batch(kind, request, tmp_path):
    config = request.getfixturevalue(f'{kind}_config')
    # the batch statistics of the backbone too are those of all processes
    sync = 'sync_bn=torch'
    one = _run(config, tmp_path / 'one', 1, 'train_dataloader.batch_size=4')
    two = _run(config, tmp_path / 'two', 2, 'train_dataloader.batch_size=2', sync)
    assert len(one['losses']) == len(two['losses']) == 4
    assert one['losses'][0]['loss'] != one['losses'][3]['loss']  # it trains
    for ours, theirs in zip(two['losses'], one['losses'], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4)
    assert one['weights'].keys() == two['weights'].keys()
    for name, weight in one['weights'].items():
        torch.testing.assert_close(two['weights'][name], weight, rtol=1e-3, atol=1e-5, msg=name)


def _batch_norm(port: str, out: str) -> None:
    """Body of a process of the next test."""
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
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


def test_gloo_sync_batchnorm_is_batchnorm_of_the_whole_batch(tmp_path, free_port):
    command = [sys.executable, __file__, str(free_port), str(tmp_path)]
    env = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', WORLD_SIZE='2')
    ranks = [subprocess.Popen(command, env=dict(env, RANK=str(rank))) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in ranks] == [0, 0]
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


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def test_conversion_keeps_tensors_and_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.SyncBatchNorm(4))).eval()
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    model = to_gloo_sync_batchnorm(model)
    assert isinstance(model[1][0], GlooSyncBatchNorm)
    assert not model[1][0].training
    assert before == {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(model(x), model[0](x) / (1 + 1e-5) ** 0.5)


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


if __name__ == '__main__':
    _batch_norm(*sys.argv[1:])
