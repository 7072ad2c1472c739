"""Where the file of published weights is on this machine."""

from pathlib import Path

from hybrid_mm.checkpoint_files import MissingCheckpointError
from hybrid_mm.weights.registry import SCHEME, PublishedFile, find_weights


def weights_file(name: str, download: bool = True) -> tuple[Path, PublishedFile | None]:
    """Find the file of weights, or download it.

    Args:
        name: Name, with or without ``hybrid_mm://``.
        download: Whether it may be downloaded.

    Returns:
        The file, and the entry of the registry that describes it; None for a file of the user's
        that is only called like the weights.

    Raises:
        UserError: There are no weights of this name.
        CheckpointError: The file is not here and cannot be downloaded.
    """
    weights = find_weights(name)
    path = Path('checkpoints') / f'{weights.name}.pth'
    if path.is_file():
        return path, None
    raise MissingCheckpointError(f'{SCHEME}{weights.name}')
