"""Hooks, optimizer constructors, the distributed wrapper, and what the tools share."""

from hybrid_mm.engine.amp import AutocastOptimWrapper
from hybrid_mm.engine.compiling import CompileHook
from hybrid_mm.engine.distributed import DeviceAwareDistributedDataParallel
from hybrid_mm.engine.exact_resume import ExactResumeHook
from hybrid_mm.engine.layer_decay import LayerDecayOptimWrapperConstructor
from hybrid_mm.engine.mixing_rates import MixingRatesHook
from hybrid_mm.engine.non_finite import NonFiniteLossHook
from hybrid_mm.engine.saving import AtomicCheckpointHook
from hybrid_mm.engine.sparsity import SparsityHook

__all__ = [
    'AtomicCheckpointHook',
    'AutocastOptimWrapper',
    'CompileHook',
    'DeviceAwareDistributedDataParallel',
    'ExactResumeHook',
    'LayerDecayOptimWrapperConstructor',
    'MixingRatesHook',
    'NonFiniteLossHook',
    'SparsityHook',
]
