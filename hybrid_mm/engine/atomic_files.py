"""Files that a crash cannot damage."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

_BACKEND = 'hybrid_mm_atomic'
_TEMPORARY = '.tmp-'


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Write a file so that after a crash at any point it is the old one or the new one, whole.

    Args:
        path: The file; its folder is made.
        data: What it shall hold.

    Raises:
        OSError: A full disk, for one; the old file is untouched then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}{_TEMPORARY}{os.getpid()}')
    try:
        with open(temporary, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a renaming outlast a failure of power, where the system lets a folder be synced."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class AtomicBackend(LocalBackend):
    """Local files that are written atomically, and whose removal may wait."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[str] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file atomically."""
        write_atomically(filepath, obj)

    def remove(self, filepath: str | Path) -> None:
        """Remove a file, inside of :meth:`removing_last` at its end."""
        if self._waiting is None:
            super().remove(filepath)
        else:
            self._waiting.append(str(filepath))

    @contextmanager
    def removing_last(self) -> Iterator[None]:
        """Remove files at the end of the block, and not at all if it fails."""
        self._waiting = []
        try:
            yield
            waiting, self._waiting = self._waiting, None
            for path in waiting:
                super().remove(path)
        finally:
            self._waiting = None


register_backend(_BACKEND, AtomicBackend, force=True)
