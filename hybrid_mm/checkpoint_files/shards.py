"""Weights in several files with an index, as Hugging Face publishes large ones."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_MOST = 1 << 26  # bytes of an index


def files_of_index(path: str | os.PathLike[str]) -> dict[str, list[str]] | None:
    """Names of files with the names of their tensors, or None if the file is no index.

    Raises:
        ValueError: An index names a file that is not beside it.
    """
    with open(path, 'rb') as file:
        head = file.read(512)
        if not head.lstrip().startswith(b'{') or os.path.getsize(path) > _MOST:
            return None
        text = head + file.read()
    if b'"weight_map"' not in text:
        return None
    try:
        names = json.loads(text)['weight_map']
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(names, dict) or not all(isinstance(v, str) and v for v in names.values()):
        return None
    files: dict[str, list[str]] = {}
    for key, name in names.items():
        if Path(name).name != name or '\\' in name or name == '..':
            raise ValueError(f'its index names {name!r}; expected files of the same folder')
        files.setdefault(name, []).append(key)
    return files


def read_shards(path: str, files: dict[str, list[str]], load: Callable[[str], Any]) -> dict:
    """Read all files of an index.

    Args:
        path: The index.
        files: What :func:`files_of_index` gave.
        load: Reads one file.

    Raises:
        ValueError: A file lacks a tensor.
    """
    state: dict[str, Any] = {}
    for name, keys in files.items():
        part = load(os.path.join(os.path.dirname(path), name))
        lacking = [key for key in keys if not isinstance(part, dict) or key not in part]
        if lacking:
            raise ValueError(f'{name} lacks {", ".join(lacking[:3])}, which its index names')
        state |= {key: part[key] for key in keys}
    return state
