"""Hybrid convolution/attention and large-kernel backbones for the OpenMMLab stack."""

from hybrid_mm import compat
from hybrid_mm.version import __version__

compat.apply()

__all__ = ['__version__']
