"""Distributed wrapper of models for GPUs and CPUs."""

from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from torch import Tensor, distributed, nn

from hybrid_mm.engine.gloo_sync_batch_norm import to_gloo_sync_batch_norm
from hybrid_mm.registry import MODEL_WRAPPERS

WRAPPER = 'hybrid_mm.DeviceAwareDistributedDataParallel'


@MODEL_WRAPPERS.register_module()
class DeviceAwareDistributedDataParallel(MMDistributedDataParallel):
    """``MMDistributedDataParallel`` for GPUs and CPUs, with losses of the whole batch.

    On CPUs ``device_ids`` is dropped, as torch demands, and SyncBatchNorm, which torch has for GPUs
    only, is replaced by :class:`~hybrid_mm.engine.gloo_sync_batch_norm.GlooSyncBatchNorm`. On all
    devices the losses returned for logging are means over the processes, so that the log of N
    processes can be compared with that of one process with the same total batch. Every process
    must return losses of the same names.

    Args:
        module: The model, on its device.
        device_ids: The GPU of this process, as for ``torch.nn.parallel.DistributedDataParallel``.
        **kwargs: Further arguments of MMEngine's ``MMDistributedDataParallel``, such as
            ``find_unused_parameters`` and ``broadcast_buffers``.
    """

    def __init__(self, module: nn.Module, device_ids: list | None = None, **kwargs: Any) -> None:
        if next(module.parameters()).device.type == 'cpu':
            device_ids = None
            module, replaced = to_gloo_sync_batch_norm(module)
            if replaced:
                print_log(
                    f'{replaced} SyncBatchNorm layers run as GlooSyncBatchNorm on CPU: statistics '
                    'of the batches of all processes',
                    logger='current',
                )
        super().__init__(module=module, device_ids=device_ids, **kwargs)

    def train_step(self, data: Any, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Train on a batch and return its losses, averaged over the processes."""
        log_vars = super().train_step(data, optim_wrapper)
        values = torch.stack([value.detach().float() for value in log_vars.values()])
        distributed.all_reduce(values, group=self.process_group)
        values /= distributed.get_world_size(self.process_group)
        return dict(zip(log_vars, values.unbind(), strict=True))
