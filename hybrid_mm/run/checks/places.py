"""What to write so that a config finds data that lie elsewhere."""

import os
import re
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from hybrid_mm.errors import shorten
from hybrid_mm.run.checks.variables import parts_of

# parts of a config that name files of data
_PARTS = ('train', 'val', 'test')
_OURS = ('hybrid_mm.SeededDataset', 'hybrid_mm.CheckedDataset')  # put around by our tools


def root_hint(cfg: Config, root: str) -> str:
    """How to name another data root: an environment variable, or all options that it takes.

    Args:
        cfg: Config of the run.
        root: ``data_root`` of a data set; '' if it has none.
    """
    for name, default in re.findall(r'\{\{\s*\$(\w+)\s*:\s*([^}]*?)\s*\}\}', cfg.text or ''):
        if default.rstrip('/') == root.rstrip('/'):
            return f'the environment variable {name}=DIR'
    return f'--cfg-options {" ".join(_options(cfg, root.rstrip("/")))}'


def _options(cfg: Config, root: str) -> Iterator[str]:
    """Options that replace a data root by DIR, in all data sets and metrics that use it."""
    moved = []
    for part in _PARTS:
        for path, node in data_sets((cfg.get(f'{part}_dataloader') or {}).get('dataset')):
            if str(node.get('data_root') or '').rstrip('/') == root:
                moved.append(f'{part}_evaluator')
                yield f'{part}_dataloader.dataset{path}.data_root=DIR'
    for key in dict.fromkeys(moved):
        for path, value in parts_of(cfg.get(key), key):
            if root and isinstance(value, str) and f'{value}/'.startswith(f'{root}/'):
                yield f'{path}={os.path.join("DIR", value[len(root) :].lstrip("/"))}'


def data_sets(node: Any, path: str = '') -> Iterator[tuple[str, dict[str, Any]]]:
    """Data sets that read files, with their paths below the outer one as the user wrote it."""
    if not isinstance(node, dict):
        return
    if 'dataset' in node:
        ours = node.get('type') in _OURS
        yield from data_sets(node['dataset'], path if ours else f'{path}.dataset')
    elif 'datasets' in node:
        for i, child in enumerate(node['datasets']):
            yield from data_sets(child, f'{path}.datasets.{i}')
    else:
        yield path, node


def found_instead(paths: list[str], root: str) -> str:
    """What is in the folders that missing files are looked for in, as far as these exist.

    Args:
        paths: Files and folders that are missing.
        root: The folder that they lie in; nothing above it is named.
    """
    folders: dict[str, str] = {}
    for path in paths:
        folder = os.path.dirname(os.path.normpath(path))
        while len(folder) > len(os.path.normpath(root)) and not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        if os.path.isdir(folder) and f'{folder}/'.startswith(f'{os.path.normpath(root)}/'):
            names = sorted(
                e.name + '/' * e.is_dir() for e in os.scandir(folder) if e.name[0] != '.'
            )
            folders[folder] = shorten(names) if names else 'nothing'
    return '; '.join(f'{folder} has {names}' for folder, names in folders.items())
