"""Batch norm of values that never exist as a whole, from their statistics."""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hybrid_mm.ops.device_tables import on_device
from hybrid_mm.ops.precision import accurate_dtype

Statistics = tuple[Tensor, Tensor, int]  # biased variance, mean, and count of values


def merged_statistics(parts: Sequence[tuple[Tensor, Tensor]], counts: Sequence[int]) -> Statistics:
    """Variance, mean and count of all parts, from variance (biased) and mean of each."""
    total = sum(counts)
    var, mean = (torch.stack(values) for values in zip(*parts, strict=True))
    number = str(accurate_dtype(mean.dtype)).removeprefix('torch.')
    (share,) = on_device(_shares, tuple(counts), number, device=mean.device)
    share = share.to(mean.dtype).view(-1, *(1,) * (mean.ndim - 1))
    whole = (share * mean).sum(0)
    return (share * (var + (mean - whole).square())).sum(0), whole, total


def _shares(counts: tuple[int, ...], number: str) -> tuple[np.ndarray]:
    return ((np.array(counts) / max(sum(counts), 1)).astype(number),)


def is_settled(norm: nn.Module) -> bool:
    """Whether a batch norm takes its running statistics, whatever it is given."""
    norm = cast(_BatchNorm, norm)
    return not norm.training and norm.running_mean is not None and norm.running_var is not None


def settled(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift that a batch norm of :func:`is_settled` amounts to."""
    return normalisation(norm, _no_statistics)


def _no_statistics() -> Statistics:
    raise ValueError('the batch norm has no running statistics')


def normalisation(norm: nn.Module, statistics: Callable[[], Statistics]) -> tuple[Tensor, Tensor]:
    """Scale and shift that a batch norm amounts to, its running statistics updated in training.

    Args:
        norm: ``BatchNorm2d`` or ``SyncBatchNorm``, in either mode.
        statistics: Biased variance, mean, and count of the values of each channel; called only
            if the norm needs them.

    Raises:
        ValueError: Statistics of a single value.
    """
    norm = cast(_BatchNorm, norm)
    if not norm.training and norm.running_mean is not None and norm.running_var is not None:
        var, mean = norm.running_var, norm.running_mean
    else:
        var, mean, own = statistics()
        if own == 0:  # an empty batch; still a function of what is normalised
            var, mean = (0 * torch.nan_to_num(x) for x in (var, mean))
        count: int | Tensor = own
        processes = 1
        if isinstance(norm, nn.SyncBatchNorm) and dist.is_available() and dist.is_initialized():
            processes = dist.get_world_size(norm.process_group)
            var, mean, count = _of_all_processes(var, mean, own, norm.process_group)
        if own == 1 and processes == 1:
            raise ValueError('batch norm in training needs more than 1 value per channel')
        if norm.training:
            _update(norm, var.detach(), mean.detach(), count)
    scale = (var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


@torch.no_grad()
def _update(norm: _BatchNorm, var: Tensor, mean: Tensor, count: int | Tensor) -> None:
    """Move the running statistics, if the norm has any."""
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    if isinstance(count, int) and not count:
        return  # as torch's do with an empty batch
    rate: Tensor | float | None = norm.momentum
    if rate is None:
        rate = 1 / norm.num_batches_tracked.to(mean.dtype)
    for running, new in (
        (norm.running_mean, mean),
        (norm.running_var, var * (count / (count - 1))),
    ):
        running.add_((new.to(running.dtype) - running) * rate)


def _of_all_processes(
    var: Tensor, mean: Tensor, count: int, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Statistics of the values of all; their count stays on the device, nobody waits for it."""
    from torch.distributed.nn.functional import all_reduce  # slow, and few need it

    group = dist.group.WORLD if group is None else group
    total = mean.new_full((1,), count)
    dist.all_reduce(total, group=group)
    share = count / total
    whole = all_reduce(mean * share, group=group)
    var = all_reduce((var + (mean - whole).square()) * share, group=group)
    return var, whole, total
