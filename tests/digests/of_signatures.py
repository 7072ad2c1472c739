"""Digests of what users give: arguments with their defaults, options of the tools.

One digest per package of ``hybrid_mm``, one of the registries, and one of the tools. Objects are
listed under their own names, wherever in the package they are.
"""

import argparse
import contextlib
import dataclasses
import importlib
import inspect
import pkgutil
import runpy
import sys
from functools import partial
from pathlib import Path
from types import ModuleType
from unittest import mock

from mmengine.registry import Registry

import hybrid_mm
from hybrid_mm import registry

from .stored import Digest, Section

ROOT = Path(__file__).resolve().parents[2]
LONG = 400
"""Constants beyond are data."""


def names() -> list[str]:
    """All digests."""
    packages = [m.name for m in pkgutil.iter_modules(hybrid_mm.__path__) if m.ispkg]
    return [*packages, 'registered', 'tools']


def compute(name: str) -> Digest:
    """Digest of a package, the registries or the tools."""
    if name == 'registered':
        return registered()
    if name == 'tools':
        return tools()
    found: Digest = {'classes': {}, 'functions': {}, 'constants': {}}
    for module in _modules(name):
        for key, value in vars(module).items():
            if key.startswith('_'):
                continue
            if getattr(value, '__module__', None) == module.__name__:
                if inspect.isclass(value):
                    _note(found['classes'], _class(value))
                elif inspect.isroutine(value):
                    _note(found['functions'], {key: signature(value)})
            elif key.isupper() and (text := show(value)) and len(text) <= LONG:
                _note(found['constants'], {key: text})
    return {key: section for key, section in found.items() if section}


def _modules(package: str) -> list[ModuleType]:
    root = importlib.import_module(f'hybrid_mm.{package}')
    below = pkgutil.walk_packages(root.__path__, f'{root.__name__}.')
    return [root, *(importlib.import_module(m.name) for m in below)]


def _note(section: Section, lines: Section) -> None:
    """Add lines; those of things with one name stand together."""
    for key, text in lines.items():
        texts = {*section.get(key, text).split(' | '), text}
        section[key] = ' | '.join(sorted(texts))


def _class(cls: type) -> Section:
    """Arguments of a class and of methods with defaults, and its settings."""
    lines = {cls.__name__: signature(cls)}
    for key, value in vars(cls).items():
        if key.startswith('_') or isinstance(value, property):
            continue
        value = getattr(value, '__func__', value)  # of a class method
        if inspect.isfunction(value):
            if '=' in signature(value):
                lines[f'{cls.__name__}.{key}'] = signature(value)
        elif (text := show(value)) and len(text) <= LONG:
            lines[f'{cls.__name__}.{key}'] = f'= {text}'
    return lines


def signature(function) -> str:
    """Names of arguments, with their defaults."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:
        return '(unknown)'
    texts, star = [], False
    for p in parameters:
        star |= p.kind == p.VAR_POSITIONAL
        if p.kind == p.KEYWORD_ONLY and not star:
            texts.append('*')
            star = True
        prefix = {p.VAR_POSITIONAL: '*', p.VAR_KEYWORD: '**'}.get(p.kind, '')
        default = '' if p.default is p.empty else f'={show(p.default) or type(p.default).__name__}'
        texts.append(f'{prefix}{p.name}{default}')
    return f'({", ".join(texts)})'


def show(value) -> str | None:
    """Text of a simple value or a collection of them; functions and classes by name."""
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value).replace(str(ROOT), 'ROOT')
    if isinstance(value, Path):
        return f'<{value}>'.replace(str(ROOT), 'ROOT')
    if isinstance(value, dict):
        items = {show(k): show(v) for k, v in value.items()}
        texts = [f'{k}: {v}' for k, v in items.items()]
        return None if None in (*items, *items.values()) else f'{{{", ".join(texts)}}}'
    if isinstance(value, list | tuple | set | frozenset):
        texts = [show(item) for item in value]
        if None in texts:
            return None
        if isinstance(value, tuple) and len(value) == 1:
            texts.append('')
        ends = '[]' if isinstance(value, list) else '()' if isinstance(value, tuple) else '{}'
        return ends[0] + ', '.join(sorted(texts) if ends == '{}' else texts) + ends[1]
    if isinstance(value, partial):
        settings = ''.join(f' {k}={show(v)}' for k, v in value.keywords.items())
        return f'<{value.func.__name__}{settings}>'
    if (inspect.isroutine(value) or inspect.isclass(value)) and hasattr(value, '__name__'):
        return f'<{value.__name__}>'
    if dataclasses.is_dataclass(value):
        fields = [f'{f.name}={show(getattr(value, f.name))}' for f in dataclasses.fields(value)]
        return f'{type(value).__name__}({", ".join(fields)})'
    return None


def registered() -> Digest:
    """Names that configs may use, with what they stand for."""
    _modules('analysis')  # registers networks of its own, which no registry imports
    found = {}
    for name, value in vars(registry).items():
        if isinstance(value, Registry):
            value.import_from_location()
            ours = {k: v for k, v in value.module_dict.items() if 'hybrid_mm' in v.__module__}
            found[name] = {key: ours[key].__name__ for key in sorted(ours)}
    return found


# -- tools ---------------------------------------------------------------------------------------


class Caught(BaseException):
    """Ends a tool when it reads its arguments."""


def tools() -> Digest:
    """Options of every tool."""
    paths = [*sorted(ROOT.glob('tools/*.py')), *sorted(ROOT.glob('tools/analysis/*.py'))]
    found = {}
    for path in paths:
        for name, parser in _parsers(path).items():
            found[f'{path.relative_to(ROOT)}{name}'] = _options(parser)
    return found


def _parsers(path: Path) -> dict[str, argparse.ArgumentParser]:
    """Parser of a tool, and those of its subcommands."""
    caught = []

    def parse(self, *args, **kwargs):
        caught.append(self)
        raise Caught

    with (
        mock.patch.object(sys, 'argv', [str(path)]),
        mock.patch.object(sys, 'path', [str(path.parent), *sys.path]),
        mock.patch.object(argparse.ArgumentParser, 'parse_args', parse),
        mock.patch.object(argparse.ArgumentParser, 'parse_known_args', parse),
        contextlib.suppress(Caught),
    ):
        runpy.run_path(str(path), run_name='__main__')
    if not caught:
        return {}  # a part of a tool, such as setup_wheels.py
    (parser,) = caught
    found = {'': parser}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found |= {f' {name}': sub for name, sub in action.choices.items()}
    return found


def _options(parser: argparse.ArgumentParser) -> Section:
    lines = {}
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        name = ' '.join(action.option_strings) or action.dest
        if isinstance(action, argparse._StoreTrueAction):
            lines[name] = 'a switch'
            continue
        texts = [f'default {show(action.default)}']
        if isinstance(action, argparse._SubParsersAction):
            texts = [f'one of {", ".join(action.choices)}']
        elif action.choices is not None:
            texts.append(f'one of {show(list(action.choices))}')
        if action.nargs is not None:
            texts.append(f'nargs {action.nargs}')
        if action.const is not None:
            texts.append(f'const {show(action.const)}')
        if action.type is not None:
            texts.append(f'type {getattr(action.type, "__name__", action.type)}')
        if action.required:
            texts.append('required')
        lines[name] = ', '.join(texts)
    return lines
