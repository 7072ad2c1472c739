"""Process groups of distributed runs, on GPUs (nccl) and CPUs (gloo)."""

import os
import subprocess
from datetime import timedelta
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import get_rank, is_distributed
from torch import distributed

from hybrid_mm.engine.model_wrapper import WRAPPER
from hybrid_mm.errors import UserError


def init_distributed(cfg: Config, launcher: str, local_rank: int = 0) -> None:
    """Prepare the config and, on CPUs, the process group of this process for a launcher.

    Args:
        cfg: Config of the run; ``launcher`` and ``model_wrapper_cfg`` are set in it.
        launcher: 'none', 'pytorch' (torchrun), 'slurm' or 'mpi'.
        local_rank: Rank on this machine if the environment has no ``LOCAL_RANK``.

    Raises:
        UserError: The launcher's environment is missing, there are more processes than GPUs, or
            MPI is asked for without GPUs.
    """
    cfg.launcher = launcher
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    if launcher == 'none':
        return
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError(
            '--launcher pytorch needs the environment of torchrun (RANK, WORLD_SIZE, ...); start '
            'it as `torchrun --nproc_per_node=N tools/train.py CONFIG --launcher pytorch`, or '
            'with tools/dist_train.sh'
        )
    wrapper = cfg.get('model_wrapper_cfg')
    if wrapper is None:
        cfg.model_wrapper_cfg = dict(
            type=WRAPPER,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    elif wrapper.get('type', 'MMDistributedDataParallel') == 'MMDistributedDataParallel':
        wrapper.type = WRAPPER
    if torch.cuda.is_available():
        gpus, rank = torch.cuda.device_count(), int(os.environ['LOCAL_RANK'])
        if launcher == 'pytorch' and rank >= gpus:
            raise UserError(
                f'local rank {rank} has no GPU: this machine shows {gpus}; start at most as many '
                'processes per machine as it has GPUs'
            )
        return
    if launcher == 'slurm':
        _set_slurm_environment()
    elif launcher != 'pytorch':
        raise UserError(
            f'--launcher {launcher} needs GPUs and none is visible; on CPU use torchrun with '
            '--launcher pytorch, or Slurm'
        )
    if not is_distributed():
        timeout = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
        # torch < 2.2 does not take None
        limit: dict[str, Any] = {}
        if timeout is not None:
            limit['timeout'] = timedelta(seconds=int(timeout))
        distributed.init_process_group('gloo', **limit)


def launched_rank(launcher: str) -> int:
    """Rank of this process in its run, also before there is a process group."""
    variables = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')
    if is_distributed() or launcher not in variables:
        return get_rank()
    return int(os.environ.get(variables[launcher], '0'))


def _set_slurm_environment() -> None:
    """Set the environment variables that torch reads from those of a Slurm task."""
    names = ('PROCID', 'LOCALID', 'NTASKS', 'NODELIST')
    missing = [name for name in names if f'SLURM_{name}' not in os.environ]
    if missing:
        raise UserError(
            f'--launcher slurm needs the environment of srun (SLURM_{missing[0]}, ...); start it '
            'with tools/slurm_train.sh'
        )
    if 'MASTER_ADDR' not in os.environ:
        hosts = subprocess.run(
            ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']],
            capture_output=True,
            text=True,
            check=True,
        )
        os.environ['MASTER_ADDR'] = hosts.stdout.split()[0]
    os.environ.setdefault('MASTER_PORT', '29500')
    for name, of_slurm in (('RANK', 'PROCID'), ('LOCAL_RANK', 'LOCALID'), ('WORLD_SIZE', 'NTASKS')):
        os.environ[name] = os.environ[f'SLURM_{of_slurm}']
