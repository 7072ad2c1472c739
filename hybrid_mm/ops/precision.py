"""Sections of a network that keep their precision under autocast."""

import contextlib

import torch
from torch import Tensor


def no_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Context without autocast for the device of a tensor."""
    if x.device.type == 'meta':  # shapes alone, as complexity is counted, have no autocast
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """The tensor itself, or in single precision if it is in half."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
