"""Published weights by name: what there is, where it is, and loading it as ``hybrid_mm://NAME``."""

from hybrid_mm.weights.loading import load_by_name
from hybrid_mm.weights.registry import SCHEME, PublishedFile, Weights, all_weights, find_weights

__all__ = ['SCHEME', 'PublishedFile', 'Weights', 'all_weights', 'find_weights', 'load_by_name']
