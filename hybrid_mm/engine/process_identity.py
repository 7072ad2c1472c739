"""Which process something belongs to, and whether that process is still there."""

import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """A process of some machine.

    Attributes:
        host: Name of the machine.
        pid: Number of the process.
        start: When it was started, in ticks of the machine; 0 if the system does not say. Numbers
            of processes are used again, pairs of both are not.
    """

    host: str
    pid: int
    start: int

    @classmethod
    def current(cls) -> 'ProcessIdentity':
        """This process."""
        return cls(socket.gethostname(), os.getpid(), _start(os.getpid()))

    @property
    def here(self) -> bool:
        """Whether it belongs to this machine."""
        return self.host == socket.gethostname()

    @property
    def gone(self) -> bool:
        """Whether it is known to have ended; of other machines nothing is known."""
        if not self.here:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            pass
        return self.start != _start(self.pid)

    @property
    def tag(self) -> str:
        """Short text for names of files, the same for one process at any time."""
        return f'{host_tag(self.host)}-{self.pid}-{self.start}'


def host_tag(host: str) -> str:
    """Eight hexadecimal digits for the name of a machine."""
    return hashlib.blake2b(host.encode(), digest_size=4).hexdigest()


def _start(pid: int) -> int:
    """Ticks from the start of the machine to that of a process; 0 where there is no /proc."""
    try:
        text = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return 0
    return int(text.rpartition(')')[2].split()[19])  # the name, before it, may hold anything
