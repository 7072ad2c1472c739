"""Files of checkpoints: what a file is, whether it is whole, and loading it safely.

A name is imported from its file when it is asked for: what needs neither torch nor MMEngine, as
``python -m hybrid_mm weights list``, imports neither.
"""

from typing import TYPE_CHECKING

from hybrid_mm.lazy import names_from

if TYPE_CHECKING:
    from hybrid_mm.checkpoint_files.addresses import file_of_address, load_from_http, what_is_wrong
    from hybrid_mm.checkpoint_files.download import (
        DownloadError,
        Fingerprint,
        cache_folder,
        download_file,
        place_of,
    )
    from hybrid_mm.checkpoint_files.failures import CheckpointError, MissingCheckpointError
    from hybrid_mm.checkpoint_files.integrity import KEY, checksum
    from hybrid_mm.checkpoint_files.loading import check_exists, load_from_local

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
__getattr__ = names_from(
    __name__,
    {
        'addresses': 'file_of_address load_from_http what_is_wrong',
        'download': 'DownloadError Fingerprint cache_folder download_file place_of',
        'failures': 'CheckpointError MissingCheckpointError',
        'integrity': 'KEY checksum',
        'loading': 'check_exists load_from_local',
    },
)
