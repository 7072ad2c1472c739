"""Mixed precision without a gradient scaler."""

from contextlib import contextmanager

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from hybrid_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Autocast to bfloat16 and no gradient scaling, on CPU or GPU.

    MMEngine's ``AmpOptimWrapper`` refuses to run on CPU. bfloat16 has the range of float32, so
    gradients need no scaler.

    Args:
        dtype: Name of the data type; 'bfloat16' is the only one.
        **kwargs: See ``OptimWrapper``.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs):
        if dtype != 'bfloat16':
            raise ValueError(
                f'AutocastOptimWrapper has no gradient scaler and takes bfloat16 only, got {dtype}'
            )
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module):
        """Run the forward pass of ``model`` under autocast."""
        device = get_device()
        with super().optim_context(model), torch.autocast(device, dtype=torch.bfloat16):
            yield
