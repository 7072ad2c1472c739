"""Names of torch that old releases lack or call otherwise: the oldest is 2.1.

On a release that has the name, it is torch's own object, which torch.compile knows. Unlike the
other files here this one imports torch, and nothing else.
"""

from typing import Any

import torch
from torch.utils import _pytree

__all__ = ['get_autocast_dtype', 'is_autocast_enabled', 'tree_leaves']

# torch < 2.4 asks for CPUs and GPUs by functions of two names
if hasattr(torch, 'get_autocast_dtype'):
    is_autocast_enabled = torch.is_autocast_enabled
    get_autocast_dtype = torch.get_autocast_dtype
else:

    def is_autocast_enabled(device_type: str) -> bool:
        """Whether autocast is on for a type of device."""
        if device_type == 'cpu':
            return torch.is_autocast_cpu_enabled()
        return torch.is_autocast_enabled()

    def get_autocast_dtype(device_type: str) -> torch.dtype:
        """Type that autocast chooses on a type of device."""
        if device_type == 'cpu':
            return torch.get_autocast_cpu_dtype()
        return torch.get_autocast_gpu_dtype()


# torch < 2.2 flattens into leaves and a structure only
if hasattr(_pytree, 'tree_leaves'):
    tree_leaves = _pytree.tree_leaves
else:

    def tree_leaves(tree: Any) -> list:
        """Give the leaves of nested lists, tuples and dicts."""
        return _pytree.tree_flatten(tree)[0]
