"""Small tables, made on the host, that stay on the device where operators read them.

A copy from the host stalls a GPU, and cannot be captured in a CUDA graph: every table goes there
once.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensor

from hybrid_mm.compat.torch_api import is_dynamo_compiling
from hybrid_mm.ops.export import exporting

__all__ = ['capturing', 'on_device']

_MOST = 2**13  # tables, of a few KB; multi-scale training sees hundreds of sizes of the image

_tables: OrderedDict[Hashable, tuple[Tensor, ...]] = OrderedDict()
_captured: dict[Hashable, tuple[Tensor, ...]] = {}  # CUDA graphs read them as long as they live


def on_device(
    make: Callable[..., Sequence[np.ndarray]], *args: Hashable, device: torch.device
) -> tuple[Tensor, ...]:
    """The arrays ``make(*args)`` as tensors on a device, copied there at the first call only.

    Nobody may change them. Compiled graphs make their own.

    Args:
        make: Function at the top of a module; with the arguments it is the key of the cache.
        args: Its arguments.
        device: Where the tables are needed.

    Raises:
        RuntimeError: The first call falls into the capture of a CUDA graph.
    """
    if is_dynamo_compiling() or exporting():  # what is remembered would be a result of the graph
        return _copied(make, args, device)
    key = make, args, device
    found = _tables.pop(key, None)  # to the end; backward passes have threads of their own
    if found is not None and _usable(found):
        _tables[key] = found
        if capturing(device):
            _captured[key] = found
        return found
    if capturing(device):
        raise RuntimeError(
            'the tables of an operator are not on the GPU yet, and cannot be copied there while a '
            'CUDA graph is captured: run the same step once, at the same size, before the capture'
        )
    with torch.inference_mode(False):  # training may follow, and has to keep them
        found = _copied(make, args, device)
    if any(type(x) not in (Tensor, FakeTensor) for x in found):  # of an export that traces
        return found
    _tables[key] = found
    if len(_tables) > _MOST:
        _tables.popitem(last=False)
    return found


def _copied(
    make: Callable[..., Sequence[np.ndarray]], args: tuple[Hashable, ...], device: torch.device
) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(x.copy()).to(device) for x in make(*args))


def capturing(device: torch.device) -> bool:
    """Whether what runs on a device now is captured in a CUDA graph.

    Args:
        device: The device.
    """
    gpu = device.type == 'cuda' and torch.cuda.is_available()
    return gpu and torch.cuda.is_current_stream_capturing()


def _usable(tables: tuple[Tensor, ...]) -> bool:
    """Fake tensors belong to the mode that made them, real ones to none."""
    mode = detect_fake_mode()
    return all((x.fake_mode if isinstance(x, FakeTensor) else None) is mode for x in tables)
