"""Variables of configs, which are used while a config is read, and change nothing later."""

import ast
import importlib.util
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config

_BASE = re.compile(r'\{\{\s*_base_\.(\w+)[^}]*\}\}')


class Use(NamedTuple):
    """A place in a config to which a variable goes.

    Attributes:
        path: Dotted path of the place.
        exact: Whether it has the value of the variable, not one that is computed from it.
    """

    path: str
    exact: bool


def uses_of(cfg: Config, name: str, kept: Collection[str]) -> list[Use]:
    """Where the value of a variable went while a config and its bases were read.

    Args:
        cfg: The config, unchanged since.
        name: A variable at its top level.
        kept: Keys at the top level that are read later on, by the runner and the tools.
    """
    graph: dict[str, list[Use]] = {}
    for text in (*_files(cfg.text or ''), *_imported(cfg.filename, set())):
        for target, use in _assignments(text):
            graph.setdefault(target, []).append(use)
    value = cfg.get(name)
    found: dict[str, Use] = {}
    for use in _reached(graph, name, kept, {name}):
        there, now = _value(cfg._cfg_dict, use.path)
        if there and (not use.exact or _same(now, value)):
            found.setdefault(use.path, use)
    if not found:  # perhaps by a way that assignments do not show
        for key in kept:
            for path, now in parts_of(cfg.get(key), key):
                if path.rpartition('.')[2] == name and _same(now, value):
                    found[path] = Use(path, True)
    return sorted(found.values(), key=lambda use: not use.exact)


def value_at(cfg: Config, path: str) -> Any:
    """Value at a dotted path of a config, or None."""
    return _value(cfg._cfg_dict, path)[1]


def environment_variable(cfg: Config, name: str) -> str | None:
    """Environment variable from which a variable of a config gets its value, or None."""
    found = re.search(rf'^{name}\s*=\s*[\'"]\{{\{{\s*\$(\w+)', cfg.text or '', re.MULTILINE)
    return found and found[1]


def _files(text: str) -> Iterator[str]:
    """The files in the text of a config: each begins with a line that is its path."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.endswith('.py') and os.path.isfile(line):
            yield '\n'.join(lines)
            lines = []
        else:
            lines.append(line)
    yield '\n'.join(lines)


def _imported(file: str | None, seen: set[str]) -> Iterator[str]:
    """The files that a pure Python config imports as its bases, which are not in its text."""
    if file is None or file in seen or not os.path.isfile(file):
        return
    seen.add(file)
    text = Path(file).read_text(encoding='utf-8')
    for node in ast.walk(_parsed(text)):
        if not isinstance(node, ast.With) or 'read_base' not in ast.dump(node.items[0]):
            continue
        for inner in node.body:
            base = _base_file(file, inner) if isinstance(inner, ast.ImportFrom) else None
            if base is not None and os.path.isfile(base):
                yield Path(base).read_text(encoding='utf-8')
                yield from _imported(base, seen)


def _base_file(file: str, node: ast.ImportFrom) -> str | None:
    """File that an import in a pure Python config reads."""
    module = node.module or ''
    if node.level:
        folder = Path(file).parents[node.level - 1]
        return str(folder.joinpath(*module.split('.')).with_suffix('.py'))
    found = importlib.util.find_spec(module.partition('.')[0])
    if found is None or found.origin is None:
        return None
    return str(Path(found.origin).parent.joinpath(*module.split('.')[1:]).with_suffix('.py'))


def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except SyntaxError:  # of a template, which MMEngine fills in before
        return ast.Module(body=[], type_ignores=[])


def _assignments(text: str) -> Iterator[tuple[str, Use]]:
    """Every use of a name in an assignment or an update: the name, and where it goes."""
    for node in ast.walk(_parsed(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield from _updates(node.value)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.asname:
                    yield alias.name, Use(alias.asname, True)
        if not isinstance(node, ast.Assign | ast.AugAssign):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            path = _target(target)
            if path:
                exact = not isinstance(node, ast.AugAssign)
                yield from _names(node.value, path, exact)


def _updates(call: ast.Call) -> Iterator[tuple[str, Use]]:
    """Every use of a name in ``a['b'].update(c=name)``, ``a.append(name)`` and the like."""
    path = _target(call.func.value) if isinstance(call.func, ast.Attribute) else None
    if path is None or not isinstance(call.func, ast.Attribute):
        return
    known = call.func.attr == 'update'
    for value in call.args:
        yield from _names(value, path, known)
    for item in call.keywords:
        yield from _names(item.value, f'{path}.{item.arg}' if known else path, known)


def _target(node: ast.expr) -> str | None:
    """Dotted path of ``a``, ``a['b'][0]`` or ``a.b``; None for other targets."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        inner, key = _target(node.value), node.attr
    elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        inner, key = _target(node.value), str(node.slice.value)
    else:
        return None
    return f'{inner}.{key}' if inner else None


def _names(node: ast.expr, path: str, exact: bool = True) -> Iterator[tuple[str, Use]]:
    """Every use of a name in an expression that is assigned to a path."""
    if isinstance(node, ast.Name):
        yield node.id, Use(path, exact)
    elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        of_base = node.value.id == '_base_'
        yield (node.attr if of_base else node.value.id), Use(path, exact and of_base)
    elif isinstance(node, ast.Set) and len(node.elts) == 1:  # {{_base_.name}}
        yield from _names(node.elts[0], path, exact)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        for name in _BASE.findall(node.value):
            whole = node.value.strip().replace(' ', '') == f'{{{{_base_.{name}}}}}'
            yield name, Use(path, exact and whole)
    elif isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict' and not node.args:
        for item in node.keywords:
            yield from _names(item.value, f'{path}.{item.arg}' if item.arg else path, exact)
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            inner = f'{path}.{key.value!s}' if isinstance(key, ast.Constant) else path
            yield from _names(value, inner, exact)
    elif isinstance(node, ast.List | ast.Tuple):
        for i, value in enumerate(node.elts):
            yield from _names(value, f'{path}.{i}', exact)
    else:  # computed from what is in it
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                yield from _names(child, path, False)
            elif isinstance(child, ast.keyword):
                yield from _names(child.value, path, False)


def _reached(
    graph: Mapping[str, list[Use]], name: str, kept: Collection[str], seen: set[str]
) -> Iterator[Use]:
    """Places below the kept keys that a variable reaches, through other variables as well."""
    for use in graph.get(name, ()):
        root, _, rest = use.path.partition('.')
        if root in kept:
            yield use
        if root not in seen:  # also on from kept ones, as in test_dataloader = val_dataloader
            for further in _reached(graph, root, kept, seen | {root}):
                path = f'{further.path}.{rest}' if rest else further.path
                yield Use(path, use.exact and further.exact)


def _value(node: Any, path: str) -> tuple[bool, Any]:
    """Whether a config has a path, and its value."""
    for part in path.split('.'):
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list | tuple) and part.isdigit() and int(part) < len(node):
            node = node[int(part)]
        else:
            return False, None
    return True, node


def _same(a: Any, b: Any) -> bool:
    """Whether two values are the same, dicts but for what was merged into them."""
    if isinstance(a, dict) and isinstance(b, dict):
        return any(a.get(key) == b[key] for key in b) or not b
    return type(a) is type(b) and a == b


def parts_of(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """A part of a config and every value in it, dicts and lists as well, with their paths."""
    yield path, node
    if isinstance(node, dict):
        for key, value in node.items():
            yield from parts_of(value, f'{path}.{key}')
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from parts_of(value, f'{path}.{i}')
