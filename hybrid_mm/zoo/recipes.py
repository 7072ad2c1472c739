"""``recipe.yml`` of the config trees: what the authors' files and papers say of every experiment.

A ledger names its sources and has recipes, each of some configs:

.. code-block:: yaml

    Sources:
      seg: {Repository: https://github.com/owner/name, Commit: 8285fc7}
      paper: {Paper: https://arxiv.org/abs/2202.09741}
    Recipes:
      - Name: Semantic FPN on ADE20K
        Configs: ['van-b?_fpn_8xb4-40k_ade20k-512x512']
        Source: seg configs/sem_fpn/van_b0.py
        Official: {lr: 1.0e-4, drop_path: {van-b0*: 0.1, '*': 0.2}}
        From: {clip: seg tools/train.py L120}
        Unverified: {amp: 'no'}
        Chosen: {ema: 'no'}
        Different: {train: {Official: A(), Ours: B(), Why: the file resizes twice}}
      - Name: UperNet on ADE20K
        Like: Semantic FPN on ADE20K
        Configs: [...]

``Official`` was read in the source, ``Unverified`` stands in none that is known, ``Chosen`` belongs
to an experiment that the authors do not report, ``Different`` differs on purpose.
"""

import math
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hybrid_mm.errors import nearest
from hybrid_mm.zoo.yaml_files import read_yaml

FILE = 'recipe.yml'
STATES = ('Official', 'Unverified', 'Chosen', 'Different')
_KEYS = ('Name', 'Like', 'Configs', 'Source', 'From', 'Note', *STATES)
_SOURCE_KEYS = ({'Repository', 'Commit'}, {'Paper'}, {'Package', 'Version'})


class Value(NamedTuple):
    """A value of a recipe.

    Attributes:
        state: One of :data:`STATES`.
        ours: What the config has to say.
        official: What the source says, if it is known.
        source: Where, for official and different values.
        why: Why ours differs.
    """

    state: str
    ours: Any
    official: Any = None
    source: str = ''
    why: str = ''


