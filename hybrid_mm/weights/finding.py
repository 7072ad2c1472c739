"""Where the file of published weights is on this machine, and what to do if it is not."""

import functools
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from hybrid_mm import checkpoint_files
from hybrid_mm.checkpoint_files import (
    CheckpointError,
    DownloadError,
    Fingerprint,
    cache_folder,
    download_file,
    place_of,
)
from hybrid_mm.errors import warn
from hybrid_mm.weights.registry import SCHEME, PublishedFile, Weights, all_weights, find_weights

FOLDER = 'checkpoints'  # in the current folder
VARIABLE = 'HYBRID_MM_WEIGHTS'  # more folders, joined as in PATH
_LINE = '\n  '  # before a part of a message
_SUFFIX = re.compile(r'(\.pth)?\.[A-Za-z]+$')


class WeightsError(CheckpointError):
    """Published weights that are not on this machine and cannot be downloaded.

    Args:
        weights: What they are.
        reason: Why, and what to do, as the predicate of a sentence.
        option: Option of the config that names them, if it is known.

    Attributes:
        weights, option: As given.
    """

    def __init__(self, weights: Weights, reason: str, option: str = '') -> None:
        self.weights, self.option, self._plain = weights, option, reason
        super().__init__(SCHEME + weights.name, reason + _instead(weights, option))

    @property
    def plain(self) -> str:
        """The text without what a config may name instead."""
        return f'{SCHEME}{self.weights.name} {self._plain}'

    def at(self, option: str) -> 'WeightsError':
        """The same error, if an option such as ``model.backbone.init_cfg`` names the weights."""
        return WeightsError(self.weights, self._plain, option)


def weights_file(name: str, download: bool = True) -> tuple[Path, PublishedFile | None]:
    """Find the file of weights, or download it.

    It is looked for in the folder ``checkpoints``, in those of the environment variable
    ``HYBRID_MM_WEIGHTS``, as ``NAME.pth`` or under the name with which it is published, and among
    what was downloaded. A file under a published name has to be the one that is published, as far
    as its hash and size are known; one called NAME is taken as it is. The first of the published
    files that can be had is downloaded into torch's cache (``TORCH_HOME``), by one of the processes
    of a machine; the others wait.

    Args:
        name: Name, with or without ``hybrid_mm://``.
        download: Whether it may be downloaded.

    Returns:
        The file, and the entry of the registry that describes it; None for a file of the user's
        that is only called like the weights.

    Raises:
        UserError: There are no weights of this name.
        WeightsError: The file is not here and cannot be downloaded; says which of the three it is
            (no network, to be fetched by hand, never published), and what to do.
    """
    weights = find_weights(name)
    others: list[str] = []
    found = _of_the_user(weights, others) or _downloaded(weights)
    if not found:
        if weights.case != 'automatic' or not download:
            raise WeightsError(weights, _why(weights) + _others(others))
        found = _download(weights, others)
    for other in others:  # which an error names itself
        warn(other)
    return found


def check_available(name: str) -> None:
    """Check that weights are on this machine or can be downloaded, without doing it.

    Args:
        name: Name of the weights, with or without ``hybrid_mm://``.

    Raises:
        UserError, WeightsError: As of :func:`weights_file`.
    """
    if find_weights(name).case != 'automatic':
        weights_file(name, download=False)


def download_again(path: Path, published: PublishedFile) -> bool:
    """Replace a downloaded file that cannot be read, and of which no hash is known.

    Returns:
        Whether there is another one now.
    """
    if _known(published).decides or path not in _places(published):
        return False
    try:
        state = path.stat()
        download_file(
            published.urls, path, _known(published), checkpoint_files.what_is_wrong, damaged=state
        )
    except (DownloadError, OSError):
        return False
    return True


def _known(published: PublishedFile) -> Fingerprint:
    return Fingerprint(published.sha256, published.md5, published.size)


def _folders() -> Iterator[Path]:
    yield Path(FOLDER)
    for folder in os.environ.get(VARIABLE, '').split(os.pathsep):
        if folder:
            path = Path(os.path.expanduser(folder))
            if not os.path.isdir(path):
                _warn_once(f'{VARIABLE} names {path}, which is not a folder')
            yield path


@functools.cache
def _warn_once(text: str) -> None:
    warn(text)


def _of_the_user(weights: Weights, others: list[str]) -> tuple[Path, PublishedFile | None] | None:
    """A file that a person put there; what has a published name and is another goes to a list."""
    suffixes = ('.pth', '.safetensors', *(_suffix(file.name) for file in weights.files))
    for folder in _folders():
        for suffix in dict.fromkeys(suffixes):
            path = folder / f'{weights.name}{suffix}'
            if os.path.isfile(path):
                return path, _same(weights, path)
            if os.path.lexists(path):
                target = (
                    f'a link to {os.readlink(path)}, which' if path.is_symlink() else 'there, but'
                )
                others.append(f'{path} is {target} is no file')
        for published in weights.files:
            known, path = _known(published), folder / published.name
            if not published.name or not os.path.isfile(path):
                continue
            if not _tells(published):
                others.append(
                    f'{path} may belong to other weights, too: call it {weights.name}.pth'
                )
            elif differs := known.mismatch(path):
                others.append(f'{path} is not the published file: {differs}')
            else:
                return path, published
    return None


