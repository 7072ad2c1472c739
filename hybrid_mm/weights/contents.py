"""The weights in a checkpoint, where it may hold several."""

from typing import Any

from torch import Tensor

from hybrid_mm.checkpoint_files import CheckpointError
from hybrid_mm.convert import unwrap
from hybrid_mm.convert.core import averages, container
from hybrid_mm.errors import warn

_told: set[str] = set()  # files whose averages were named


def weights_of(checkpoint: dict[str, Any], path: str, key: str | None = None) -> dict[str, Tensor]:
    """Weights in a checkpoint; see :func:`hybrid_mm.convert.unwrap` for the containers.

    Of a file that holds weights and their averages over the training, the weights are taken, with
    a warning; checkpoints of MMEngine, whose ``EMAHook`` finds its own, aside.

    Args:
        checkpoint: Content of the file.
        path: The file, for messages.
        key: Where the weights are, by default found.

    Raises:
        CheckpointError: There are none.
    """
    try:
        found = unwrap(checkpoint, key)
        others = averages(checkpoint) if key is None and 'meta' not in checkpoint else []
    except ValueError as error:
        raise CheckpointError(path, f'cannot be used: {error}') from error
    if others and path not in _told:
        _told.add(path)
        warn(
            f'checkpoint {path} has averaged weights too: those of {container(checkpoint)!r} are '
            f'taken; python tools/convert_checkpoint.py --key {others[0]} takes the others'
        )
    return found
