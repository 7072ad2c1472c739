"""Questions to the configs of data sets: what they read, and which classes they have."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.registry import DATASETS

from hybrid_mm.errors import UserError
from hybrid_mm.run.config import inner_dataset
from hybrid_mm.run.registered import registered_class


def readers(dataset: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The data sets that read files, within wrappers (``dataset``, ``datasets``)."""
    dataset = inner_dataset(dataset)
    if 'datasets' in dataset:
        for child in dataset['datasets']:
            yield from readers(child)
    else:
        yield dataset


def paths_of(dataset: dict[str, Any]) -> dict[str, str]:
    """Files and folders that a data set reads, by config key."""
    root = dataset.get('data_root') or ''
    paths = {}
    if dataset.get('ann_file'):
        paths['ann_file'] = os.path.join(root, dataset['ann_file'])
    prefix = dataset.get('data_prefix')
    if isinstance(prefix, str):
        prefix = {'data_prefix': prefix}
    for key, value in (prefix or {}).items():
        if value and isinstance(value, str):
            paths[key] = os.path.join(root, value)
    if dataset.get('split') and not paths and 'ImageNet' in str(dataset.get('type')):
        paths['split'] = os.path.join(root, dataset['split'])
    return paths or ({'data_root': root} if root else {})


def dataset_class(dataset: dict[str, Any]) -> Any:
    """Class of a data set in the current default scope; None if it is not registered."""
    return registered_class(DATASETS, dataset['type'])


def _metainfo(dataset: dict[str, Any]) -> dict[str, Any]:
    """Meta information that needs no files: that of the class, updated by that of the config."""
    return {
        **getattr(dataset_class(dataset), 'METAINFO', {}),
        **(dataset.get('metainfo') or {}),
    }


def classes_of(dataset: dict[str, Any]) -> list[str] | None:
    """Class names of a data set; None if they are known from its files only."""
    # a class that is not registered has no names: building it raises, with the nearest names
    classes = dataset_class(dataset) and (
        _metainfo(dataset).get('classes') or dataset.get('classes')
    )
    if isinstance(classes, str):
        if not os.path.isfile(classes):
            raise UserError(f'{dataset["type"]}: class file {classes} does not exist')
        classes = Path(classes).read_text().split('\n')
        classes = [name.strip() for name in classes if name.strip()]
    return list(classes) if classes else None


def dataset_classes(dataset: dict[str, Any]) -> dict[str, Any]:
    """Class names and palette that a data set has without reading its files."""
    first = next(readers(dataset))
    return {**_metainfo(first), 'classes': classes_of(first)}
