"""Hooks, optimizer constructors, the distributed wrapper, and what the tools share."""

from hybrid_mm.engine.amp import AutocastOptimWrapper
from hybrid_mm.engine.distributed import DeviceAwareDistributedDataParallel

__all__ = ['AutocastOptimWrapper', 'DeviceAwareDistributedDataParallel']
