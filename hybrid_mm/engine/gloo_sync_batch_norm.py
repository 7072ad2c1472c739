"""Batch normalisation synchronised over processes on CPUs (gloo), for our model wrapper."""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _AllReduceSum(torch.autograd.Function):
    """Sum over the processes; the gradient of a sum that all use is the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
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
        processes = distributed.get_world_size() if distributed.is_initialized() else 1
        if not self.training or processes == 1:
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


def to_gloo_sync_batch_norm(module: nn.Module) -> tuple[nn.Module, int]:
    """Replace every ``torch.nn.SyncBatchNorm`` in ``module``, sharing its tensors.

    Returns:
        The module (another one if it is such a layer itself), and the number of replaced layers.
    """
    if isinstance(module, nn.SyncBatchNorm):
        new = GlooSyncBatchNorm(
            module.num_features,
            module.eps,
            module.momentum,
            module.affine,
            module.track_running_stats,
        )
        new.weight, new.bias = module.weight, module.bias
        for name, buffer in module.named_buffers(recurse=False):
            setattr(new, name, buffer)
        return new.train(module.training), 1
    total = 0
    for name, child in module.named_children():
        new, count = to_gloo_sync_batch_norm(child)
        if new is not child:
            setattr(module, name, new)
        total += count
    return module, total
