"""Distributed runs with one launcher on GPU (nccl) and CPU (gloo).

MMEngine selects a CUDA device and passes ``device_ids`` whatever the backend is, so that a run
on CPU fails in both places. :func:`init_distributed` is called before the runner is built, which
then finds the process group in place; :class:`DeviceAwareDistributedDataParallel` does the rest.
"""

import os
import subprocess
from datetime import timedelta

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_distributed
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hybrid_mm.engine.cli import UserError
from hybrid_mm.registry import MODEL_WRAPPERS

WRAPPER = 'hybrid_mm.DeviceAwareDistributedDataParallel'


def init_distributed(cfg: Config, launcher: str, local_rank: int = 0) -> None:
    """Prepare ``cfg`` and, on CPU, the process group for a launcher.

    Args:
        cfg: Config of the run; ``launcher`` and ``model_wrapper_cfg`` are set in it.
        launcher: 'none', 'pytorch' (torchrun), 'slurm' or 'mpi'.
        local_rank: Rank on this machine if the environment has no ``LOCAL_RANK``.

    Raises:
        UserError: the launcher's environment is missing, there are more processes than GPUs, or
            MPI is asked for on a CPU.
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
        distributed.init_process_group(
            'gloo', timeout=None if timeout is None else timedelta(seconds=int(timeout))
        )


def _set_slurm_environment() -> None:
    """Give torch the variables that it reads from those of a task of Slurm."""
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


@MODEL_WRAPPERS.register_module()
class DeviceAwareDistributedDataParallel(MMDistributedDataParallel):
    """``MMDistributedDataParallel`` for GPU and CPU whose losses are those of the whole batch.

    On CPU ``device_ids`` is dropped, as torch demands, and SyncBatchNorm, which torch has on GPU
    only, is replaced by :class:`GlooSyncBatchNorm`. On either device the losses returned for
    logging are means over all processes, so that the log of N processes can be compared with
    that of one process with the same total batch. Every process must return the same losses.
    """

    def __init__(self, module: nn.Module, device_ids: list | None = None, **kwargs):
        if next(module.parameters()).device.type == 'cpu':
            device_ids = None
            module = to_gloo_sync_batchnorm(module)
        super().__init__(module=module, device_ids=device_ids, **kwargs)

    def train_step(self, data, optim_wrapper) -> dict[str, Tensor]:
        """Train on a batch and return its losses, averaged over the processes."""
        log_vars = super().train_step(data, optim_wrapper)
        values = torch.stack([value.detach().float() for value in log_vars.values()])
        distributed.all_reduce(values, group=self.process_group)
        values /= distributed.get_world_size(self.process_group)
        return dict(zip(log_vars, values.unbind(), strict=True))


class _AllReduceSum(torch.autograd.Function):
    """Sum over the processes; the gradient of a sum that all use is the sum of their gradients."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.clone()
        distributed.all_reduce(grad)
        return grad


class GlooSyncBatchNorm(_BatchNorm):
    """Batch normalisation over the batches of all processes, for CPU tensors (N, C, ...).

    Parameters, buffers and results are those of ``torch.nn.SyncBatchNorm``: statistics are
    those of the concatenated batch, the running variance is the unbiased one. Sums are taken in
    float32 or better. Evaluation mode and a single process are plain batch normalisation.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2:
            raise ValueError(f'expected at least 2 dimensions, got shape {tuple(x.shape)}')

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape (N, C, ...)."""
        if not self.training or get_world_size() == 1:
            return super().forward(x)
        self._check_input_dim(x)
        wide = x if x.dtype == torch.float64 else x.float()
        dims = [d for d in range(x.dim()) if d != 1]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = wide.new_tensor([x.numel() / x.size(1)])
        total = _AllReduceSum.apply(torch.cat([wide.sum(dims), count]))
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = wide - mean.view(shape)
        var = _AllReduceSum.apply(centred.square().sum(dims)) / count
        if self.track_running_stats:
            self._update_running_stats(mean.detach(), var.detach(), count)
        out = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(x.dtype)

    @torch.no_grad()
    def _update_running_stats(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        self.num_batches_tracked += 1
        momentum = self.momentum
        if momentum is None:
            momentum = 1.0 / float(self.num_batches_tracked)
        unbiased = var * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


def to_gloo_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Replace every ``torch.nn.SyncBatchNorm`` in ``module``, sharing its tensors."""
    replaced = 0

    def convert(child: nn.Module) -> nn.Module:
        nonlocal replaced
        if isinstance(child, nn.SyncBatchNorm):
            replaced += 1
            new = GlooSyncBatchNorm(
                child.num_features,
                child.eps,
                child.momentum,
                child.affine,
                child.track_running_stats,
            )
            new.weight, new.bias = child.weight, child.bias
            for name, buffer in child.named_buffers(recurse=False):
                setattr(new, name, buffer)
            return new.train(child.training)
        for name, grandchild in child.named_children():
            new = convert(grandchild)
            if new is not grandchild:
                setattr(child, name, new)
        return child

    module = convert(module)
    if replaced:
        print_log(
            f'{replaced} SyncBatchNorm layers run as GlooSyncBatchNorm on CPU: statistics of '
            'the batches of all processes',
            logger='current',
        )
    return module
