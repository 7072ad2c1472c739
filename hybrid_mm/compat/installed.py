"""Inspection of the environment without importing what is inspected.

Only the standard library is imported at the top: this must work where torch does not.
"""

import importlib
import importlib.util
import re
import sys
from importlib import metadata
from pathlib import Path

MODULES = (
    'torch',
    'torchvision',
    'numpy',
    'cv2',
    'mmengine',
    'mmcv',
    'mmdet',
    'mmseg',
    'mmpretrain',
)


def providers() -> dict[str, list[tuple[str, str]]]:
    """Distribution names and versions that provide each of :data:`MODULES`."""
    owners = metadata.packages_distributions()
    return {
        name: [(owner, metadata.version(owner)) for owner in sorted(set(owners.get(name, [])))]
        for name in MODULES
    }


def find(module: str) -> Path | None:
    """Folder of an importable top-level module, found without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def read_text(module: str, path: str) -> str:
    """Content of a file of an installed package, or '' if there is none."""
    folder = find(module)
    if folder is None or not (folder / path).is_file():
        return ''
    return (folder / path).read_text(encoding='utf-8', errors='replace')


def is_installed(distribution: str) -> bool:
    """Whether a distribution of that name is installed."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def parse_version(version: str) -> tuple[int, ...]:
    """Leading numbers of a version: '2.14.1+cu130' is (2, 14, 1)."""
    leading = re.split(r'[^\d.]', version, maxsplit=1)[0]
    return tuple(map(int, re.findall(r'\d+', leading)))


def version_of(module: str) -> tuple[int, ...]:
    """Version of an installed module, or () if it is unknown."""
    onedl = {'mmdet': 'onedl-mmdetection', 'mmseg': 'onedl-mmsegmentation'}
    original = {'mmseg': 'mmsegmentation'}
    names = (original.get(module, module), onedl.get(module, f'onedl-{module}'), f'{module}-lite')
    for name in names:
        try:
            return parse_version(metadata.version(name))
        except metadata.PackageNotFoundError:
            continue
    return ()


def import_error(module: str) -> str | None:
    """First line of the error of importing a module, or None if it works."""
    try:
        importlib.import_module(module)
    except Exception as error:
        lines = str(error).strip().splitlines() or ['']
        return f'{type(error).__name__}: {lines[0]}'
    return None


def has_gpu() -> bool:
    """Whether torch, if it was imported, sees a GPU."""
    torch = sys.modules.get('torch')
    cuda = getattr(torch, 'cuda', None)
    return cuda is not None and cuda.is_available()
