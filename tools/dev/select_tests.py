"""Which tests belong to a paper, a folder, an operator or a file, found from imports and names.

    python tools/dev/select_tests.py NAME...               arguments for pytest
    python tools/dev/select_tests.py --changed [REVISION]  the same for what differs from REVISION

A NAME is a config tree (``van``), a module or its file (``local_attention``,
``hybrid_mm/layers/drop.py``), a registered class (``HorNet``), a tool (``train``), a folder or a
file of tests, or a folder of the package (``hybrid_mm/data``). ``tools/test.sh --quick`` and
``--changed`` run what is printed; ``tools/dev/mutants.py`` runs it for every planted mistake.

Nothing is listed by hand: a test belongs to the modules that it imports, to the registered classes
and tools that its text names, and to the module after which it is called; a network belongs to the
modules that it is made of; a config tree to its networks and base files. Parametrised tests of many
networks carry ``@pytest.mark.part_of('network:VAN')`` (or ``tree:``, ``slug:``), and only the items
of the parts that are concerned run (``--parts``).
"""

import argparse
import ast
import difflib
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = 'hybrid_mm'
# contracts of every network, restricted to the parts that are concerned
CONTRACTS = ('tests/backbones/test_all.py', 'tests/backbones/test_numerics.py',
             'tests/backbones/test_initial_values.py', 'tests/faults/test_adapters.py',
             'tests/golden/test_check.py')  # fmt: skip
FAR = 'far'  # stage of tests that reach a module through another one
# Rooms of what all others use. Tests of other rooms take networks from there only to have one, so
# they are no tests of them unless they import them.
GROUND = {'ops', 'layers', 'backbones', 'convert', 'plugins'}
FEW = 3  # a layer belongs to the papers of its networks if these are not more
IMPORT = re.compile(
    rf'^[ ]*(?:from ({PACKAGE}[\w.]*) import (\([^)]*\)|[^(\n]+)|import ({PACKAGE}[\w.]*))', re.M
)
MANY = 5  # networks whose whole contract runs for a file that more are made of


@dataclass
class Stage:
    """One run of pytest: files, and the parts to which marked items are restricted."""

    files: list[str]
    parts: set[str] = field(default_factory=set)
    name: str = 'near'

    def arguments(self) -> list[str]:
        """Arguments of pytest."""
        return [*self.files, *(['--parts', ','.join(sorted(self.parts))] if self.parts else [])]


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


