"""The one downloader: a file from the first of several addresses that gives it, whole or not.

What is downloaded lies beside its place under a hidden name that ends in ``.part`` until its size
and its checksum have been compared; then it is renamed. A download that broke off goes on where it
stopped, also in a later process, if the server can tell that the file is the same or a checksum
decides in the end. Of several processes one downloads (see :mod:`.turns`).

Proxies are those of the environment (``http_proxy``, ``https_proxy``, ``no_proxy``).
"""

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybrid_mm.checkpoint_files.connections import (
    DiskError,
    FailedError,
    connection,
    decoded,
    on_disk,
    web_page,
)
from hybrid_mm.checkpoint_files.file_state import identity
from hybrid_mm.checkpoint_files.turns import give_way, in_turn
from hybrid_mm.errors import UserError

PAUSES = (0.5, 2.0, 5.0)  # seconds before new tries of a download that broke off
_NO_SPACE = (errno.ENOSPC, errno.EFBIG, getattr(errno, 'EDQUOT', errno.ENOSPC))
_EVERY = 60.0  # seconds between lines on how far a download is, where there is no progress bar
_BLOCK = 1 << 18
_HASH = re.compile(r'-([a-f0-9]{8,})\.')  # in the name of a published file
_NAME_LIMIT = 160  # characters of a file's name; with what we add, file systems allow 255


@dataclass(frozen=True)
class Fingerprint:
    """What is known of the content of a file before it is there.

    Attributes:
        sha256: Hexadecimal digits, all or the first ones; empty if unknown.
        md5: The same of MD5.
        size: In bytes.
    """

    sha256: str = ''
    md5: str = ''
    size: int | None = None

    @property
    def decides(self) -> bool:
        """Whether it can tell the file from any other."""
        return bool(self.sha256 or self.md5)

    def mismatch(self, path: str | os.PathLike[str]) -> str | None:
        """What differs in a file, as a phrase such as 'its sha256 is ...'; None if nothing does.

        A file is read once in a process, unless it changes.
        """
        try:
            state = (self, *identity(os.stat(path)))
            if state not in _intact:
                if differs := self._mismatch(path):
                    return differs
                _intact.add(state)
        except OSError as error:
            return f'it cannot be read ({error.strerror})'
        return None

    def _mismatch(self, path: str | os.PathLike[str]) -> str | None:
        size = os.path.getsize(path)
        if self.size is not None and size != self.size:
            return f'it has {size} bytes, expected {self.size}'
        for name, digits in (('sha256', self.sha256), ('md5', self.md5)):
            if not digits:
                continue
            found = _digest(path, name)
            if not found.startswith(digits.lower()):
                return f'its {name} is {found[: max(len(digits), 16)]}, expected {digits.lower()}'
        return None


_intact: set[tuple[object, ...]] = set()  # files that have been compared


def _digest(path: str | os.PathLike[str], name: str) -> str:
    digest = hashlib.new(name, usedforsecurity=name != 'md5')
    with open(path, 'rb') as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class DownloadError(UserError):
    """A file that cannot be had from any of its addresses, or cannot be kept.

    Attributes:
        reason: Why, without the address if there is but one.
        away: Whether no server could be reached, as without a network.
        local: Whether the folder is the cause, and not a server.
        failures: Reason of every address.
    """

    def __init__(
        self,
        reason: str,
        away: bool = False,
        local: bool = False,
        failures: Mapping[str, str] | None = None,
    ) -> None:
        self.reason, self.away, self.local = reason, away, local
        self.failures = dict(failures or {})

    def __str__(self) -> str:
        return self.reason


def cache_folder() -> Path:
    """Folder of torch, MMEngine and this package for downloaded checkpoints (``TORCH_HOME``)."""
    hub = sys.modules.get('torch.hub')
    if hub is not None:  # a program can name another
        return Path(hub.get_dir()) / 'checkpoints'
    caches = os.environ.get('XDG_CACHE_HOME', '~/.cache')
    home = os.environ.get('TORCH_HOME', os.path.join(caches, 'torch'))
    return Path(os.path.expanduser(home), 'hub', 'checkpoints')


