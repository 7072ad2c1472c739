"""Ledgers of recipes as Markdown: a summary and a page for each tree, and an overview of all."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from hybrid_mm.zoo.recipes import STATES, Ledger, Recipe, Value

LEGEND = {
    'Official': 'read in the named source',
    'Unverified': 'the authors ran this experiment, but no source known to us states the value',
    'Chosen': 'the authors ran no such experiment: the value is ours, or borrowed as the note says',
    'Different': 'deliberately different from the source',
}


def section(ledger: Ledger) -> str:
    """Text for the page of a tree: a table for each recipe, of one like another what differs."""
    parts = [
        'Every value with the source in which it was read. '
        f'`python tools/dev/recipes.py {ledger.file.parent.name}` compares the configs with these '
        'values.\n'
    ]
    for recipe in ledger.recipes:
        number = len(ledger.configs_of(recipe))
        listed = ', '.join(f'`{pattern}`' for pattern in recipe.configs)
        text = f'## {recipe.name}\n\n{listed} ({number} config{"s" * (number > 1)}).'
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
        rows.append((f'[{tree}](recipes/{tree}.md)', *counts.values()))
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


_SUMMARY = (
    *('Recipe', 'Optimizer', 'Rate', 'Weight decay', 'Drop path', 'Layer scale', 'Batch'),
    *('Length', 'Augmentation'),
)
NOT_STATED = '\n\\* not stated by the authors: borrowed from a related recipe, or our choice.\n'


def summary(ledger: Ledger, shown: Iterable[Recipe], name: Callable[[str], str]) -> str:
    """Table of what trains the networks of a tree, a line for each recipe.

    Recipes that differ only in what is not shown share a line; values that no source states have
    an asterisk.

    Args:
        ledger: Ledger of the tree.
        shown: Recipes of it.
        name: Short name of the network of a config.
    """
    rows: dict[tuple[str, ...], list[str]] = {}
    for recipe in shown:
        configs = {config: recipe.of(config) for config in ledger.configs_of(recipe)}
        cells = [
            _by_config(recipe, fields, text, configs, name)
            for fields, text in (
                (('optimizer',), _plain),
                (('lr', 'lr_mult'), _rate),
                (('weight_decay',), _plain),
                (('drop_path',), _plain),
                (('layer_scale',), _plain),
                (('batch',), _plain),
                (('length',), _plain),
                (('train', 'mixing'), _augmentation),
            )
        ]
        rows.setdefault(tuple(cells), []).append(_cell(recipe.name))
    text = table(_SUMMARY, [('; '.join(names), *cells) for cells, names in rows.items()])
    return text + (NOT_STATED if r'\*' in text else '')


def _by_config(
    recipe: Recipe,
    fields: Sequence[str],
    text: Callable[..., str],
    configs: Mapping[str, Mapping[str, Value]],
    name: Callable[[str], str],
) -> str:
    """Text of fields; where configs differ, each text with the networks that have it."""
    values = [recipe.values[field] for field in fields if field in recipe.values]
    groups: dict[str, list[str]] = {}
    for config, of in configs.items():
        found = text(*(of[field].ours for field in fields if field in of))
        groups.setdefault(found, []).append(config)
    star = r' \*' if values[0].state in ('Unverified', 'Chosen') else ''
    if len(groups) == 1:
        return f'{next(iter(groups))}{star}'
    networks = sorted(set(map(name, configs)))
    first = networks[0].rpartition('-')[0] + '-'
    shared = first if all(network.startswith(first) for network in networks) else ''
    owners = {
        found: sorted({name(config).removeprefix(shared) for config in of})
        for found, of in groups.items()
    }
    if sum(map(len, owners.values())) > len(networks):
        owners = {found: _patterns(values, group) for found, group in groups.items()}
    ordered = sorted(groups.items(), key=lambda item: 'others' in owners[item[0]])
    parts = [f'{found} ({_few(owners[found], len(group))})' for found, group in ordered]
    return f'{"; ".join(parts)}{star}'


def _few(names: Sequence[str], configs: int) -> str:
    """Names, or how many configs there are if these are many or long."""
    text = ', '.join(names)
    return text if len(text) < 40 else f'{configs} configs'


def _patterns(values: Iterable[Value], configs: Iterable[str]) -> list[str]:
    """Which patterns of values pick these configs, without what stands for anything."""
    found: dict[str, None] = {}
    for value in values:
        if isinstance(value.ours, Mapping):
            for config in configs:
                pattern = next(p for p in value.ours if fnmatchcase(config, str(p)))
                found[str(pattern).strip('*_-') or 'others'] = None
    return list(found)


def _rate(rate: Any, factors: Any = '') -> str:
    """Learning rate with what the backbone's layers have of it."""
    layers = re.search(r'backbone ([\d.]+)(\^?)', str(factors))
    if not layers or float(layers[1]) == 1:
        return _plain(rate)
    return f'{_plain(rate)}, {"layers" if layers[2] else "backbone"} x{layers[1]}'


