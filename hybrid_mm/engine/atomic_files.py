"""Files that a crash cannot damage, also as a file backend of MMEngine."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from hybrid_mm.engine.process_identity import ProcessIdentity, host_tag

BACKEND = 'hybrid_mm_atomic'  # for `backend_args=dict(backend=...)`
_UNFINISHED = re.compile(r'.+\.tmp-([0-9a-f]{8})-(\d+)-(\d+)')  # names of unfinished files


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
    temporary = path.with_name(f'{path.name}.tmp-{ProcessIdentity.current().tag}')
    try:
        with open(temporary, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):  # of a full disk, it names nothing
            error.filename, error.filename2 = str(path), None
        raise
    _sync_folder(path.parent)


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Remove what :func:`write_atomically` of killed processes left in a folder.

    Only files with its names are, whose process does not live on this machine. That no process of
    another one writes there is up to the caller.
    """
    current = ProcessIdentity.current()
    for path in Path(folder).iterdir():
        found = _UNFINISHED.fullmatch(path.name)
        if not found:
            continue
        if found[1] == host_tag(current.host):
            owner = ProcessIdentity(current.host, int(found[2]), int(found[3]))
            if owner != current and not owner.gone:
                continue
        path.unlink(missing_ok=True)


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
    def removing_last(self) -> Iterator[list[str]]:
        """Context that puts off removals to its end, and drops them if it fails.

        Yields:
            The files that will be removed, a list that may be changed.
        """
        waiting = self._waiting = []
        try:
            yield waiting
        finally:
            self._waiting = None
        for path in waiting:
            self.remove(path)


register_backend(BACKEND, AtomicBackend, force=True)