def hash_in_name(name: str) -> str:
    """First digits of the SHA-256 of a file, from a name such as ``net-0123abcd.pth``, or ''."""
    found = _HASH.search(name)
    return found[1] if found else ''


def place_of(url: str, folder: Path) -> Path:
    """Place of a downloaded file in a cache.

    A name with a hash says what is in the file: it is called so where torch and MMEngine look for
    it. Other names say nothing, and every address has a folder of its own.

    Args:
        url: Address of the file.
        folder: Folder of the cache.
    """
    name = os.path.basename(url.partition('?')[0])[-_NAME_LIMIT:] or 'weights.pth'
    if hash_in_name(name):
        return folder / name
    return folder / hashlib.sha256(url.encode()).hexdigest()[:16] / name


def download_file(
    addresses: Sequence[str],
    path: Path,
    known: Fingerprint = Fingerprint(),
    check: Callable[[Path], str | None] | None = None,
    damaged: os.stat_result | None = None,
) -> Path:
    """Have a file at a place: it is there, another process downloads it, or this one does.

    Args:
        addresses: Of one and the same file, the preferred one first.
        path: Where the file shall be; folders are made.
        known: What is known of its content. A file at the place that differs is replaced.
        check: Says of a downloaded file what is wrong with it, if something is.
        damaged: State of a file at the place that does not count, though nothing is known of it.

    Returns:
        ``path``.

    Raises:
        DownloadError: No address gives the file, or it cannot be written.
    """
    differs = _difference(path, known, damaged)
    if differs is None:
        return path
    lock = path.with_name(f'.{path.name}.lock')
    there = ''
    if os.path.exists(path):
        there = f'; {path} is there, but damaged: {differs}'
        print(f'warning: {path} is damaged ({differs}) and replaced', file=sys.stderr)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not there:
            give_way(lock, path)
        while _difference(path, known, damaged) is not None:
            with in_turn(lock) as turn:
                if turn.failure:
                    raise DownloadError(**turn.failure)
                if not turn.ours or _difference(path, known, damaged) is None:
                    continue
                try:
                    _download(addresses, path, _Part.of(path, turn.locked), known, check)
                except DownloadError as error:
                    error.reason += there
                    turn.leave(vars(error))
                    raise
                break
    except OSError as error:
        raise _cannot_keep(path, error) from error
    return path


def _difference(path: Path, known: Fingerprint, damaged: os.stat_result | None) -> str | None:
    if damaged:
        with suppress(OSError):
            if identity(os.stat(path)) == identity(damaged):
                return 'it cannot be read'
    return known.mismatch(path)


class _Part:
    """The beginning of a file, and a note beside it on where it comes from."""

    def __init__(self, path: Path) -> None:
        self.path, self.note = path, path.with_name(path.name + '.json')
        self.resumed, self.told = False, ''

    @classmethod
    def of(cls, path: Path, locked: bool) -> '_Part':
        """That of a file; of this machine and user, for locks may not reach to others."""
        who = f'{socket.gethostname()}-{getattr(os, "getuid", int)()}'
        if not locked:
            who += f'-{os.getpid()}'
        tag = hashlib.sha256(who.encode()).hexdigest()[:8]
        return cls(path.with_name(f'.{path.name}.{tag}.part'))

    @property
    def size(self) -> int:
        try:
            return os.path.getsize(self.path)
        except OSError:
            return 0

    def origin(self) -> dict[str, Any]:
        """Address, validator and whole size of what is there; empty if it cannot be continued."""
        try:
            origin = json.loads(self.note.read_text())
            total = origin['total']
            fits = total is None or (isinstance(total, int) and self.size <= total)
            return origin if isinstance(origin['url'], str) and fits else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def begin(self, origin: dict[str, Any] | None) -> None:
        """Start anew; without an origin the part cannot be continued later."""
        self.remove()
        self.resumed = False
        if origin:
            with on_disk():
                self.note.write_text(json.dumps(origin))

    def remove(self) -> None:
        with on_disk():
            self.path.unlink(missing_ok=True)
            self.note.unlink(missing_ok=True)


