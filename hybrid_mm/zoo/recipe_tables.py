"""Ledgers of recipes as Markdown: a section for the README of a tree, and an overview of all."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hybrid_mm.zoo.recipes import STATES, Ledger, Value

LEGEND = {
    'Official': 'read in the named source',
    'Unverified': 'the authors ran this experiment, but no source known to us states the value',
    'Chosen': 'the authors ran no such experiment: the value is ours, or borrowed as the note says',
    'Different': 'deliberately different from the source',
}


def section(ledger: Ledger) -> str:
    """Text for a README: a table for each recipe, of one like another what differs."""
    parts = [
        '## Recipes\n\nEvery value with its source. '
        f'`python tools/dev/recipes.py {ledger.file.parent.name}` compares the configs with these '
        'values.\n'
    ]
    for recipe in ledger.recipes:
        number = len(ledger.configs_of(recipe))
        listed = ', '.join(f'`{pattern}`' for pattern in recipe.configs)
        text = f'### {recipe.name}\n\n{listed} ({number} config{"s" * (number > 1)}).'
        if recipe.note:
            text += f' {_cell(recipe.note)}'
        shown, base = (
            recipe.values,
            next((r for r in ledger.recipes if r.name == recipe.like), None),
        )
        if base:
            shown = {
                field: value
                for field, value in shown.items()
                if field not in base.values or _told(value) != _told(base.values[field])
            }
            text += f' As {base.name}' + (', except for:' if shown else '.')
        numbers: dict[str, int] = {}
        rows = [(_words(f), _value(v), _source(v, numbers)) for f, v in shown.items()]
        parts.append(f'{text}\n' + (f'\n{table(("", "Value", "Source"), rows)}' if rows else ''))
        if numbers:
            parts.append(
                ''.join(f'{n}. {_link(source, ledger.sources)}\n' for source, n in numbers.items())
            )
    return '\n'.join(parts)


def _told(value: Value) -> tuple:
    return value.state, value.ours, value.official


def overview(ledgers: Mapping[str, Ledger]) -> str:
    """How many values there are of each state, by tree; and what differs on purpose."""
    rows, total = [], dict.fromkeys(STATES, 0)
    for tree, ledger in ledgers.items():
        counts = ledger.counts()
        rows.append((f'[{tree}](../configs/{tree}/README.md#recipes)', *counts.values()))
        total = {state: total[state] + n for state, n in counts.items()}
    rows.append(('all', *total.values()))
    legend = '\n'.join(f'- {state}: {text}.' for state, text in LEGEND.items())
    text = f'{legend}\n\n{table(("Configs", *STATES), rows)}'
    kept = [
        (
            tree,
            recipe.name,
            _words(field),
            _plain(value.official),
            _plain(value.ours),
            _cell(value.why),
        )
        for tree, ledger in ledgers.items()
        for recipe in ledger.recipes
        for field, value in recipe.values.items()
        if value.state == 'Different'
    ]
    head = ('Configs', 'Recipe', '', 'Official', 'Ours', 'Why')
    return f'{text}\n## Deliberate differences\n\n{table(head, kept)}'


def table(head: Sequence, rows: Iterable[Sequence]) -> str:
    """Markdown table."""
    lines = [head, ['---'] * len(head), *rows]
    return ''.join('| ' + ' | '.join(map(str, line)) + ' |\n' for line in lines)


def _words(field: str) -> str:
    return field.replace('_', ' ')


def _cell(text: str) -> str:
    return ' '.join(str(text).split()).replace('|', r'\|')


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return '<br>'.join(f'{_plain(item)} ({_cell(key)})' for key, item in value.items())
    return 'no' if value is False else _cell(value)


def _value(value: Value) -> str:
    text = _plain(value.ours)
    if value.state == 'Different':
        text += f'; official: {_plain(value.official)}. {_cell(value.why)}'
    return text


def _source(value: Value, numbers: dict[str, int]) -> str:
    """Numbers of the sources in the list below a table, which grows."""
    if value.state in ('Unverified', 'Chosen'):
        return value.state.lower()
    sources = [' '.join(part.split()) for part in value.source.split(';') if part.strip()]
    return ', '.join(str(numbers.setdefault(s, len(numbers) + 1)) for s in sources)


def _link(text: str, sources: Mapping[str, dict]) -> str:
    """``seg a/b.py L12-L20`` as a link to these lines at the commit of ``seg``."""
    name, *rest = text.split()
    source = sources[name]
    if 'Paper' in source:
        return f'[{_cell(" ".join([name, *rest]))}]({source["Paper"]})'
    if 'Package' in source:
        return f'{source["Package"]} {source["Version"]} {_cell(" ".join(rest))}'.rstrip()
    url = f'{source["Repository"]}/tree/{source["Commit"]}'
    if rest:
        path = rest[0].rstrip(',:')
        folder = re.match(r'(?:[^*?{\[]*/)?(?=[^/]*[*?{\[])', path)  # of files that a pattern names
        url = f'{source["Repository"]}/blob/{source["Commit"]}/{path}'
        if folder:
            url = f'{source["Repository"]}/tree/{source["Commit"]}/{folder[0]}'
        line = re.search(r'\bL(\d+)(?:-L?(\d+))?', ' '.join(rest[1:]))
        if line:
            url += f'#L{line[1]}' + (f'-L{line[2]}' if line[2] else '')
    return f'[{_cell(" ".join([name, *rest]))}]({url})'
