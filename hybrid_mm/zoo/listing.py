"""Tables of the backbones and configs of the zoo, for a terminal or a pipe."""

import json
import os
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal

from hybrid_mm.errors import UserError, nearest, printable
from hybrid_mm.run.config_folder import installed_configs
from hybrid_mm.zoo.metafile import MAIN_METRICS, Model, Tree, read_trees, source_type

VARIABLE = 'HYBRID_MM_ZOO'
"""Environment variable: folders of projects whose configs are listed as well."""


def installed_trees() -> list[Tree]:
    """Config trees of the checkout or of the installed wheel.

    Raises:
        UserError: The configs are not installed, or their metafiles have mistakes.
    """
    root = installed_configs().parent
    try:
        return read_trees(root)
    except ValueError as error:
        raise UserError(str(error)) from error


def trees_of_others() -> list[Tree]:
    """Config trees of the folders that the environment variable HYBRID_MM_ZOO names.

    Each has a ``model-index.yml`` and ``configs/<tree>/metafile.yml``, as this package has.

    Raises:
        UserError: A folder has none, or its metafiles have mistakes.
    """
    found = []
    folders = filter(None, os.environ.get(VARIABLE, '').split(os.pathsep))
    for folder in dict.fromkeys(Path(folder).expanduser().resolve() for folder in folders):
        if not (folder / 'model-index.yml').is_file():
            raise UserError(
                f'{VARIABLE}: {printable(str(folder))} has no model-index.yml; name the folder of '
                'the project, which has it beside configs/'
            )
        try:
            found += read_trees(folder)
        except ValueError as error:
            lines = str(error).replace('\n', '\n  ')
            raise UserError(f'{VARIABLE}, {printable(str(folder))}:\n  {lines}') from error
    return found


def matches(pattern: str, *texts: str) -> bool:
    """Whether each word of a pattern is in one of the texts; ``*`` and ``?`` as in file names."""
    lowered = [text.lower() for text in texts]
    return all(
        any(fnmatch(text, f'*{word}*') for text in lowered) for word in pattern.lower().split()
    )


def backbone_rows(found: Sequence[tuple[Tree, Model]]) -> list[dict]:
    """A row for each backbone of the models, with the figures of its classifier."""
    rows: dict[tuple[str, str], dict] = {}
    for tree, model in found:
        row = rows.setdefault(
            (tree.collection['Name'], model.backbone),
            dict(
                backbone=model.backbone,
                family=tree.collection['Name'],
                parameters=None,
                flops=None,
                size=None,
                configs=0,
            ),
        )
        row['configs'] += 1
        classifies = model.head == 'Classifier'
        if classifies and (row['parameters'] is None or model.size == (224, 224)):
            size = 'x'.join(map(str, model.size))
            row.update(parameters=model.parameters, flops=model.flops, size=size)
    return list(rows.values())


def config_row(tree: Tree, model: Model) -> dict:
    """Figures of a config, as a row of the table and of the JSON output."""
    accuracies = [
        dict(metric=name, value=metrics[name], source=source)
        for source, metrics in model.metrics().items()
        for name in MAIN_METRICS
        if name in metrics
    ]
    return dict(
        config=str(tree.folder / f'{model.name}.py'),
        name=model.name,
        family=tree.collection['Name'],
        backbone=model.backbone,
        head=model.head,
        dataset=model.dataset,
        parameters=model.parameters,
        flops=model.flops,
        size='x'.join(map(str, model.size)),
        accuracies=accuracies,
    )


def listing(pattern: str, as_json: bool, tables: Sequence[str]) -> None:
    """Print backbones and configs that match a pattern.

    Args:
        pattern: Words, each of which has to be in the name of the config, of its head, its data
            set or its family.
        as_json: Print JSON instead of tables.
        tables: 'backbones', 'configs', or both.

    Raises:
        UserError: Nothing matches.
    """
    trees = [*installed_trees(), *trees_of_others()]
    pairs = [(tree, model) for tree in trees for model in tree.models]
    found = [
        (tree, model)
        for tree, model in pairs
        if matches(pattern, model.name, model.head, model.dataset, tree.collection['Name'])
    ]
    if not found:
        names = {name for tree, model in pairs for name in (model.name, model.backbone)}
        names |= {tree.collection['Name'] for tree in trees}
        raise UserError(f'nothing in the zoo matches {pattern!r}{nearest(pattern, names)}')
    result = {}
    if 'backbones' in tables:
        result['backbones'] = backbone_rows(found)
    if 'configs' in tables:
        result['configs'] = [config_row(tree, model) for tree, model in found]
    if as_json:
        print(json.dumps(result, indent=1))
        return
    for name, rows in result.items():
        _print(name, rows)


def _print(table_name: str, rows: list[dict]) -> None:
    if table_name == 'backbones':
        head = ('backbone', 'family', 'params, M', 'GFLOPs', 'at', 'configs')
        lines = [
            (r['backbone'], r['family'], *_cost(r), r['size'] or '', str(r['configs']))
            for r in rows
        ]
        note = 'Parameters and FLOPs with the ImageNet head, where the zoo has that config.'
    else:
        head = ('config', 'head', 'params, M', 'GFLOPs', 'at', 'accuracy')
        lines = [
            (_shown(r), r['head'], *_cost(r), r['size'], _accuracy(r['accuracies'])) for r in rows
        ]
        note = 'Accuracies as reported (? unverified) unless measured by us (*).'
    show(f'{len(rows)} {table_name}', head, lines, note)


NUMERIC = ('params, M', 'GFLOPs', 'at', 'configs', 'MB')
"""Columns of numbers."""


def show(title: str, head: Sequence[str], lines: Sequence[Sequence[str]], note: str) -> None:
    """Print a table for people on a terminal; elsewhere tab-separated lines."""
    if not sys.stdout.isatty():
        for line in (head, *lines):
            print('\t'.join(line))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        box=box.SIMPLE,
        title=title,
        title_justify='left',
        caption=note,
        caption_justify='left',
    )
    for name in head:
        justify: Literal['left', 'right'] = 'right' if name in NUMERIC else 'left'
        table.add_column(name, justify=justify, overflow='fold')
    for line in lines:
        table.add_row(*line)
    Console().print(table)


def _cost(row: dict) -> tuple[str, str]:
    if row['parameters'] is None:
        return '', ''
    return f'{row["parameters"] / 1e6:.2f}', f'{row["flops"] / 1e9:.2f}'


def _shown(row: dict) -> str:
    return shown_path(row['config'])


def shown_path(file: str | Path) -> str:
    """A file as it is printed: relative to the working directory, if it is below that."""
    path = Path(file)
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _accuracy(found: list[dict]) -> str:
    """Each metric once: the measured value if there is one, else the first quoted."""
    shown: dict[str, str] = {}
    for item in found:
        origin = source_type(item['source'])
        if item['metric'] not in shown or origin == 'measured':
            mark = {'measured': '*', 'unverified': '?'}.get(origin, '')
            shown[item['metric']] = f'{item["metric"]} {item["value"]:.1f}{mark}'
    return ', '.join(shown.values())
