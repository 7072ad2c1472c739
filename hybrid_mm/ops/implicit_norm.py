"""Batch norm of values that never exist as a whole, from their statistics."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn


def merged_statistics(
    parts: list[tuple[Tensor, Tensor]], counts: list[int]
) -> tuple[Tensor, Tensor, int]:
    """Variance, mean and count of all parts, from variance (biased) and mean of each."""
    total = sum(counts)
    share = [count / total for count in counts]
    mean = sum(s * m for s, (_, m) in zip(share, parts, strict=True))
    var = sum(s * (v + (m - mean).square()) for s, (v, m) in zip(share, parts, strict=True))
    return var, mean, total


def normalisation(
    norm: nn.Module, statistics: Callable[[], tuple[Tensor, Tensor, int]]
) -> tuple[Tensor, Tensor]:
    """Scale and shift that a batch norm amounts to, its running statistics updated in training.

    Args:
        norm: ``BatchNorm2d`` or ``SyncBatchNorm``, in either mode.
        statistics: Biased variance, mean, and count of the values of each channel; called only
            if the norm needs them.

    Raises:
        ValueError: Statistics of a single value.
    """
    if not norm.training and norm.running_mean is not None:
        var, mean = norm.running_var, norm.running_mean
    else:
        var, mean, count = statistics()
        if isinstance(norm, nn.SyncBatchNorm) and dist.is_available() and dist.is_initialized():
            var, mean, count = _of_all_processes(var, mean, count, norm.process_group)
        if count == 1:
            raise ValueError('batch norm in training needs more than 1 value per channel')
        if norm.training and norm.running_mean is not None:
            _update(norm, var.detach(), mean.detach(), count)
    scale = (var + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


@torch.no_grad()
def _update(norm: nn.Module, var: Tensor, mean: Tensor, count: int) -> None:
    norm.num_batches_tracked.add_(1)
    rate = norm.momentum
    if rate is None:
        rate = 1 / norm.num_batches_tracked.to(mean.dtype)
    for running, new in (
        (norm.running_mean, mean),
        (norm.running_var, var * (count / (count - 1))),
    ):
        running.add_((new.to(running.dtype) - running) * rate)


def _of_all_processes(
    var: Tensor, mean: Tensor, count: int, group: dist.ProcessGroup | None
) -> tuple[Tensor, Tensor, int]:
    from torch.distributed.nn.functional import all_reduce

    group = dist.group.WORLD if group is None else group
    total = mean.new_tensor([count])
    dist.all_reduce(total, group=group)
    share = count / total
    whole = all_reduce(mean * share, group=group)
    var = all_reduce((var + (mean - whole).square()) * share, group=group)
    return var, whole, int(total)
