"""What is public, from the sources: the names in ``__all__`` of modules and their descriptions."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

from .blocks import ROOT

PACKAGE = ROOT / 'hybrid_mm'
Node = ast.FunctionDef | ast.ClassDef


def place(module: str) -> Path:
    """File of a module."""
    path = ROOT / module.replace('.', '/')
    return path / '__init__.py' if path.is_dir() else path.with_suffix('.py')


@functools.cache
def tree(module: str) -> ast.Module:
    """Syntax tree of a module."""
    return ast.parse(place(module).read_text())


@functools.cache
def public_names(module: str) -> tuple[str, ...]:
    """``__all__`` of a module; empty if it has none."""
    for node in tree(module).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__':
            return tuple(ast.literal_eval(node.value))
    return ()


@functools.cache
def public_modules() -> tuple[str, ...]:
    """Modules with public names, but for the package itself."""
    names = []
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(ROOT).with_suffix('').parts
        if path.stem == '__init__':
            parts = parts[:-1]
        if len(parts) > 1 and '__all__' in path.read_text() and '.mim' not in parts:
            names.append('.'.join(parts))
    return tuple(name for name in names if public_names(name))


def definition(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """Where a name of a module of ours is defined, through imports, and its node."""
    nodes = list(tree(module).body)
    for node in tree(module).body:  # of modules whose names are imported when they are asked for
        if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING':
            nodes += node.body
    for node in nodes:
        if isinstance(node, Node) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom) and (node.module or '').startswith('hybrid_mm'):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return definition(node.module, alias.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, 'target', None)]
        if any(getattr(target, 'id', '') == name for target in targets):
            return module, node
    return None


def described(doc: str) -> set[str]:
    """Names that the sections Args and Attributes of a docstring describe."""
    found: set[str] = set()
    for section in re.findall(r'^(?:Args|Attributes):\n((?: +.*\n|\n)*)', f'{doc}\n', re.MULTILINE):
        for names in re.findall(
            r'^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^:]*\))?:', section, re.MULTILINE
        ):
            found.update(name.strip(' *') for name in names.split(','))
    return found


def parameters(function: ast.FunctionDef) -> list[str]:
    """Names of the arguments of a function, without asterisks."""
    args = function.args
    names = [arg.arg for arg in (*args.posonlyargs, *args.args)]
    names += [f'*{args.vararg.arg}'] if args.vararg else []
    names += [arg.arg for arg in args.kwonlyargs]
    names += [f'**{args.kwarg.arg}'] if args.kwarg else []
    return [name.lstrip('*') for name in names if name not in ('self', 'cls')]


def undescribed(module: str, node: Node) -> Iterator[str]:
    """Arguments of a function or constructor of which the docstring says nothing.

    Fields of dataclasses and named tuples may have a comment behind them instead.
    """
    doc = ast.get_docstring(node) or ''
    if isinstance(node, ast.FunctionDef):
        yield from (name for name in parameters(node) if name not in described(doc))
        return
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and method.name == '__init__':
            known = described(doc) | described(ast.get_docstring(method) or '')
            yield from (name for name in parameters(method) if name not in known)
            return
    if any('dataclass' in ast.unparse(d) for d in node.decorator_list) or any(
        ast.unparse(base) in ('NamedTuple', 'Protocol') for base in node.bases
    ):
        lines = place(module).read_text().splitlines()
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and 'ClassVar' not in ast.unparse(field.annotation):
                name = field.target.id
                if name not in described(doc) and '  # ' not in lines[field.lineno - 1]:
                    yield name


def undocumented() -> list[str]:
    """Public names without a docstring, and arguments without a description."""
    found, seen = [], set()
    for module in public_modules():
        for name in public_names(module):
            place_and_node = definition(module, name)
            if place_and_node is None:
                found.append(f'{module}.{name} is in __all__, but not in the module')
                continue
            origin, node = place_and_node
            if (origin, name) in seen or not isinstance(node, Node):
                continue
            seen.add((origin, name))
            if not ast.get_docstring(node):
                found.append(f'{origin}.{name} has no docstring')
            missing = list(undescribed(origin, node))
            if missing:
                found.append(f'{origin}.{name}: {", ".join(missing)}')
    return found


def registered() -> dict[str, str]:
    """Classes that register themselves by name, and their modules."""
    found = {}
    for path in sorted(PACKAGE.rglob('*.py')):
        if 'register_module' not in path.read_text() or '.mim' in path.parts:
            continue
        module = '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
        for node in tree(module).body:
            if isinstance(node, Node) and any(
                'register_module' in ast.unparse(d) for d in node.decorator_list
            ):
                found[node.name] = module
    return found


def pages() -> dict[str, list[str]]:
    """Modules that each page of the reference shows."""
    return {
        page.stem: re.findall(r'^\.\. automodule:: (\S+)', page.read_text(), re.MULTILINE)
        for page in sorted((ROOT / 'docs/api').glob('*.md'))
    }
