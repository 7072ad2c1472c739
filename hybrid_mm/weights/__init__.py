"""Published weights by name: what there is, where it is, and loading it as ``hybrid_mm://NAME``."""

from hybrid_mm.weights.finding import WeightsError, check_available, weights_file
from hybrid_mm.weights.loading import load_by_name
from hybrid_mm.weights.registry import SCHEME, PublishedFile, Weights, all_weights, find_weights

__all__ = [
    'SCHEME',
    'PublishedFile',
    'Weights',
    'WeightsError',
    'all_weights',
    'check_available',
    'find_weights',
    'load_by_name',
    'weights_file',
]
