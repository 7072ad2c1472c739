"""Checks that the classes of data sets, annotation files and heads are the same."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from hybrid_mm.data.coco_check import coco_categories
from hybrid_mm.errors import UserError, shorten
from hybrid_mm.run.checks.datasets import paths_of


def check_categories(dataset: dict[str, Any], classes: list[str], loader: str) -> None:
    """Check that a COCO file has the classes of the config among its categories."""
    path = paths_of(dataset).get('ann_file', '')
    if not path.endswith('.json') or 'Coco' not in str(dataset['type']):
        return
    names = coco_categories(path)
    if names is None:
        raise UserError(f'{loader}: {path} has no list "categories"; expected a COCO file')
    absent = [name for name in classes if name not in names]
    if absent:
        # MMDetection would drop them silently and shift the labels of the others
        raise UserError(
            f'{loader}: {len(absent)} of the {len(classes)} classes of the config are not among '
            f'the categories of {path}: {shorten(absent)}; the file has {len(names)}: '
            f'{shorten(names)}. '
            f'Name its classes with {loader}.dataset.metainfo=dict(classes=(...)) and set '
            'num_classes of the heads'
        )


def _num_classes(node: Any, path: str = 'model') -> Iterator[tuple[str, int]]:
    """Every ``num_classes`` of a model's config, except that of region proposals."""
    if isinstance(node, dict):
        if isinstance(node.get('num_classes'), int):
            yield f'{path}.num_classes', node['num_classes']
        for key, value in node.items():
            if key not in ('rpn_head', 'backbone'):
                yield from _num_classes(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _num_classes(value, f'{path}.{i}')


def check_num_classes(cfg: Config, classes: list[str], loader: str) -> None:
    """Check that all heads of the model have as many classes as the data set."""
    wrong = [(path, n) for path, n in _num_classes(cfg.model) if n != len(classes)]
    if wrong:
        path, number = wrong[0]
        options = ' '.join(f'{path}={len(classes)}' for path, _ in wrong)
        raise UserError(
            f'{path} is {number}, but the data set of {loader} has {len(classes)} classes '
            f'({shorten(classes, 4)}); use --cfg-options {options}'
        )
