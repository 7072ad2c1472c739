"""Files that a crash cannot damage, also as a file backend of MMEngine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

BACKEND = 'hybrid_mm_atomic'  # for `backend_args=dict(backend=...)`
TEMPORARY = '.tmp-'  # in the names of files that are not complete yet


def write_atomically(path: str | os.PathLike, data: bytes) -> None:
    """Write a file such that a crash at any point leaves the old or the new one, complete.

    Args:
        path: The file; its folder is created.
        data: Content of the file.

    Raises:
        OSError: The disk is full, for example; the old file is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}{TEMPORARY}{os.getpid()}')
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
    """Make a renaming outlast a power failure, on systems that can sync a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class AtomicBackend(LocalBackend):
    """Local files that are written atomically, and can be removed after they are replaced."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting: list[str] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file atomically."""
        write_atomically(filepath, obj)

    def remove(self, filepath: str | Path) -> None:
        """Remove a file, or note it for the end of :meth:`removing_last`."""
        if self._waiting is None:
            super().remove(filepath)
        else:
            self._waiting.append(str(filepath))

    @contextmanager
    def removing_last(self) -> Iterator[None]:
        """Context that puts off removals to its end, and drops them if it fails."""
        self._waiting = []
        try:
            yield
            waiting, self._waiting = self._waiting, None
            for path in waiting:
                super().remove(path)
        finally:
            self._waiting = None


register_backend(BACKEND, AtomicBackend, force=True)
