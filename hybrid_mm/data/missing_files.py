"""Files that a data set lists and that are not there, found before the first of them is read."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

from hybrid_mm.errors import printable, shorten

_LOADERS = ('LoadImageFromFile', 'LoadDeepImage', 'LoadMultichannelImage')
_REMOTE = re.compile(r'\w+://')


def missing_files(dataset: Any, entries: Sequence[Any]) -> tuple[int, str]:
    """Look for the images and label maps that the pipeline of a data set loads.

    Folders are listed, files are not opened. Storage that is not local is left alone.

    Args:
        dataset: The data set.
        entries: Its samples, before they are serialized.

    Returns:
        Number of samples without image, else of those without label map, and a text about them.
    """
    files = _Files()
    for key, kind in _loaded(dataset):
        paths = [entry.get(key) for entry in entries if isinstance(entry, dict)]
        missing = [path for path in paths if isinstance(path, str) and not files.has(path)]
        if missing:
            return len(missing), (
                f'{len(missing)} of {len(entries)} {kind} do not exist: '
                f'{printable(shorten(missing, 3))}{_hint(dataset, key, missing[0], files)}'
            )
    return 0, ''


def _loaded(dataset: Any) -> list[tuple[str, str]]:
    """Keys of the paths that the pipeline reads from local files, and what they are."""
    found = []
    for step in dataset.pipeline.transforms:
        backend = (getattr(step, 'backend_args', None) or {}).get('backend', 'local')
        if backend not in ('local', 'LocalBackend') or getattr(step, 'file_client_args', None):
            continue
        bases = [base.__name__ for base in type(step).__mro__]
        loads = type(step).__name__ in _LOADERS
        if loads and not step.ignore_empty:
            found.append(('img_path', 'images'))
        elif 'LoadAnnotations' in bases and getattr(step, 'with_seg', False):
            found.append(('seg_map_path', 'label maps'))
    return found


class _Files:
    """Names of the files in folders, each of which is listed once."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = {}

    def names(self, folder: str) -> set[str]:
        """Names in a folder; none if it cannot be listed."""
        if folder not in self._names:
            try:
                self._names[folder] = set(os.listdir(folder or '.'))
            except (OSError, ValueError):
                self._names[folder] = set()
        return self._names[folder]

    def has(self, path: str) -> bool:
        """Whether there is a file, or whether it is not for us to look."""
        folder, name = os.path.split(path)
        return name in self.names(folder) or bool(_REMOTE.match(path)) or os.path.exists(path)


def _hint(dataset: Any, key: str, path: str, files: _Files) -> str:
    """What to do about a missing file: where one of a similar name is, or what was read."""
    folders = [os.path.dirname(path)]
    if isinstance(dataset.data_prefix, dict) and key == 'img_path':
        folders += [str(dataset.data_prefix.get(name) or '') for name in ('img', 'img_path')]
    likely = _alike(path, folders, files)
    hint = f'; {likely} exists' if likely else ''
    if hasattr(dataset, 'reduce_zero_label'):  # data sets of MMSegmentation
        hint += '; check img_suffix and seg_map_suffix'
        if dataset.ann_file:
            hint += f', and {dataset.ann_file}: names without suffix, one per line, no empty lines'
    elif dataset.ann_file:
        hint += f'; check the names in {dataset.ann_file}, and data_prefix'
    if '\\' in path:
        hint += '; folders in names are separated by /, not by \\'
    return hint


def _alike(path: str, folders: Iterable[str], files: _Files) -> str | None:
    """A file of the same name but for its suffix, folder, case or notation of accents."""

    def plain(name: str) -> str:
        return os.path.splitext(unicodedata.normalize('NFC', name).lower())[0]

    name = plain(re.split(r'[/\\]', path)[-1])
    for folder in filter(None, folders):
        for other in sorted(files.names(folder)):
            if name and plain(other) == name and os.path.isfile(os.path.join(folder, other)):
                return os.path.join(folder, other)
    return None
