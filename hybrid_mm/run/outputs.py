"""Places where results are written: looked at before the work, not after an hour of it."""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hybrid_mm.errors import UserError


def check_output_folder(path: str | Path, option: str = '--out') -> Path:
    """Check that a folder of results can be written, or made; nothing is made yet.

    Raises:
        UserError: It cannot be.
    """
    if not str(path):
        raise UserError(f"{option} is '', which names no folder; is a variable empty?")
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise UserError(f'{option} {path} is a file; expected a folder')
    with writing(folder, option):
        place = folder
        while not place.exists() and place != place.parent:
            place = place.parent
        if not place.is_dir():
            raise UserError(f'{option} {path} cannot be made: {place} is a file')
        with tempfile.TemporaryFile(dir=place):
            pass
    return folder


def check_output_file(
    path: str | Path,
    option: str = '--out',
    suffixes: Iterable[str] = (),
    inputs: Iterable[str | Path] = (),
) -> Path:
    """Check that a file of results can be written; nothing is made yet.

    Args:
        path: The file. One that exists is replaced when the new one is complete.
        option: How the user named it.
        suffixes: Endings of its name; any if there are none.
        inputs: Files that are read, none of which may be replaced.

    Raises:
        UserError: It cannot be written, is a folder or an input, or has another suffix.
    """
    file, suffixes = Path(path), tuple(suffixes)
    if file.is_dir() or str(path).endswith('/'):
        raise UserError(f'{option} {path} is a folder; expected a file')
    check_output_folder(file.parent, option)
    if suffixes and not file.name.lower().endswith(suffixes):
        raise UserError(f'{option} {path}: the name must end with {" or ".join(suffixes)}')
    for other in inputs:
        if file.exists() and os.path.exists(other) and os.path.samefile(file, other):
            raise UserError(f'{option} {path} would replace {other}, which is read')
    if file.exists() and not os.access(file, os.W_OK):
        raise UserError(f'{option} {path} cannot be written: it is write-protected')
    return file


def check_picture(path: str | Path, option: str = '--out') -> Path:
    """Check that a picture can be written; see :func:`check_output_file`."""
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    return check_output_file(path, option, [f'.{kind}' for kind in kinds])


def plain_label(text: str) -> str:
    """A name as matplotlib shows it unchanged: it reads what is between two $ as a formula."""
    return text.replace('$', r'\$')


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


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Context that writes a file under the name that it gets, which becomes ``path`` at the end.

    After an error ``path`` is as it was. Its folder is made.

    Raises:
        UserError: The system refuses.
    """
    file = Path(path)
    temporary = file.with_name(f'.{os.getpid()}-{file.name}')
    try:
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, 'rb') as written:
                os.fsync(written.fileno())
            os.replace(temporary, file)
    except RuntimeError as error:
        if 'PytorchStreamWriter' not in str(error):  # what torch says of a full disk
            raise
        reason = str(error).split('\n')[0]
        raise UserError(f'{path} cannot be written; is the disk full? ({reason})') from error
    finally:
        temporary.unlink(missing_ok=True)