class Sources:
    """The files of a checkout and what they take from each other.

    Args:
        root: Top folder of the checkout.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.modules = {
            '.'.join(p.relative_to(root).with_suffix('').parts).removesuffix('.__init__'): p
            for p in sorted((root / PACKAGE).rglob('*.py'))
            if '.mim' not in p.parts
        }
        self.tools = {p.stem: p for p in sorted((root / 'tools').rglob('*.py'))}
        self.tests = sorted((root / 'tests').rglob('test_*.py'))
        self.configs = sorted((root / 'configs').rglob('*.py'))
        # where the public names of the package are defined; of two equal names the last
        self.defined = {
            node.name: path
            for path in self.modules.values()
            for node in _tree(path).body
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith('_')
        }
        self.networks = {
            node.name: path
            for path in self.modules.values()
            for node in _tree(path).body
            if isinstance(node, ast.ClassDef)
            and path.parent.name in ('backbones', 'plugins')
            and any('MODELS.register_module' in ast.unparse(d) for d in node.decorator_list)
        }

    def resolve(self, module: str, name: str | None = None) -> Path | None:
        """File of ``module``, or of the module in which it finds ``name``."""
        if name is not None and f'{module}.{name}' in self.modules:
            return self.modules[f'{module}.{name}']
        path = self.modules.get(module)
        if path is None or name is None or path.name != '__init__.py':
            return path
        for node in _tree(path).body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module != module:
                for alias in node.names:
                    if name == (alias.asname or alias.name):
                        return self.resolve(node.module, alias.name)
        return path

    @functools.cache  # noqa: B019  one object per process
    def imports(self, path: Path) -> frozenset[Path]:
        """Files of the package that a file imports."""
        found = set()
        for module, names, plain in IMPORT.findall(path.read_text()):
            words = re.findall(r'(\w+)(?: as \w+)?', re.sub(r'#.*', '', names))
            found |= {self.resolve(module or plain, name) for name in words or [None]}
        return frozenset(found - {None, path})

    @functools.cache  # noqa: B019
    def mentions(self, path: Path) -> frozenset[Path]:
        """What a file imports, and the registered classes and tools that its text names."""
        text = path.read_text()
        found = set(self.imports(path))
        for name in re.findall(rf'{PACKAGE}\.([A-Z]\w+)', text):
            found |= {self.defined[name]} if name in self.defined else set()
        names = re.findall(r'tools/(?:\w+/)*(\w+)\.py', text)
        names += re.findall(r"""(?:tool|fails|load_tool|run)\(\s*f?['"](?:\w+/)*(\w+)""", text)
        found |= {self.tools[name] for name in names if name in self.tools}
        return frozenset(found)

    @functools.cache  # noqa: B019
    def closure(self, path: Path) -> frozenset[Path]:
        """A module and all that it is made of: what it imports, and so on."""
        found, new = set(), {path}
        while new:
            found |= new
            new = {made for part in new for made in self.imports(part)} - found
        return frozenset(found)

    @functools.cache  # noqa: B019
    def bases(self, config: Path) -> frozenset[Path]:
        """A config and the files that it inherits from."""
        found, new = set(), {config}
        while new:
            found |= new
            new = {base for path in new for base in self.named_configs(path)} - found
        return frozenset(found)

    @functools.cache  # noqa: B019
    def named_configs(self, config: Path) -> frozenset[Path]:
        """Config files that a config names: its bases."""
        names = re.findall(r"""['"]([\w./-]+\.py)['"]""", config.read_text())
        paths = {Path(os.path.normpath(config.parent / name)) for name in names}
        return frozenset(path for path in paths if path.is_file())

    @functools.cached_property
    def trees(self) -> dict[str, frozenset[Path]]:
        """Config files of every tree, bases included."""
        folder = self.root / 'configs'
        names = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name != '_base_')
        return {
            name: frozenset().union(*map(self.bases, sorted((folder / name).rglob('*.py'))))
            for name in names
        }

    @functools.cached_property
    def networks_of_trees(self) -> dict[str, set[str]]:
        """Registered classes that the configs of every tree name."""
        return {
            tree: {
                name
                for path in files
                for name in re.findall(rf'{PACKAGE}\.([A-Z]\w+)', path.read_text())
                if name in self.networks
            }
            for tree, files in self.trees.items()
        }

    @functools.cached_property
    def mappings(self) -> dict[str, Path]:
        """Mappings of the golden cases, by slug."""
        folder = self.root / 'tests/golden/mappings'
        return {p.stem: p for p in sorted(folder.glob('*.py')) if p.stem != '__init__'}

    @staticmethod
    def stem(path: Path) -> str:
        """Name of a module; that of a package is its folder's."""
        return path.parent.name if path.name == '__init__.py' else path.stem

    def room(self, path: Path) -> str:
        """First folder of a module of the package or of a test, '' for all other files."""
        for top in (self.root / PACKAGE, self.root / 'tests'):
            if path.is_relative_to(top):
                return path.relative_to(top).parts[0]
        return ''

    # -- what belongs together -------------------------------------------------------------------

    def files_of(self, name: str) -> set[Path]:
        """Files that a name means.

        Raises:
            ValueError: Nothing has that name; the nearest names are in the message.
        """
        path = (self.root / name).resolve()
        if path.is_file():
            return {path}
        if path.is_dir() and path != self.root:
            return {p for p in path.rglob('*.py') if '.mim' not in p.parts}
        if name in self.trees:
            folder = self.root / 'configs' / name
            used = {self.networks[network] for network in self.networks_of_trees[name]}
            made_of = frozenset().union(*map(self.closure, used)) if used else ()
            networks = set(self.networks.values())
            own = {
                path
                for path in made_of
                if self.room(path) in GROUND
                and len(used) <= MANY  # else it is a study of other papers' networks
                and sum(path in self.closure(network) for network in networks) <= FEW
            }
            return set(folder.rglob('*.py')) | used | own
        if name in self.defined:
            return {self.defined[name]}
        found = {
            p for p in [*self.modules.values(), *self.tools.values(), *self.tests] if p.stem == name
        }
        for folder in (self.root / PACKAGE).rglob(name):
            if folder.is_dir() and '.mim' not in folder.parts:
                found |= set(folder.rglob('*.py'))
        if not found:
            known = {*self.trees, *self.defined, *self.tools}
            known |= {self.stem(path) for path in self.modules.values()}
            near = difflib.get_close_matches(name, known, 3) or sorted(self.trees)
            raise ValueError(f'nothing is called {name!r}: did you mean {", ".join(near)}?')
        return found

    def parts_of_tree(self, tree: str) -> set[str]:
        """The tree itself, its networks, and the golden cases of these."""
        networks = self.networks_of_trees[tree]
        files = {self.networks[name] for name in networks}
        slugs = {part for part in self.parts_of(files) if part.startswith('slug:')}
        parts = {f'{part}:{name}' for name in networks for part in ('network', 'digest')}
        return {f'tree:{tree}', *slugs, *parts}

    def parts_of(self, changed: set[Path]) -> set[str]:
        """Parts (networks, their digests, trees, slugs, ``bases``) that are made of the files."""
        names = {n for n, p in self.networks.items() if self.closure(p) & changed}
        parts = {f'{part}:{name}' for name in names for part in ('network', 'digest')}
        parts |= {f'tree:{n}' for n, files in self.trees.items() if files & changed}
        if any('_base_' in path.parts for path in changed):
            parts.add('bases')
        for slug, path in self.mappings.items():
            used = (
                set(self.closure(path))
                | {path}
                | {part for p in self.imported_mappings(path) for part in self.closure(p) | {p}}
            )
            if used & changed or any(p.stem == slug for p in changed if p.parent.name == 'convert'):
                parts.add(f'slug:{slug}')
        return parts

    def imported_mappings(self, path: Path) -> set[Path]:
        """Other mappings that one imports, from ``mappings.NAME`` or relatively."""
        names = re.findall(r'^from (?:mappings)?\.?(\w*) import (.+)$', path.read_text(), re.M)
        words = {word for pair in names for text in pair for word in re.findall(r'\w+', text)}
        return {self.mappings[w] for w in words if w in self.mappings and w != path.stem}

    def _through_layers(self, changed: set[Path]) -> list[Path]:
        """Tests of layers that are made of a changed operator, without those of all layers."""
        operators = {path for path in changed if self.room(path) == 'ops'}
        layers = {
            path
            for path in self.modules.values()
            if self.room(path) == 'layers' and self.imports(path) & operators
        }
        return [
            test
            for test in self.tests
            if self.room(test) == 'layers' and 0 < len(self.mentions(test) & layers) <= FEW
        ]

    def _through_room(self, changed: set[Path]) -> list[Path]:
        """Tests of the rooms of modules that no test names, which reach them through others."""
        rooms = {self.room(path) for path in changed if path in self.modules.values()} - GROUND
        return [
            test
            for test in self.tests
            if self.room(test) in rooms
            and any(changed & self.closure(module) for module in self.mentions(test))
        ]

    def stages(self, changed: set[Path], parts: set[str] | None = None) -> list[Stage]:
        """Runs of pytest for changed files, the nearest tests first.

        1. ``near``: tests that are called after a file, or that import or name it; if there are
           none, those of its room that reach it.
        2. ``digests``, ``contracts`` and ``configs``: what is stored of, and holds for, the
           networks and config trees that are made of the files (or for ``parts``, if given).
        3. ``far``: tests that reach it through one other module or tool.
        """
        changed = {path.resolve() for path in changed}
        for path in [path for path in changed if path.suffix != '.py' and self.room(path)]:
            # data of the package: the modules of its room that name its folder read it
            changed |= {
                module
                for module in self.modules.values()
                if self.room(module) == self.room(path) and path.parent.name in module.read_text()
            }
        # the algorithms of an operator are tested through its public function
        ops = self.root / PACKAGE / 'ops'
        changed |= {p.parent / '__init__.py' for p in changed if p.parent.parent == ops}
        # and what a room exports through the room; all tests import the ground rooms
        rooms = {self.room(p) for p in changed if p in self.modules.values()} - GROUND
        for face in (self.root / PACKAGE / room / '__init__.py' for room in rooms):
            changed |= {face} if face.is_file() and self.imports(face) & changed else set()
        parts = self.parts_of(changed) if parts is None else parts
        ground = {path for path in changed if self.room(path) in GROUND}
        stems = {self.stem(path) for path in changed}

        def belongs(test: Path) -> bool:
            upper = self.room(test) not in GROUND | {'openmmlab', 'golden'}
            return bool(
                test in changed
                or test.stem.removeprefix('test_') in stems
                or self.mentions(test) & (changed - ground if upper else changed)
            )

        near = [test for test in self.tests if belongs(test)]
        tests = self.root / 'tests'
        folders = {
            p.parent
            for p in changed
            if p.name in ('conftest.py', '__init__.py') and p.is_relative_to(tests)
        }
        near += [test for test in self.tests if set(test.parents) & folders]
        near += self._through_layers(changed)
        near = near or self._through_room(changed)
        code = {p for p in changed if p.suffix == '.py' and not p.is_relative_to(tests)}
        stages = []
        used: set[Path] = set()

        def add(name: str, tests: Iterable[Path]) -> None:
            new = sorted({t for t in tests if t.is_file()} - used)
            used.update(new)
            if new:
                files = [str(t.relative_to(self.root)) for t in new]
                stages.append(Stage(files, parts, name))

        digests = sorted((self.root / 'tests/digests').glob('test_*.py'))
        if not parts:  # signatures are of all code
            digests = [path for path in digests if path.stem == 'test_signatures' and code]
        contracts = [self.root / name for name in CONTRACTS]
        config_tests = sorted((self.root / 'tests/configs').glob('test_*.py'))
        if len(changed) == 1 and code and not any(p.startswith('tree:') for p in parts):
            add('near', set(near) - {*digests, *contracts, *config_tests})
            add('digests', digests)
        else:
            add('digests', digests)
            add('near', set(near) - {*contracts, *config_tests})
        kinds = {part.partition(':')[0] for part in parts}
        networks = sorted(part for part in parts if part.startswith('network:'))
        if len(networks) > MANY:
            near_by = [n for n in networks if self.imports(self.networks[n[8:]]) & changed]
            kept = [*near_by, *(n for n in networks if n not in near_by)][:MANY]
            parts = parts - set(networks) | set(kept)
        add(
            'contracts',
            [
                *(contracts[:-1] if 'network' in kinds else []),
                *(contracts[-1:] if 'slug' in kinds else []),
            ],
        )
        trees = {part.removeprefix('tree:') for part in parts if part.startswith('tree:')}
        for test in config_tests:
            words = set(re.findall(r'\w+', test.read_text()))
            always = 'test_configs' if trees else ''
            if trees & words or test.stem in (always, 'test_bases' if 'bases' in parts else ''):
                near.append(test)
        add('configs', set(near) & set(config_tests))
        if code - ground:
            code -= ground
            importers = {
                p
                for p in [*self.modules.values(), *self.tools.values()]
                if self.imports(p) & code and p.name != '__init__.py'
            }
            add(FAR, [t for t in self.tests if self.mentions(t) & importers])
        return stages


def changed_since(root: Path, revision: str) -> set[Path]:
    """Files that differ from a revision, and those that git does not know yet."""
    commands = (
        ['git', 'diff', '--name-only', '--diff-filter=d', revision],
        ['git', 'ls-files', '--others', '--exclude-standard'],
    )
    names = [
        name
        for command in commands
        for name in subprocess.run(
            command, cwd=root, check=True, capture_output=True, text=True
        ).stdout.splitlines()
    ]
    return {root / name for name in names}


def main(argv: list[str] | None = None) -> int:
    """Print the arguments of a run of pytest, separated by blanks."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('names', nargs='*', help='papers, modules, classes, tools, folders, files')
    parser.add_argument(
        '--changed',
        nargs='?',
        const='HEAD',
        metavar='REVISION',
        help='what differs from a revision (default: HEAD)',
    )
    args = parser.parse_args(argv)
    root = Path(__file__).resolve().parents[2]
    sources = Sources(root)
    files = changed_since(root, args.changed) if args.changed else set()
    try:
        for name in args.names:
            files |= sources.files_of(name)
    except ValueError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    trees = [name for name in args.names if name in sources.trees]
    parts = None
    if trees and len(trees) == len(args.names) and not args.changed:
        parts = set().union(*map(sources.parts_of_tree, trees))
    stages = [stage for stage in sources.stages(files, parts) if stage.name != FAR or args.changed]
    if stages:
        # of the contracts, which do not concern all parts, if they are among them
        run = Stage([file for stage in stages for file in stage.files], stages[-1].parts)
        print(*run.arguments())
    return 0


if __name__ == '__main__':
    sys.exit(main())
