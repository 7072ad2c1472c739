"""Networks of a tree and their reported accuracies as Markdown, for the pages of the papers."""

import re
from collections.abc import Callable, Iterable, Mapping

from hybrid_mm.zoo.metafile import GROUPS, MEASURED, Group, Model
from hybrid_mm.zoo.recipe_tables import table

_SHOWN = {
    'detection': ('COCO: box / mask AP', ('box AP', 'mask AP')),
    'panoptic': ('COCO: PQ', ('PQ',)),
    'pose': ('COCO: keypoint AP', ('keypoint AP',)),
    'segmentation': ('ADE20K: mIoU / multi-scale', ('mIoU', 'mIoU (ms+flip)')),
    'objects': ('ADE20K: PQ / mask AP', ('PQ', 'mask AP')),
    'cityscapes': ('Cityscapes: mIoU / mask AP', ('mIoU', 'mask AP')),
    'voc': ('VOC: mIoU', ('mIoU',)),
}
"""Keys of the groups of dense networks: heading and metrics of their column."""


def is_dense(model: Model) -> bool:
    """Whether a model detects or segments."""
    return model.group.key in _SHOWN


def networks(
    models: Iterable[Model], link: Callable[[Model, str], str], weights: Mapping[str, str]
) -> str:
    """Table with a line for each backbone that detects or segments.

    Args:
        models: Models of a tree.
        link: Link to the config of a model with a text of its own.
        weights: Names of the weights that configs start from, by the name of the config.
    """
    models = list(models)
    alone = {m.backbone: m for m in models if m.group.key == 'classification'}
    found: dict[str, list[Model]] = {}
    for model in filter(is_dense, models):
        found.setdefault(model.backbone, []).append(model)
    groups = [g for g in GROUPS if any(m.group == g for of in found.values() for m in of)]
    groups = [g for g in groups if g.key in _SHOWN]
    rows = []
    for name in sorted(found, key=lambda name: min(m.parameters for m in found[name])):
        of = found[name]
        starts = dict.fromkeys(weights[m.name] for m in of if m.name in weights)
        rows.append(
            [
                name,
                f'{alone[name].parameters / 1e6:.1f}' if name in alone else '',
                *(_cell([m for m in of if m.group == group], group, link) for group in groups),
                '<br>'.join(f'`{start}`' for start in starts),
            ]
        )
    head = ['Network', 'Parameters (M)', *(_SHOWN[g.key][0] for g in groups), 'Weights']
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    return table([head[i] for i in kept], [[row[i] for i in kept] for row in rows])


def _cell(models: list[Model], group: Group, link: Callable[[Model, str], str]) -> str:
    """Accuracies of the models of one network and group, each with its head."""
    labels = [_label(model) for model in models]
    lines = []
    for model, label in zip(models, labels, strict=True):
        if labels.count(label) > 1:  # as ablations are: the name tells them apart
            label = model.name.replace(f'{model.backbone}_', '')
        lines.append(f'{_accuracy(model, group)} {link(model, label)}'.strip())
    return '<br>'.join(lines)


def _label(model: Model) -> str:
    """Head and length of training, such as Mask R-CNN 3x."""
    length = re.search(r'(?<![a-z\d.])(\d+(?:x|k|e|ep))(?![a-z\d])', model.name)
    return f'{model.head} {length[1]}' if length else model.head


def _accuracy(model: Model, group: Group) -> str:
    """Accuracies that the paper, or else the first source, reports."""
    quoted = {source: found for source, found in model.metrics().items() if source != MEASURED}
    found = quoted.get('paper') or next(iter(quoted.values()), {})
    values = [str(found.get(name, '')) for name in _SHOWN[group.key][1]]
    return ' / '.join(value or '-' for value in values) if any(values) else ''
