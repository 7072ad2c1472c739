"""Extension of Sphinx for the API reference.

Classes show their variants and the arguments of their bases, and arguments are in the index, which
the search looks at first.
"""

import dataclasses
import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any

_ENTRY = re.compile(r'    (\*{0,2}\w+)(?: \([^:]*\))?:')


def setup(app: Any) -> dict:
    """Complete docstrings of classes before napoleon reads their sections."""
    app.connect('builder-inited', load)
    app.connect('autodoc-process-docstring', complete, priority=400)
    app.connect('autodoc-skip-member', is_noise)
    return {'parallel_read_safe': True}


def load(app: Any) -> None:
    """Load the public names of modules that import them only when they are asked for."""
    for page in sorted((Path(app.srcdir) / 'api').glob('*.md')):
        for name in re.findall(r'^\.\. automodule:: (\S+)', page.read_text(), re.MULTILINE):
            module = import_module(name)
            for public in getattr(module, '__all__', ()):
                setattr(module, public, getattr(module, public))


def is_noise(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what the variants show in a better way."""
    return True if name in ('arch_class', 'arch_zoo', 'arch_aliases', 'other_names') else None


def complete(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Complete a docstring: its arguments in the index, those of the bases, variants."""
    if what == 'function' or inspect.isclass(obj):
        names = [name.lstrip('*') for name in entries('\n'.join(lines))]
        index = ['.. index::', *(f'   single: {name}' for name in names), ''] if names else []
    if what == 'function':
        lines[:0] = index
    if not inspect.isclass(obj):
        return
    lines[:] = [*index, *with_inherited(obj, lines)]
    if getattr(obj, 'arch_zoo', None):
        lines += ['', *variants(obj)]
    elif dataclasses.is_dataclass(obj) and any(fields_of(obj).values()):
        lines += ['', *(f'* ``{n}``: {text}' for n, text in fields_of(obj).items() if text)]


def entries(doc: str) -> dict[str, list[str]]:
    """Lines of the section Args by argument."""
    found: dict[str, list[str]] = {}
    section = re.search(r'^Args:\n((?: {4}.*\n|\n(?= {4}))*)', f'{doc}\n', re.MULTILINE)
    for line in section[1].splitlines() if section else ():
        start = _ENTRY.match(line)
        if start:
            found[start[1]] = [line]
        elif found:
            found[next(reversed(found))].append(line)
    return found


def with_inherited(cls: type, lines: list[str]) -> list[str]:
    """Lines of a docstring whose entry of ``**kwargs`` the arguments of the bases follow."""
    own = entries('\n'.join(lines))
    if '**kwargs' not in own or '__init__' not in vars(cls):
        return lines
    found: dict[str, list[str]] = {}
    for base in cls.__mro__[1:]:
        if base.__module__.startswith('hybrid_mm') and '__init__' in vars(base):
            of_base = entries(inspect.cleandoc(base.__doc__ or ''))
            taken = inspect.signature(base.__init__).parameters
            for name, text in of_base.items():
                if name not in own and not name.startswith('*'):
                    default = taken[name].default if name in taken else inspect.Parameter.empty
                    if default is not inspect.Parameter.empty:
                        text = [*text[:-1], f'{text[-1]} Default: ``{default!r}``.']
                    found.setdefault(name, text)
            if '**kwargs' not in of_base:
                break
    last = own['**kwargs'][-1]
    place = len(lines) - 1 - lines[::-1].index(last)
    inherited = [line for text in found.values() for line in text]
    return [*lines[: place + 1], *inherited, *lines[place + 1 :]]


def fields_of(cls: type) -> dict[str, str]:
    """Fields of a variant and the comments behind or above them."""
    comments: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        above: list[str] = []
        for line in inspect.getsource(base).splitlines():
            field = re.match(r'    (\w+): [^#]*?(?:  # (.*))?$', line)
            comment = re.match(r'    # (.*)', line)
            if field:
                comments[field[1]] = ' '.join([*above, *filter(None, [field[2]])])
            above = [*above, comment[1]] if comment else []
    return {field.name: comments.get(field.name, '') for field in dataclasses.fields(cls)}


def variants(cls: Any) -> list[str]:
    """Lists of the variants of a network, by what differs from the defaults, and of fields."""
    aliases: dict[str, list[str]] = {}
    for alias, name in cls.arch_aliases.items():
        aliases.setdefault(name, []).append(f'``{alias!r}``')
    lines = ['**Variants**, the values of ``arch``:', '']
    for name in cls.arch_zoo:
        also = f' (also {", ".join(aliases[name])})' if name in aliases else ''
        lines.append(f'* ``{name!r}``{also}: ``{settings(cls.resolve_arch(name))}``')
    lines += ['', f'**Fields** of ``{cls.arch_class.__name__}``, for a dict as ``arch``:', '']
    texts = fields_of(cls.arch_class)
    for field in dataclasses.fields(cls.arch_class):
        text = texts[field.name]
        default = field.default is not dataclasses.MISSING
        lines.append(
            f'* ``{field.name}``'
            + (f': {text}' if text else '')
            + (f' (default ``{settings(field.default)}``)' if default else '')
        )
    return lines


def settings(value: Any) -> str:
    """Fields of a variant that are not at their defaults; any other value as it is written."""
    if not dataclasses.is_dataclass(value):
        return repr(value)
    given = (
        f'{field.name}={settings(getattr(value, field.name))}'
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != field.default
    )
    return f'dict({", ".join(given)})'
