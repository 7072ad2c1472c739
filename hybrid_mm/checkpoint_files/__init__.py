"""Files of checkpoints: what a file is, whether it is whole, and loading it safely."""

from hybrid_mm.checkpoint_files.integrity import KEY, checksum
from hybrid_mm.checkpoint_files.loading import (
    CheckpointError,
    MissingCheckpointError,
    check_exists,
    load_from_http,
    load_from_local,
)

__all__ = [
    'KEY',
    'CheckpointError',
    'MissingCheckpointError',
    'check_exists',
    'checksum',
    'load_from_http',
    'load_from_local',
]
