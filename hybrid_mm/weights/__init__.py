"""Published weights by name: what there is, where it is, and loading it as ``hybrid_mm://NAME``.

A name is imported from its file when it is asked for: what needs neither torch nor MMEngine, as
``python -m hybrid_mm weights list``, imports neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
_FILES = {
    'finding': 'WeightsError check_available weights_file',
    'loading': 'load_by_name',
    'registry': 'SCHEME PublishedFile Weights all_weights find_weights',
}
"""Public names by the file that they are in."""


def __getattr__(name: str) -> Any:
    for file, names in _FILES.items():
        if name in names.split():
            return getattr(import_module(f'{__name__}.{file}'), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
