"""Inference from Python: load a config and a checkpoint, predict on arrays, files and videos."""

from hybrid_mm.apis.predictor import Predictor
from hybrid_mm.apis.results import Classification, Detection, Prediction, Segmentation
from hybrid_mm.apis.sources import FailedInput, UnreadableInput
from hybrid_mm.apis.writer import Writer

__all__ = [
    'Classification',
    'Detection',
    'FailedInput',
    'Prediction',
    'Predictor',
    'Segmentation',
    'UnreadableInput',
    'Writer',
]
