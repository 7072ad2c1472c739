"""Metrics that MMDetection, MMSegmentation and MMPretrain do not have."""

from hybrid_mm.evaluation.subset_accuracy import SubsetAccuracy

__all__ = ['SubsetAccuracy']
