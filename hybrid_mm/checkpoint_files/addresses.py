"""Checkpoints that are named by an address."""

import os
import sys
from pathlib import Path
from typing import Any

from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from hybrid_mm.checkpoint_files.download import (
    DownloadError,
    Fingerprint,
    cache_folder,
    download_file,
    hash_in_name,
    place_of,
)
from hybrid_mm.checkpoint_files.failures import CheckpointError
from hybrid_mm.checkpoint_files.loading import load_from_local


def load_from_http(filename: str, map_location: Any = None, model_dir: str | None = None) -> Any:
    """Download a checkpoint once, into torch's cache by default, and load it as a local one.

    A name that ends in ``-HASH.pth`` says what is in the file, and the hash is checked; see
    :func:`.download.place_of` for the file's place. A file of another name that torch or MMEngine
    left in the cache may be from anywhere: it is taken only if the address cannot be reached, with
    a warning. What is not a checkpoint is not kept. One that cannot be read later is downloaded
    anew.

    MMEngine's loaders of addresses and of names (``open-mmlab://resnet50``) call it as well.

    Args:
        filename: The address.
        map_location: Device, as of ``torch.load``.
        model_dir: Folder in place of the cache.

    Raises:
        CheckpointError: The address cannot be reached, gives no checkpoint, or the file cannot be
            written; says what to do.
    """
    path, new = file_of_address(filename, model_dir)
    try:
        return load_from_local(str(path), map_location)
    except CheckpointError as error:
        known = Fingerprint(sha256=hash_in_name(path.name))
        if new or known.decides or _refused(error):
            raise
        try:
            download_file([filename], path, known, what_is_wrong, damaged=os.stat(path))
        except (DownloadError, OSError):
            raise error from None
        return load_from_local(str(path), map_location)


def file_of_address(url: str, model_dir: str | None = None) -> tuple[Path, bool]:
    """The file of an address, after it is downloaded if need be; see :func:`load_from_http`.

    Args:
        url: The address.
        model_dir: Folder for downloaded files; :func:`cache_folder` by default.

    Returns:
        The file, and whether it is not one that was downloaded before.
    """
    folder = Path(model_dir) if model_dir else cache_folder()
    path = place_of(url, folder)
    before = os.path.isfile(path)
    try:
        download_file([url], path, Fingerprint(sha256=hash_in_name(path.name)), what_is_wrong)
    except DownloadError as error:
        plain = folder / path.name
        if plain == path or not (error.away and plain.is_file()):
            raise _not_downloaded(url, error) from error
        print(
            f'warning: {url} cannot be reached ({error}); using {plain}, which has its name',
            file=sys.stderr,
        )
        return plain, True
    return path, not before


def what_is_wrong(path: Path) -> str | None:
    """Why a downloaded file cannot be read as a checkpoint; None if it can, or could run code.

    Args:
        path: The downloaded file.
    """
    try:
        load_from_local(str(path), 'cpu')
    except CheckpointError as error:
        return None if _refused(error) else f'it {error.reason}'
    return None


def _refused(error: CheckpointError) -> bool:
    """Whether a file is whole, and refused for what is in it."""
    return 'could run code' in error.reason


def _not_downloaded(filename: str, error: DownloadError) -> CheckpointError:
    hint = (
        'Download it where there is a network, and name the file in its place: '
        '--cfg-options model.backbone.init_cfg.checkpoint=FILE for the weights of a backbone'
    )
    reason = f'cannot be downloaded ({error.reason})'
    return CheckpointError(filename, reason if error.local else f'{reason}. {hint}')


CheckpointLoader.register_scheme(('http://', 'https://'), load_from_http, force=True)
mmengine_checkpoint.load_from_http = load_from_http  # of its loaders of names, which call it