class Recipe(NamedTuple):
    """The values of an experiment, by field; a dict stands for patterns of configs.

    Attributes:
        name: Name of the experiment.
        configs: Names of configs, or patterns of them.
        values: Value of each field.
        note: Free text.
        like: Name of the recipe that it takes values of, or an empty string.
    """

    name: str
    configs: tuple[str, ...]
    values: dict[str, Value]
    note: str = ''
    like: str = ''

    def of(self, config: str) -> dict[str, Value]:
        """Values for one config.

        Raises:
            ValueError: A dict of patterns has none for it.
        """
        return {
            field: value._replace(
                ours=self._chosen(config, field, value.ours),
                official=self._chosen(config, field, value.official),
            )
            for field, value in self.values.items()
        }

    def _chosen(self, config: str, field: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        for pattern, item in value.items():
            if fnmatchcase(config, str(pattern)):
                return item
        raise ValueError(
            f'{self.name}: {field} has no value for {config}; its patterns are '
            f'{", ".join(map(str, value))}'
        )


class Ledger:
    """The recipes of a tree.

    Args:
        file: Path of ``recipe.yml``.
        configs: Names of all configs of the tree.

    Raises:
        ValueError: Mistakes in the file, one per line.
    """

    def __init__(self, file: Path, configs: list[str]) -> None:
        self.file = file
        self.sources: dict[str, dict] = {}
        try:
            data = read_yaml(file)
            mistakes = list(_bad_shape(data))
        except yaml.YAMLError as error:
            mistakes = [f'not valid YAML: {" ".join(str(error).split())}']
        if not mistakes:
            self.sources = data.get('Sources') or {}
            entries = {entry['Name']: entry for entry in data['Recipes']}
            mistakes = [*self._bad_sources(), *self._bad_keys(data['Recipes'])]
        if not mistakes:
            self.recipes = [self._recipe(entry, entries, mistakes) for entry in entries.values()]
        if not mistakes:
            self._of_config = self._assign(configs, mistakes)
        if mistakes:
            raise ValueError('\n'.join(f'{file.parent.name}/{FILE}: {text}' for text in mistakes))

    def recipe_of(self, config: str) -> Recipe:
        """Recipe of a config."""
        return self._of_config[config]

    def configs_of(self, recipe: Recipe) -> list[str]:
        """Names of the configs of a recipe."""
        return [name for name, found in self._of_config.items() if found is recipe]

    def counts(self) -> dict[str, int]:
        """How many values there are of each state, over all configs."""
        found = dict.fromkeys(STATES, 0)
        for recipe in self._of_config.values():
            for value in recipe.values.values():
                found[value.state] += 1
        return found

    def _bad_sources(self) -> Iterator[str]:
        for name, source in self.sources.items():
            if ' ' in name or set(source) - {'Note'} not in _SOURCE_KEYS:
                yield (
                    f'source {name!r} needs a name without spaces, and Repository and Commit, '
                    f'Package and Version, or Paper; got {", ".join(source)}'
                )

    def _bad_keys(self, entries: list[dict]) -> Iterator[str]:
        names: set[str] = set()
        for entry in entries:
            for key in entry:
                if key not in _KEYS:
                    yield f'{entry["Name"]}: unknown key {key!r}{nearest(key, _KEYS)}'
            if entry['Name'] in names:
                yield f'{entry["Name"]} is there twice'
            names.add(entry['Name'])
            if entry.get('Like', entry['Name']) not in names:
                yield f'{entry["Name"]}: Like names {entry["Like"]!r}, which is not above it'
            if not entry.get('Configs'):
                yield f'{entry["Name"]} has no Configs'

    def _recipe(self, entry: dict, entries: dict[str, dict], mistakes: list[str]) -> Recipe:
        values: dict[str, Value] = {}
        if 'Like' in entry and entry['Like'] != entry['Name']:
            values.update(self._recipe(entries[entry['Like']], entries, mistakes).values)
        own: dict[str, str] = {}
        sources = entry.get('From') or {}
        if 'Source' in entry:  # those that are inherited were read there as well
            values = {
                k: v._replace(source=entry['Source']) if v.state == 'Official' else v
                for k, v in values.items()
            }
        for state in STATES:
            for field, given in (entry.get(state) or {}).items():
                if field in own:
                    mistakes.append(f'{entry["Name"]}: {field} is {own[field]} and {state}')
                own[field] = state
                source = sources.get(field, entry.get('Source', ''))
                values[field] = self._value(entry['Name'], field, state, given, source, mistakes)
        for field, source in sources.items():
            if field not in values:
                mistakes.append(f'{entry["Name"]}: From names {field}, which has no value')
            elif field not in own:
                values[field] = values[field]._replace(source=source)
        for field, value in values.items():
            if value.state in ('Official', 'Different'):
                mistakes += self._bad_source(entry['Name'], field, value.source)
        return Recipe(
            entry['Name'],
            tuple(entry['Configs']),
            values,
            entry.get('Note', ''),
            entry.get('Like', ''),
        )

    @staticmethod
    def _value(
        name: str, field: str, state: str, given: Any, source: str, mistakes: list[str]
    ) -> Value:
        if state == 'Official':
            return Value(state, given, given, source)
        if state != 'Different':
            return Value(state, given)
        if not isinstance(given, Mapping) or set(given) != {'Official', 'Ours', 'Why'}:
            mistakes.append(f'{name}: {field} of Different needs Official, Ours and Why')
            return Value(state, given)
        return Value(state, given['Ours'], given['Official'], source, given['Why'])

    def _bad_source(self, name: str, field: str, source: str) -> Iterator[str]:
        if not source:
            yield f'{name}: {field} has no source; add Source, or name it in From'
        for part in filter(None, map(str.strip, str(source).split(';'))):
            first = part.split()[0]
            if first not in self.sources:
                yield (
                    f'{name}: the source of {field} starts with {first!r}, which is none of Sources'
                    f'{nearest(first, self.sources)}'
                )

    def _assign(self, configs: list[str], mistakes: list[str]) -> dict[str, Recipe]:
        found: dict[str, Recipe] = {}
        for recipe in self.recipes:
            for pattern in recipe.configs:
                matching = [name for name in configs if fnmatchcase(name, pattern)]
                if not matching:
                    mistakes.append(f'{recipe.name}: no config is called {pattern}')
                for name in matching:
                    if found.setdefault(name, recipe) is not recipe:
                        mistakes.append(f'{name} is in {found[name].name} and in {recipe.name}')
        mistakes += [f'{name} has no recipe' for name in configs if name not in found]
        return found


def _bad_shape(data: Any) -> Iterator[str]:
    """Parts of a ledger that are of another type than it needs."""
    data = data if isinstance(data, Mapping) else {}
    for key in data:
        if key not in ('Sources', 'Recipes'):
            yield f'unknown key {key!r}{nearest(str(key), ("Sources", "Recipes"))}'
    sources, entries = data.get('Sources') or {}, data.get('Recipes')
    if not isinstance(sources, Mapping) or not all(
        isinstance(source, Mapping) for source in sources.values()
    ):
        yield 'Sources must be a mapping of names to mappings, as {Repository: ..., Commit: ...}'
    if not entries or not isinstance(entries, list):
        yield 'Recipes must be a list of recipes'
        return
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, Mapping) or not isinstance(entry.get('Name'), str):
            yield f'recipe {number} must be a mapping with a Name'
            continue
        configs = entry.get('Configs') or []
        if not isinstance(configs, list) or not all(isinstance(name, str) for name in configs):
            yield f'{entry["Name"]}: Configs must be a list of names, got {configs!r}'
        for key in (*STATES, 'From'):
            if not isinstance(entry.get(key) or {}, Mapping):
                yield f'{entry["Name"]}: {key} must be a mapping of fields, got {entry[key]!r}'


def same(a: Any, b: Any) -> bool:
    """Whether two values are the same: numbers to six digits, texts up to white space."""
    try:
        return math.isclose(float(a), float(b), rel_tol=1e-5, abs_tol=0)
    except (TypeError, ValueError):
        return _words(a) == _words(b)


def _words(value: Any) -> list[str]:
    if isinstance(value, bool):  # what YAML makes of a bare no
        value = 'yes' if value else 'no'
    return str(value).split()


def read(folder: Path) -> Ledger:
    """Read the ledger of a tree; ``ValueError`` names its mistakes."""
    return Ledger(folder / FILE, sorted(path.stem for path in folder.glob('*.py')))
