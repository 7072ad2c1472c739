"""Hybrid convolution/attention and large-kernel backbones for the OpenMMLab stack."""

from hybrid_mm.compat import after_import
from hybrid_mm.version import __version__

after_import.apply()

__all__ = ['__version__']
