"""Metrics that MMDetection, MMSegmentation and MMPretrain do not have."""

from hybrid_mm.evaluation.checked_coco import checked_coco_metric
from hybrid_mm.evaluation.subset_accuracy import SubsetAccuracy

__all__ = ['SubsetAccuracy', 'checked_coco_metric']
