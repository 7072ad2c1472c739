"""What the zoo holds, for a terminal or a pipe: backbones and configs."""

import json
import sys
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from hybrid_mm.errors import UserError, nearest
from hybrid_mm.run.config import config_root
from hybrid_mm.zoo.metafile import Model, Tree, read_trees
from hybrid_mm.zoo.page import METRICS, source_kind


def installed_trees() -> list[Tree]:
    """Trees of the source tree or of the installed wheel.

    Raises:
        UserError: There are none, or their metafiles have mistakes.
    """
    root = config_root()
    if root is None:
        raise UserError('the configs of hybrid_mm are not there; install the wheel or a checkout')
    try:
        return read_trees(root.parent)
    except ValueError as error:
        raise UserError(str(error)) from error


def matches(pattern: str, *texts: str) -> bool:
    """Whether one of the texts holds all words of a pattern; ``*`` and ``?`` as in file names."""
    texts = [text.lower() for text in texts]
    return all(
        any(fnmatch(text, f'*{word}*') for text in texts) for word in pattern.lower().split()
    )


def backbone_rows(found: Sequence[tuple[Tree, Model]]) -> list[dict]:
    """A row for each backbone of the models: its figures are those of its classifier."""
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


def config_row(tree: Tree, model: Model, root: Path) -> dict:
    """Row of a config."""
    accuracies = [
        dict(metric=name, value=metrics[name], source=source)
        for source, metrics in model.metrics().items()
        for name in METRICS
        if name in metrics
    ]
    return dict(
        config=str(root.parent / model.config),
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


def listing(pattern: str, as_json: bool, kinds: Sequence[str]) -> None:
    """Print backbones and configs that match a pattern.

    Args:
        pattern: Words, each of which has to stand in the name of the config, of its head, its data
            set or its family.
        as_json: Print JSON instead of tables.
        kinds: 'backbones', 'configs', or both.

    Raises:
        UserError: Nothing matches.
    """
    trees, root = installed_trees(), config_root()
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
    if 'backbones' in kinds:
        result['backbones'] = backbone_rows(found)
    if 'configs' in kinds:
        result['configs'] = [config_row(tree, model, root) for tree, model in found]
    if as_json:
        print(json.dumps(result, indent=1))
        return
    for kind, rows in result.items():
        _print(kind, rows)


def _print(kind: str, rows: list[dict]) -> None:
    if kind == 'backbones':
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
    if not sys.stdout.isatty():
        for line in (head, *lines):
            print('\t'.join(line))
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        box=box.SIMPLE,
        title=f'{len(rows)} {kind}',
        title_justify='left',
        caption=note,
        caption_justify='left',
    )
    for name in head:
        numeric = name in ('params, M', 'GFLOPs', 'at', 'configs')
        table.add_column(name, justify='right' if numeric else 'left', overflow='fold')
    for line in lines:
        table.add_row(*line)
    Console().print(table)


def _cost(row: dict) -> tuple[str, str]:
    if row['parameters'] is None:
        return '', ''
    return f'{row["parameters"] / 1e6:.2f}', f'{row["flops"] / 1e9:.2f}'


def _shown(row: dict) -> str:
    path = Path(row['config'])
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _accuracy(found: list[dict]) -> str:
    """Each metric once: ours, else the first that is quoted."""
    shown: dict[str, str] = {}
    for item in found:
        kind = source_kind(item['source'])
        if item['metric'] not in shown or kind == 'measured':
            mark = {'measured': '*', 'unverified': '?'}.get(kind, '')
            shown[item['metric']] = f'{item["metric"]} {item["value"]:.1f}{mark}'
    return ', '.join(shown.values())
