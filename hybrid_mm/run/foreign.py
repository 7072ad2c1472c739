"""Configs of other packages, as MMDetection, and configs with such bases.

They are brought into the form of ours: paths as ``mmdet::FOLDER/FILE.py`` become files, scopes
that change nothing are taken out, and classes, as pure Python configs have them, become names.
"""

import difflib
import importlib.util
import re
from pathlib import Path
from typing import Any

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.registry import Registry
from mmengine.utils import get_object_from_string

from hybrid_mm.errors import UserError

PACKAGES = ('mmdet', 'mmseg', 'mmpretrain', 'mmpose', 'mmrotate')
_SCOPED = re.compile(r'(\w+)::(.+)')


def config_file(path: str) -> str:
    """File of a config; ``mmdet::FOLDER/FILE.py`` is one that an installed package brings along.

    Raises:
        UserError: The package is none of those with configs, or not installed, or has no such file.
    """
    scoped = _SCOPED.fullmatch(path)
    if scoped is None:
        return path
    package, name = scoped.groups()
    root = package_configs(package)
    if root is None:
        raise UserError(
            f'config {path}: expected the configs of an installed package, one of '
            f'{", ".join(f"{name}::" for name in PACKAGES)}'
        )
    for file in (root / name, root / f'{name}.py'):
        if file.is_file():
            return str(file)
    raise UserError(f'config {path}: {package} has no such config{nearest_base(package, name)}')


def package_configs(package: str) -> Path | None:
    """Folder of the configs that a package brings along; None if it is not installed."""
    found = importlib.util.find_spec(package) if package in PACKAGES else None
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / '.mim' / 'configs'


def package_of(path: str) -> str | None:
    """Package that brings a config file along; None if none of the known ones does."""
    file = Path(path).resolve()
    for package in PACKAGES:
        root = package_configs(package)
        if root is not None and file.is_relative_to(root.resolve()):
            return package
    return None


def nearest_base(package: str, name: str) -> str:
    """Hint at the configs of a package with a name like that of a missing one, or ''."""
    root = package_configs(package)
    files = {file: file.relative_to(root) for file in root.glob('**/*.py')} if root else {}
    stem = Path(name).stem
    same = [path for path in files.values() if path.stem == stem]
    if not same:
        stems = difflib.get_close_matches(stem, {p.stem for p in files.values()}, n=3)
        same = [path for close in stems for path in files.values() if path.stem == close]
    shown = ', '.join(f'{package}::{path.as_posix()}' for path in same[:3])
    return f'; did you mean {shown}?' if same else ''


def missing_base(message: str) -> str:
    """Hint for the error of a config whose base, one of a package's, does not exist; or ''."""
    found = re.search(r'(\w+)/\.mim/configs/([^"\']+\.py)', message)
    return nearest_base(*found.groups()) if found else ''


def normalize(cfg: Config) -> None:
    """Write a config in one form, in place: types as names, and no scope that changes nothing.

    Bases like ``mmdet::...`` bring a ``_scope_`` into every part that is built, pure Python configs
    classes in place of names, and what MMEngine writes of those the import paths of classes.
    """
    names: dict[int, tuple[str, str]] = {}
    _normalize(cfg._cfg_dict, cfg.get('default_scope'), names)


def _normalize(node: Any, scope: str | None, names: dict[int, tuple[str, str]]) -> None:
    if isinstance(node, list | tuple):
        for value in node:
            _normalize(value, scope, names)
    if not isinstance(node, dict):
        return
    if '_scope_' in node:
        own = node['_scope_']
        if own in (None, scope) or 'type' not in node:  # without a type nothing is built
            del node['_scope_']
        else:
            scope = own
    kind = node.get('type')
    if isinstance(kind, str) and kind.count('.') > 1:  # an import path
        kind = get_object_from_string(kind)
    name = None if isinstance(kind, str) else _name(kind, scope, names)
    if name is not None:
        node['type'] = name
    for value in node.values():
        _normalize(value, scope, names)


def _name(kind: Any, scope: str | None, names: dict[int, tuple[str, str]]) -> str | None:
    """Name under which a class is found from a scope; None if it is not registered."""
    if kind is None:
        return None
    if getattr(kind, '__module__', '') == 'mmcv.ops.nms':
        return kind.__name__  # mmcv looks them up by their names
    if id(kind) not in names:
        names.update(_registered_names(scope))
    if id(kind) not in names:
        return None
    owner, name = names[id(kind)]
    return name if owner == scope else f'{owner}.{name}'


def _registered_names(scope: str | None) -> dict[int, tuple[str, str]]:
    """Scope and name of everything that is registered, by identity.

    What is registered in MMEngine has the scope given where that finds the same class.
    """
    found: dict[int, tuple[str, str]] = {}
    for root in vars(registries).values():
        if not isinstance(root, Registry) or root.parent is not None:
            continue
        inner = root.children.get(scope or '')
        hidden = inner.module_dict if inner is not None else {}
        for name, kind in root.module_dict.items():
            owner = 'mmengine' if name in hidden else scope
            _keep(found, kind, str(owner or 'mmengine'), name)
        for child in root.children.values():
            for name, kind in child.module_dict.items():
                _keep(found, kind, child.scope, name)
    return found


def _keep(found: dict[int, tuple[str, str]], kind: Any, scope: str, name: str) -> None:
    """Note a name of a class: the first one, but for one that is the class's own."""
    own = getattr(kind, '__name__', '')
    if id(kind) not in found or (name == own and found[id(kind)][1] != own):
        found[id(kind)] = (scope, name)
