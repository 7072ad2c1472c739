"""Synchronised batch normalisation on CPUs (gloo)."""

import torch
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


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