def _same(weights: Weights, path: Path) -> PublishedFile | None:
    """Which of the published files a file is, as far as hashes tell."""
    files = (file for file in weights.files if _known(file).decides)
    return next((file for file in files if _known(file).mismatch(path) is None), None)


def _suffix(name: str) -> str:
    found = _SUFFIX.search(name)
    return found[0] if found else '.pth'


@functools.cache
def _ambiguous() -> frozenset[str]:
    """Names of files that several weights have, such as ``pytorch_model.bin``."""
    names = Counter(name for w in all_weights().values() for name in {f.name for f in w.files})
    return frozenset(name for name, count in names.items() if count > 1)


def _tells(published: PublishedFile) -> bool:
    """Whether a file of the published name can be taken for the published file."""
    return _known(published).decides or published.name not in _ambiguous()


def _places(published: PublishedFile) -> list[Path]:
    """Where a file is after it is downloaded."""
    return [place_of(url, cache_folder()) for url in published.urls]


def _downloaded(weights: Weights) -> tuple[Path, PublishedFile] | None:
    """A file that we, torch or MMEngine downloaded before."""
    for published in weights.files:
        known, places = _known(published), _places(published)
        if known.decides and published.name:
            places.append(cache_folder() / published.name)
        for path in places:
            if os.path.isfile(path) and known.mismatch(path) is None:
                return path, published
    return None


def _download(weights: Weights, others: list[str]) -> tuple[Path, PublishedFile]:
    failures: dict[str, str] = {}
    away = True
    for published in weights.files:
        if not published.urls:
            continue
        path = _places(published)[0]
        try:
            # a hash tells that it is the right file; otherwise it has to be a checkpoint at least
            check = None if _known(published).decides else checkpoint_files.what_is_wrong
            return download_file(published.urls, path, _known(published), check), published
        except DownloadError as error:
            if error.local:
                raise WeightsError(weights, f'cannot be kept: {error}') from error
            failures |= error.failures
            away = away and error.away
    if away:
        hosts = ', '.join(dict.fromkeys(urlsplit(url).netloc for url in failures))
        why = '; '.join(dict.fromkeys(failures.values()))
        what = f'no server can be reached; is this machine offline? ({hosts}: {why})'
    else:
        what = 'no address gives the file' + ''.join(
            f'{_LINE}{url}: {reason}' for url, reason in failures.items()
        )
    raise WeightsError(weights, f'cannot be downloaded: {what}{_by_hand(weights)}{_others(others)}')


def _why(weights: Weights) -> str:
    """Why weights that are not here cannot be had by themselves, and what to do."""
    if weights.case == 'automatic':
        return (
            'is not on this machine; '
            f'`python -m hybrid_mm weights get {shlex.quote(weights.name)}` downloads it'
        )
    if weights.case == 'manual':
        return 'has to be downloaded by hand' + _by_hand(weights)
    reason = f'was never published ({weights.unpublished}){_LINE}'
    if weights.case == 'ours to train':
        config = f'configs/{weights.tree}/{weights.trained_by}.py'
        reason += f'`python tools/train.py {config}` trains it; '
    else:
        reason += 'if you have such weights, '
    return reason + f'put the checkpoint at {_folder()}/{weights.name}.pth'


def _by_hand(weights: Weights) -> str:
    """Where a person finds the file, and where to put it: of the first one, or of all by hand."""
    files = [file for file in weights.files if file.urls][:1] or weights.files
    pages = [
        f'{_LINE}get {file.name or "the file"} with a browser from {file.page or file.urls[0]}'
        + (f' ({file.note})' if file.note else '')
        for file in files
    ]
    names = [file.name for file in files if file.name and _tells(file)]
    called = ' or '.join([*dict.fromkeys(names), f'{weights.name}.pth'])
    return ''.join(pages) + f'{_LINE}put it into {_folder()} or a folder of {VARIABLE}, as {called}'


def _folder() -> Path:
    try:
        return Path(FOLDER).absolute()
    except OSError:  # the current folder has been removed
        return Path(FOLDER)


def _others(others: list[str]) -> str:
    return ''.join(f'{_LINE}{other}' for other in others)


def _instead(weights: Weights, option: str) -> str:
    """What to do without the file."""
    if not weights.of_backbone:
        return ''
    option = option or 'model.backbone.init_cfg'
    return (
        f'{_LINE}--cfg-options {option}.checkpoint=FILE names another file; '
        f'--cfg-options {option}=None trains from scratch'
    )