def _download(
    addresses: Sequence[str],
    path: Path,
    part: _Part,
    known: Fingerprint,
    check: Callable[[Path], str | None] | None,
) -> None:
    failures: dict[str, FailedError] = {}
    for url in addresses:
        try:
            _from_address(url, part, known, check)
        except FailedError as error:
            failures[url] = error
            if not part.origin():
                part.remove()
            if len(failures) < len(addresses) and not error.away:
                print(f'warning: {url}: {error.reason}; trying another address', file=sys.stderr)
            continue
        except OSError as error:
            if error.errno in _NO_SPACE:
                part.remove()
            raise
        _put(part.path, path, known)
        return
    reasons = {url: error.reason for url, error in failures.items()}
    text = '; '.join(f'{url}: {reason}' for url, reason in reasons.items())
    if len(reasons) == 1:
        text = reasons[addresses[0]]
    away = bool(failures) and all(error.away for error in failures.values())
    raise DownloadError(text or 'it has no address', away, failures=reasons)


def _put(part: Path, path: Path, known: Fingerprint) -> None:
    """Give a whole file its name, such that it outlasts a power failure; remove other parts."""
    try:
        with open(part, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except FileNotFoundError:  # another machine, to which locks do not reach, was here before
        if _difference(path, known, None) is not None:
            raise
    with suppress(OSError):
        for rest in path.parent.iterdir():
            if re.fullmatch(rf'\.{re.escape(path.name)}\.[0-9a-f]{{8}}\.part(\.json)?', rest.name):
                rest.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _from_address(
    url: str, part: _Part, known: Fingerprint, check: Callable[[Path], str | None] | None
) -> None:
    """Make a part the whole file, in several tries if need be."""
    pauses, most, anew = iter(PAUSES), part.size, False
    while True:
        try:
            _fetch(url, part, known)
        except FailedError as error:
            if part.size > most:  # it goes on, if slowly
                most, pauses = part.size, iter(PAUSES)
            pause = next(pauses, None) if error.again else None
            if pause is None:
                raise
            time.sleep(pause)
            continue
        problem = known.mismatch(part.path) or (check(part.path) if check else None)
        if not problem:
            return
        again = part.resumed and not anew
        part.begin(None)
        if not again:
            raise FailedError(f'what it gives is not the file: {problem}')
        anew = True  # perhaps the beginning was another file's


def _fetch(url: str, part: _Part, known: Fingerprint) -> None:
    """Download what a part lacks, over one connection."""
    start, headers = part.size, {'User-Agent': 'hybrid_mm', 'Accept-Encoding': 'identity'}
    origin = part.origin()
    same = origin.get('url') == url and bool(origin.get('validator'))
    if start and (same or (origin and known.decides)):
        if start == origin['total']:
            part.resumed = True
            return
        headers['Range'] = f'bytes={start}-'
        if same:
            headers['If-Range'] = origin['validator']
    else:
        start = 0
        part.resumed = False
    try:
        with connection(url, headers) as answer:
            _receive(url, answer, part, known, start)
    except FailedError as error:
        if error.status == 416:  # the file has no such range: it is not the one of the part
            part.begin(None)
            error.again = True
        raise


def _receive(url: str, answer: Any, part: _Part, known: Fingerprint, start: int) -> None:
    """Append the body of an answer to a part."""
    headers = answer.headers
    encoding = (headers.get('Content-Encoding') or 'identity').strip().lower()
    if encoding not in ('identity', 'gzip', 'x-gzip', 'deflate'):
        raise FailedError(f'the server encodes the file ({encoding}), which was not asked for')
    total = _number(headers.get('Content-Length')) if encoding == 'identity' else None
    limited = total is not None
    blocks, begin = decoded(answer, encoding), b''
    if getattr(answer, 'status', 200) == 206 and start and encoding == 'identity':
        total = _continued(url, headers, part, start)
    else:
        start = 0
        for block in blocks:
            begin += block
            if len(begin) >= 1 << 16 or begin.lstrip()[:1] not in (b'', b'<', b'\xef'):
                break  # enough to tell a page
        if not begin and not total:
            raise FailedError('it gives an empty file')
        if page := web_page(begin, headers):
            raise FailedError(f'it gives {page}')
        if known.size is not None and total not in (None, known.size):
            raise FailedError(
                f'what it gives is not the file: {total} bytes, expected {known.size}'
            )
        part.begin(_origin(url, headers, total, known) if encoding == 'identity' else None)
    total = total if total is not None else known.size
    _check_space(part.path.parent, start, total)
    if url != part.told:
        part.told = url
        size = f' ({_bytes(total)})' if total else ''
        print(f'downloading {url}{size}', file=sys.stderr)
    position, bar, told = start, _bar(start, total), time.monotonic()
    with on_disk():
        file = open(part.path, 'ab')  # noqa: SIM115
    try:
        for block in itertools.chain([begin], blocks):
            with on_disk():
                file.write(block)
            position += len(block)
            bar.update(len(block))
            if bar.disable and time.monotonic() - told > _EVERY:
                told = time.monotonic()
                of = f' of {_bytes(total)}' if total else ''
                print(f'downloading {url}: {_bytes(position)}{of}', file=sys.stderr)
            # a server need not end the connection, nor the file
            if total is not None and position >= total + (not limited):
                break
    except DiskError as error:
        size = f'; the file has {_bytes(total)}' if total else ''
        raise DiskError(error.errno, f'{error.strerror}{size}') from error
    finally:
        bar.close()
        with on_disk():
            file.close()
    if total is not None and position > total:
        part.begin(None)
        raise FailedError(f'it gives more than the {total} bytes of the file', again=True)
    if total is not None and position < total:
        raise FailedError(f'the connection broke off after {position} of {total} bytes', True, True)


def _continued(url: str, headers: Any, part: _Part, start: int) -> int | None:
    """Whole size of a file of which the rest follows; see that it is the rest of the part."""
    first, total = _range(headers.get('Content-Range') or '')
    origin = part.origin()
    etags = {origin.get('etag'), headers.get('ETag')} - {None}
    sizes = {origin.get('total'), total} - {None}
    other = len(etags) > 1 and origin.get('url') == url
    if first != start or other or len(sizes) > 1:
        part.begin(None)
        raise FailedError('the server continues another file', again=True)
    part.resumed = True
    return total


def _origin(url: str, headers: Any, total: int | None, known: Fingerprint) -> dict[str, Any] | None:
    """What a part has to be continued by; None if it cannot be."""
    etag = headers.get('ETag')
    strong = etag if etag and not etag.startswith('W/') else None
    validator = strong or headers.get('Last-Modified')
    if not validator and not known.decides:
        return None
    return dict(url=url, etag=etag, validator=validator, total=total)


def _range(header: str) -> tuple[int | None, int | None]:
    """First byte and whole size, of ``Content-Range``."""
    found = re.fullmatch(r'\s*bytes\s+(\d+)-\d+/(\d+|\*)\s*', header)
    return (int(found[1]), _number(found[2])) if found else (None, None)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdigit() else None


def _check_space(folder: Path, start: int, total: int | None) -> None:
    """Fail at once where a file cannot fit."""
    needed = (total or 0) - start
    if needed > (free := shutil.disk_usage(folder).free):
        raise DiskError(errno.ENOSPC, f'{_bytes(needed)} are needed, {_bytes(free)} are free')


def _cannot_keep(path: Path, error: OSError) -> DownloadError:
    """What to do about a folder into which a file cannot be downloaded."""
    text = error.strerror or str(error)
    if error.errno in _NO_SPACE:
        what = f'{path.parent} has no space for {path.name} ({text}). Make space'
    else:
        what = f'{path.parent} cannot be written ({text}). Put {path.name} there'
    return DownloadError(
        f'{what}, or name another folder for downloads with the environment variable TORCH_HOME',
        local=True,
    )


def _bytes(number: float) -> str:
    for unit in ('bytes', 'kB', 'MB'):
        if number < 1000:
            return f'{number:.3g} {unit}'
        number /= 1000
    return f'{number:.3g} GB'


def _bar(start: int, total: int | None) -> Any:
    """A progress bar, where somebody watches."""
    from torch import hub  # has another one where tqdm is not installed

    return hub.tqdm(
        total=total,
        initial=start,
        disable=not sys.stderr.isatty(),
        unit='B',
        unit_scale=True,
    )
