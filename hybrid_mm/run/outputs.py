"""Places where results are written: looked at before the work, not after an hour of it."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hybrid_mm.errors import UserError


def check_output_folder(path: str | Path, option: str = '--out') -> Path:
    """Make a folder of results if there is none, and check that it can be written.

    Raises:
        UserError: It cannot be.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UserError(f'{option} {path} is a file; expected a folder')
    with writing(folder, option):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    return folder


def check_output_file(
    path: str | Path,
    option: str = '--out',
    suffixes: Iterable[str] = (),
    inputs: Iterable[str | Path] = (),
) -> Path:
    """Check that a file of results can be written; its folder is made if there is none.

    Args:
        path: The file. One that exists is replaced when the new one is complete.
        option: How the user named it.
        suffixes: Endings of its name; any if there are none.
        inputs: Files that are read, none of which may be replaced.

    Raises:
        UserError: It cannot be written, is a folder or an input, or has another suffix.
    """
    file, suffixes = Path(path), tuple(suffixes)
    if suffixes and not file.name.lower().endswith(suffixes):
        raise UserError(f'{option} {path}: expected a name that ends with {" or ".join(suffixes)}')
    if file.is_dir() or str(path).endswith('/'):
        raise UserError(f'{option} {path} is a folder; expected a file')
    for other in inputs:
        if file.exists() and os.path.exists(other) and os.path.samefile(file, other):
            raise UserError(f'{option} {path} would replace {other}, which is read')
    with writing(file, option):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=file.parent):
            pass
        if file.exists() and not os.access(file, os.W_OK):
            raise PermissionError(13, 'Permission denied', str(file))
    return file


@contextmanager
def writing(path: str | Path, option: str = '') -> Iterator[None]:
    """Context that writes a file or folder: a ``UserError`` names it if the system refuses."""
    try:
        yield
    except OSError as error:
        where = '' if error.filename in (None, str(path)) else f' ({error.filename})'
        raise UserError(
            f'{option} {path} cannot be written: {error.strerror or error}{where}'.lstrip()
        ) from error
