"""Mixed precision in bfloat16, without a gradient scaler, on CPUs and GPUs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.optim import OptimWrapper
from torch import nn

from hybrid_mm.checkpoints import inner_model
from hybrid_mm.registry import OPTIM_WRAPPERS


@contextmanager
def autocast_features(model: nn.Module) -> Iterator[None]:
    """Run ``extract_feat`` of a model (backbone and neck) in bfloat16, the heads in float32.

    MMCV's operators in the heads (NMS, RoIAlign) have no bfloat16 kernels for CPUs. The model may
    be wrapped (DDP, test-time augmentation); without ``extract_feat`` all of it runs in bfloat16.
    """
    model = inner_model(model)
    device = get_device()
    if not hasattr(model, 'extract_feat'):
        with torch.autocast(device, dtype=torch.bfloat16):
            yield
        return
    extract_feat = model.extract_feat

    def extract_in_bfloat16(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype=torch.bfloat16):
            return _to_float(extract_feat(*args, **kwargs))

    model.extract_feat = extract_in_bfloat16
    try:
        yield
    finally:
        del model.extract_feat  # which uncovers the method of the class


def _to_float(x: Any) -> Any:
    """Cast the floating-point tensors of a (nested) sequence or dict to float32."""
    if isinstance(x, torch.Tensor):
        return x.float() if x.is_floating_point() else x
    if isinstance(x, (list, tuple)):
        return type(x)(_to_float(item) for item in x)
    if isinstance(x, dict):
        return {key: _to_float(value) for key, value in x.items()}
    return x


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """Optimizer wrapper that trains under :func:`autocast_features`.

    MMEngine's ``AmpOptimWrapper`` refuses to run on CPUs. bfloat16 has the range of float32, so
    gradients need no scaler.

    Args:
        dtype: Name of the data type; 'bfloat16' is the only one.
        **kwargs: See ``OptimWrapper``.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs: Any) -> None:
        if dtype != 'bfloat16':
            raise ValueError(
                f'AutocastOptimWrapper has no gradient scaler and takes bfloat16 only, got {dtype}'
            )
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Context of the forward pass: that of MMEngine, and :func:`autocast_features`."""
        with super().optim_context(model), autocast_features(model):
            yield
