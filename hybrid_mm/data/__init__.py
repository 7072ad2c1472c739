"""Data sets and transforms."""

from hybrid_mm.data.checked import CheckedDataset
from hybrid_mm.data.ham10000 import HAM10000

__all__ = ['HAM10000', 'CheckedDataset']
