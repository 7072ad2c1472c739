"""Loading of weights by name, for MMEngine's loaders of checkpoints."""

from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader

from hybrid_mm.checkpoint_files import CheckpointError
from hybrid_mm.convert import convert, unwrap
from hybrid_mm.errors import plain_text
from hybrid_mm.weights.finding import weights_file
from hybrid_mm.weights.registry import OURS, SCHEME


def load_by_name(filename: str, map_location: Any = None, **unused: Any) -> dict[str, Any]:
    """Load published weights in our layout, ``hybrid_mm://NAME``.

    Returns:
        A checkpoint with ``state_dict`` and ``meta``; the head of a classifier is called ``head.``.

    Raises:
        UserError: There are no weights of this name.
        CheckpointError: The file cannot be had, or is not what it should be.
    """
    name = filename.removeprefix(SCHEME)
    path, published = weights_file(name)
    loaded = CheckpointLoader.load_checkpoint(str(path), map_location, logger='silent')
    try:
        if published is None:
            state = convert(unwrap(loaded))
        else:
            state = unwrap(loaded)
            if published.layout != OURS:
                state = convert(state, published.layout)
    except ValueError as error:
        raise CheckpointError(str(path), f'cannot be used: {plain_text(error)}') from error
    meta = dict(weights=name, file=str(path), source=published and published.layout)
    return dict(state_dict=state, meta=meta)
