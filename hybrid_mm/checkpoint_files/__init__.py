"""Files of checkpoints: what a file is, whether it is whole, and loading it safely."""

from hybrid_mm.checkpoint_files.addresses import file_of_address, load_from_http, what_is_wrong
from hybrid_mm.checkpoint_files.download import (
    DownloadError,
    Fingerprint,
    cache_folder,
    download_file,
    place_of,
)
from hybrid_mm.checkpoint_files.integrity import KEY, checksum
from hybrid_mm.checkpoint_files.loading import (
    CheckpointError,
    MissingCheckpointError,
    check_exists,
    load_from_local,
)

__all__ = [
    'KEY',
    'CheckpointError',
    'DownloadError',
    'Fingerprint',
    'MissingCheckpointError',
    'cache_folder',
    'check_exists',
    'checksum',
    'download_file',
    'file_of_address',
    'load_from_http',
    'load_from_local',
    'place_of',
    'what_is_wrong',
]
