"""Loads configs as ``Config.fromfile`` does, but reads each file once: bases serve many configs."""

import copy
import functools
import os
import re
import tempfile
from pathlib import Path
from unittest import mock

from mmengine.config import Config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
EXAMPLES = ('demo', 'camvid', 'rotated')
"""Trees that belong to no paper, without metafile and ledger."""
MEMORY = '/dev/shm'
"""MMEngine writes three files for each that it reads: more than half of the time on a disk."""

_read = Config._file2dict
_results: dict[tuple, tuple[dict, str, dict]] = {}


@functools.cache
def variables() -> list[str]:
    """Names of the environment variables that files of this repository read."""
    text = ''.join(path.read_text() for path in CONFIGS.glob('_base_/**/*.py'))
    return sorted(set(re.findall(r'\{\{\s*["\']?\s*\$(\w+)', text)))


def _read_once(filename: str, *args, **kwargs) -> tuple[dict, str, dict]:
    """``Config._file2dict``, whose result must not be changed.

    MMEngine itself copies what it gets of a base: every dict and list within.
    """
    path = Path(os.path.abspath(os.path.expanduser(filename)))
    if not path.is_relative_to(CONFIGS):  # a test's own, which may change
        return _read(filename, *args, **kwargs)
    key = (path, args, *sorted(kwargs.items()), *map(os.environ.get, variables()))
    if key not in _results:
        _results[key] = _read(filename, *args, **kwargs)
    cfg, text, used = _results[key]
    return cfg, text, dict(used)


def look_at(path: Path | str) -> Config:
    """What ``Config.fromfile`` gives, to look at, not to change: its parts serve other configs."""
    folder = MEMORY if os.access(MEMORY, os.W_OK) else None
    with (
        mock.patch.object(Config, '_file2dict', staticmethod(_read_once)),
        mock.patch.object(tempfile, 'tempdir', folder or tempfile.gettempdir()),
    ):
        return Config.fromfile(path)


def fromfile(path: Path | str) -> Config:
    """What ``Config.fromfile`` gives, to do with as one likes."""
    return copy.deepcopy(look_at(path))
