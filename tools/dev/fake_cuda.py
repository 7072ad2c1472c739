"""Fake CUDA tensors, see :mod:`hybrid_mm.benchmarks.gpu_counts`."""

from hybrid_mm.benchmarks.gpu_counts.engine import backward
from hybrid_mm.benchmarks.gpu_counts.fake_cuda import Bodies, fake_cuda, on_fake_cuda

__all__ = ['Bodies', 'backward', 'fake_cuda', 'on_fake_cuda']
