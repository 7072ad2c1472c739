"""Published weights by name: what there is, where it is, and loading it as ``hybrid_mm://NAME``.

A name is imported from its file when it is asked for: what needs neither torch nor MMEngine, as
``python -m hybrid_mm weights list``, imports neither.
"""

from typing import TYPE_CHECKING

from hybrid_mm.lazy import names_from

if TYPE_CHECKING:
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
__getattr__ = names_from(
    __name__,
    {
        'finding': 'WeightsError check_available weights_file',
        'loading': 'load_by_name',
        'registry': 'SCHEME PublishedFile Weights all_weights find_weights',
    },
)
