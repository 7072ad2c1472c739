"""Work on one file that several processes want done: one does it, the others wait.

The processes may be those of a distributed run, of several runs, and of several machines that share
a folder. No collective of a process group is used: a download may last longer than its timeout.
"""

import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ModuleNotFoundError:  # Windows: the existence of a file decides
    fcntl = None  # type: ignore[assignment]

HEAD_START = 5.0  # seconds that the first process of a machine has before the others
BEAT = 5.0  # seconds between signs of life, where there are no locks
PATIENCE = 120.0  # seconds without one, after which a process counts as gone; NFS shows times late
_QUIET = 5.0  # seconds of waiting before it is told
_HELD = (errno.EACCES, errno.EAGAIN)


class Turn:
    """What a process that has waited knows of the one before, and tells the next.

    Attributes:
        ours: Whether the work is this process's; else another one has just ended, and what it
            did or `failure` tells whether it is done.
        locked: Whether the system holds the lock, which vanishes with the process.
        failure: What the one before left when it failed while this one waited; else None.
    """

    def __init__(self, ours: bool, locked: bool, failure: dict[str, Any] | None = None) -> None:
        self.ours, self.locked, self.failure = ours, locked, failure
        self.left: dict[str, Any] | None = None

    def leave(self, failure: dict[str, Any]) -> None:
        """Tell those who wait now that the work failed, so that they need not try it too."""
        self.left = failure


@contextmanager
def in_turn(path: Path) -> Iterator[Turn]:
    """Context in which one process at a time has its turn; it may end with the work undone.

    Args:
        path: File that is the lock; it is there while a process has its turn.

    Raises:
        OSError: It cannot be written.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, 'O_CLOEXEC', 0), 0o666)
    try:
        waited = _lock(descriptor, path)
        failure = _failure(descriptor) if waited else None
        if waited is not None and (failure or not _is_at(descriptor, path)):
            _unlock(descriptor)
            yield Turn(False, True, failure)
        elif waited is not None:
            turn = Turn(True, True)
            _write(descriptor, dict(holder=_who()))
            try:
                yield turn
            finally:
                if turn.left:
                    _write(descriptor, turn.left)
                with suppress(OSError):  # before the lock is gone: who waits for it sees that
                    path.unlink()
        else:
            with _by_existence(path.with_name(path.name + '-held')):
                _write(descriptor, dict(holder=_who()))
                yield Turn(True, False)
            with suppress(OSError):
                path.unlink()
    finally:
        _unlock(descriptor)  # a child process may have inherited it
        os.close(descriptor)


def give_way(path: Path, done: Path) -> None:
    """Let the first process of this machine begin, if this is another one of a distributed run.

    Args:
        path: The lock, see :func:`in_turn`.
        done: What is there after the work; if it is there now, nothing is waited for.
    """
    rank = next((os.environ[k] for k in ('LOCAL_RANK', 'SLURM_LOCALID') if k in os.environ), '0')
    end = time.monotonic() + (HEAD_START if rank != '0' else 0)
    while time.monotonic() < end and not _is_held(path) and not done.exists():
        time.sleep(0.02)


def _is_held(path: Path) -> bool:
    """Whether a process has its turn: its file is there a moment before that."""
    with suppress(OSError):
        return path.stat().st_size > 0
    return False


def _lock(descriptor: int, path: Path) -> bool | None:
    """Wait for the lock; return whether it was held, or None where the file system has none."""
    if fcntl is None:
        return None
    start, told, waited = time.monotonic(), False, False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return waited
        except OSError as error:
            if error.errno not in _HELD:
                return None
        waited = True
        if not told and time.monotonic() - start > _QUIET:
            told = True
            _tell(path, (_read(descriptor) or {}).get('holder', 'another process'))
        time.sleep(0.05 if time.monotonic() - start < 2 else 0.5)


def _unlock(descriptor: int) -> None:
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


@contextmanager
def _by_existence(path: Path) -> Iterator[None]:
    """Hold the lock by a file that only one process can make, and keep it young."""
    descriptor = _make(path)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT):
            with suppress(OSError):
                os.utime(path)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        os.close(descriptor)
        with suppress(OSError):
            path.unlink()


def _make(path: Path) -> int:
    start = since = time.monotonic()
    told, last = False, None
    while True:
        try:
            return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            pass
        with suppress(FileNotFoundError):
            found, now = path.stat().st_mtime_ns, time.monotonic()
            if found != last:
                last, since = found, now
            elif now - since > PATIENCE:
                with suppress(FileNotFoundError):
                    path.unlink()
        if not told and time.monotonic() - start > _QUIET:
            told = True
            _tell(path, 'another process')
        time.sleep(0.05)


def _tell(path: Path, holder: str) -> None:
    if os.environ.get('RANK', '0') == '0':
        print(f'waiting for {holder}, which downloads ({path})', file=sys.stderr)


def _who() -> str:
    return f'process {os.getpid()} on {socket.gethostname()}'


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:  # gone, or on a server that has forgotten it
        return False


def _read(descriptor: int) -> dict[str, Any] | None:
    """What the holder wrote; None if there is nothing that can be read."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        content = json.loads(os.read(descriptor, 1 << 16))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _failure(descriptor: int) -> dict[str, Any] | None:
    content = _read(descriptor)
    return content if content and 'holder' not in content else None


def _write(descriptor: int, content: dict[str, Any]) -> None:
    with suppress(OSError):  # of a full disk: it is for messages only
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps(content).encode())