def _augmentation(train: Any, mixing: Any = 'none') -> str:
    """Pipeline and mixing in words."""
    found = _steps(str(train))
    if str(mixing) != 'none':
        found += [re.sub(r'\(alpha=(.*)\)', r' \1', part) for part in str(mixing).split('; ')]
    return _cell(', '.join(found))


def _steps(text: str) -> list[str]:
    """Words for the steps of a pipeline, such as ``RandomFlip(prob=0.5); RandomCrop(...)``."""
    found = []
    for name, inner in _calls(text):
        words = _STEPS.get(name)
        if name == 'RandomChoice':
            ways = [', '.join(_steps(way)) for way in _split(inner, '|')]
            found.append(' or '.join(f'({way})' for way in ways))
        elif words is None:
            found.append(name)
        elif words:
            given = {
                key.strip(): _short(value)
                for key, _, value in (part.partition('=') for part in _split(inner, ','))
            }
            if name == 'RandomChoiceResize' and ' x ' in given['scales']:
                words = '{scales}'
            found.append(words.format_map({'ratio_range': '', 'prob': '', **given}))
    return list(dict.fromkeys(found))


_STEPS = {
    'RandomFlip': 'flip',
    'RandomChoiceResize': 'short side {scales}',
    'Resize': '{scale}',
    'RandomResize': '{ratio_range} x ({scale})',
    'RandomCrop': 'crop {crop_size}',
    'RandomResizedCrop': 'random resized crop {scale}',
    'PhotoMetricDistortion': 'photometric distortion',
    'RandAugment': 'RandAugment {magnitude_level}',
    'RandomErasing': 'erasing {erase_prob}',
    'RandomGrayscale': 'grey {prob}',
    'RandomApply': 'colour jitter',
    'Pad': '',
}


def _short(value: str) -> str:
    """A value of a step: ranges and lists from first to last."""
    value = re.sub(r'\.\.(\d+) step \d+', r' to \1', value.strip())
    numbers = value.split()
    if len(numbers) > 2 and all(number.isdecimal() for number in numbers):
        value = f'{numbers[0]} to {numbers[-1]}'
    if ' x ' in value:
        return value.strip('[]').replace(', ', ' or ')
    return re.sub(r'^\[(\S+), (\S+)\]$', r'\1 to \2', value)


def _calls(text: str) -> list[tuple[str, str]]:
    """Names of the calls of a pipeline, and what is within their parentheses."""
    return [
        (name, inner.removesuffix(')'))
        for name, _, inner in (part.strip().partition('(') for part in _split(text, ';'))
    ]


def _split(text: str, mark: str) -> list[str]:
    """Parts between marks that are in no parentheses."""
    parts, depth = [''], 0
    for letter in text:
        depth += (letter in '([') - (letter in ')]')
        if letter == mark and not depth:
            parts.append('')
        else:
            parts[-1] += letter
    return parts
