"""A lock that keeps two trainings out of one folder.

The lock is a POSIX record lock on a file in the folder. It vanishes with the process, however that
ends, is not inherited by workers of data loaders, and reaches over NFS. The file says who holds it.
Where a file system has no such locks, or keeps them to one machine, the file alone decides: by the
process if it is one of this machine, else by a sign of life that the holder gives regularly.
"""

import errno
import json
import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, get_rank, is_distributed

from hybrid_mm.engine.process_identity import ProcessIdentity
from hybrid_mm.errors import UserError, warn

try:
    import fcntl
except ModuleNotFoundError:  # Windows: the file alone decides
    fcntl = None  # type: ignore[assignment]

NAME = 'training.lock'
BEAT = 15.0  # seconds between signs of life
PATIENCE = 50.0  # seconds without one, after which a process of another machine counts as gone
GRACE = 3.0  # seconds that a process which was just killed may need to let go

_held: dict[Path, '_Lock'] = {}


class _InUseError(UserError):
    """Another process trains into the folder."""


@contextmanager
def locked(folders: Iterable[str | os.PathLike[str]], rank: int | None = None) -> Iterator[None]:
    """Context in which no other training can use some folders; the first process locks for all.

    A folder that this process has locked already is left as it is.

    Args:
        folders: They are created.
        rank: Of this process in its run; by default that in the process group.

    Raises:
        UserError: One is in use, or cannot be written.
    """
    stack, message = ExitStack(), None
    if (get_rank() if rank is None else rank) == 0:
        try:
            for folder in sorted({os.path.realpath(folder) for folder in folders}):
                stack.enter_context(_locked(Path(folder)))
        except UserError as error:
            stack.close()
            message = str(error)
    if is_distributed():
        shared = [message]
        broadcast_object_list(shared)
        message = shared[0]
    if message is not None:
        raise UserError(message)
    with stack:
        yield


@dataclass
class _Lock:
    """A lock of this process, and how many contexts it is held for."""

    path: Path
    descriptor: int
    pid: int
    users: int = 0

    def __post_init__(self) -> None:
        self.stop = threading.Event()
        self.beat = threading.Thread(target=_beat, args=(self.descriptor, self.stop), daemon=True)
        self.beat.start()

    def release(self) -> None:
        self.stop.set()
        self.beat.join()
        with suppress(OSError):
            os.unlink(self.path)  # before the lock is gone: whoever waits for it sees that
        os.close(self.descriptor)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = _held.get(folder)
    if lock is None or lock.pid != os.getpid():  # those of a parent process are not inherited
        lock = _held[folder] = _Lock(folder / NAME, _open(folder), os.getpid())
    lock.users += 1
    try:
        yield
    finally:
        lock.users -= 1
        if not lock.users and lock.pid == os.getpid():
            _held.pop(folder, None)
            lock.release()


def _open(folder: Path) -> int:
    """Make a folder and take its lock; return the descriptor of the file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _take(folder / NAME)
    except OSError as error:
        culprit = folder / NAME if os.path.isdir(folder) else folder
        raise UserError(
            f'{culprit} cannot be written ({error.strerror}); a training has to write '
            'there: choose another --work-dir'
        ) from error


def _beat(descriptor: int, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        with suppress(OSError):
            os.utime(descriptor)


def _take(path: Path) -> int:
    """Open the file, lock it and write who we are; return its descriptor."""
    deadline = time.monotonic() + GRACE
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, 'O_CLOEXEC', 0), 0o644)
        try:
            free = _lock(descriptor)
            if _same_file(descriptor, path):
                _check_free(descriptor, path, free)
                _write(descriptor)
                return descriptor
        except BaseException as error:
            os.close(descriptor)
            if not isinstance(error, _InUseError) or time.monotonic() > deadline:
                raise
        else:
            os.close(descriptor)  # its holder removed the file meanwhile
        time.sleep(0.05)


def _lock(descriptor: int) -> bool | None:
    """Whether the lock is ours now; None where the file system has no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EACCES, errno.EAGAIN) else None
    return True


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _check_free(descriptor: int, path: Path, free: bool | None) -> None:
    """Raise if another training holds the lock; wait for a sign of life where that is needed."""
    content = _read(descriptor)
    holder = content.get('holder')
    if free is False:
        raise _InUseError(_in_use(path, content))
    if holder is None or content.get('inode') != os.fstat(descriptor).st_ino:
        return  # empty, damaged, or a copy that came with a copied folder
    if holder.here:
        if free is None and not holder.gone and holder != ProcessIdentity.current():
            raise _InUseError(_in_use(path, content))
        return
    # a lock that is free tells nothing where locks are kept to one machine
    warn(f'{path} is of a process on {holder.host}; waiting up to {PATIENCE:.0f} s for a sign')
    last, end = os.fstat(descriptor).st_mtime_ns, time.monotonic() + PATIENCE
    while time.monotonic() < end:
        time.sleep(min(1.0, PATIENCE / 10))
        _lock(descriptor)  # it is ours already, but NFS asks its server for the times again
        if os.fstat(descriptor).st_mtime_ns != last:
            raise UserError(_in_use(path, content))
    warn(f'{path}: that process gives no sign of life; this training takes over')


def _in_use(path: Path, content: dict[str, Any]) -> str:
    holder = content.get('holder')
    if holder is None:
        who, hint = 'another process', ''
    else:
        who = f'process {holder.pid} on {holder.host} (since {content.get("since")})'
        hint = '' if holder.here else f'; if that process is gone, delete {path}'
    launcher = ''
    if os.environ.get('WORLD_SIZE', '1') != '1' and not is_distributed():
        launcher = ' (several processes of one run need --launcher)'
    return (
        f'{path.parent} is in use: {who} trains into it{launcher}. Wait for its end, stop it, or '
        f'choose another --work-dir{hint}'
    )


def _read(descriptor: int) -> dict[str, Any]:
    """Content of the file, with its holder; empty if there is none that can be read."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        content = json.loads(os.read(descriptor, 4096))
        holder = content['holder']
        host, pid, start = str(holder['host']), int(holder['pid']), int(holder['start'])
        return content | dict(holder=ProcessIdentity(host, pid, start))
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write(descriptor: int) -> None:
    content = dict(
        holder=asdict(ProcessIdentity.current()),
        since=time.strftime('%Y-%m-%d %H:%M:%S'),
        inode=os.fstat(descriptor).st_ino,
    )
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(content).encode() + b'\n')
