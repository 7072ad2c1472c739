"""What MMEngine finds by name: hooks, wrappers of models and optimizers, their constructor."""

from hybrid_mm.engine.adaptive_clipping import (
    AGCAmpOptimWrapper,
    AGCAutocastOptimWrapper,
    AGCOptimWrapper,
)
from hybrid_mm.engine.gloo_sync_batch_norm import GlooSyncBatchNorm
from hybrid_mm.engine.hooks.atomic_checkpoint import AtomicCheckpointHook
from hybrid_mm.engine.hooks.compile_parts import CompileHook
from hybrid_mm.engine.hooks.exact_resume import ExactResumeHook
from hybrid_mm.engine.hooks.mixing_rates import MixingRatesHook
from hybrid_mm.engine.hooks.non_finite import NonFiniteLossHook
from hybrid_mm.engine.hooks.pictures import PictureHook
from hybrid_mm.engine.hooks.sparsity import SparsityHook
from hybrid_mm.engine.layer_decay import LayerDecayOptimWrapperConstructor
from hybrid_mm.engine.model_wrapper import DeviceAwareDistributedDataParallel
from hybrid_mm.engine.optim_wrapper import AutocastOptimWrapper

__all__ = [
    'AGCAmpOptimWrapper',
    'AGCAutocastOptimWrapper',
    'AGCOptimWrapper',
    'AtomicCheckpointHook',
    'AutocastOptimWrapper',
    'CompileHook',
    'DeviceAwareDistributedDataParallel',
    'ExactResumeHook',
    'GlooSyncBatchNorm',
    'LayerDecayOptimWrapperConstructor',
    'MixingRatesHook',
    'NonFiniteLossHook',
    'PictureHook',
    'SparsityHook',
]
