"""Questions to the configs of data sets: what they read, and which classes they have."""

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.dataset import BaseDataset
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
    if dataset.get('bbox_file'):  # of MMPose, which joins it with no folder
        paths['bbox_file'] = dataset['bbox_file']
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


def has_base(cls: Any, name: str, library: str) -> bool:
    """Whether a class is, or derives from, the class of that name in a library."""
    return any(
        base.__name__ == name and base.__module__.startswith(f'{library}.')
        for base in getattr(cls, '__mro__', ())
    )


def given_metainfo(dataset: dict[str, Any]) -> dict[str, Any]:
    """Meta information that the config gives to a data set.

    Raises:
        UserError: It is no dict.
    """
    meta = dataset.get('metainfo') or {}
    if not isinstance(meta, dict):
        raise UserError(
            f'{dataset["type"]}: metainfo must be a dict, as dict(classes=(...)), got {meta!r}'
        )
    return meta


def metainfo_of(dataset: dict[str, Any]) -> dict[str, Any]:
    """Meta information that needs no files: that of the class, updated by that of the config."""
    return {
        **getattr(dataset_class(dataset), 'METAINFO', {}),
        **given_metainfo(dataset),
    }


def named_classes(dataset: dict[str, Any]) -> list[str] | None:
    """Class names of a data set from its config, its class or its file of names; None if none.

    Raises:
        UserError: The names are a text that is no file.
    """
    if dataset_class(dataset) is None:
        return None  # building it raises, with the nearest names
    meta, argument = given_metainfo(dataset), dataset.get('classes')
    classes = meta.get('classes') or argument or metainfo_of(dataset).get('classes')
    if isinstance(classes, str):
        path = os.path.expanduser(classes) if classes == argument else classes
        if not os.path.isfile(path):
            raise UserError(
                f'{dataset["type"]}: classes is the text {classes!r}, and no file has this name; '
                f'one class is written with a comma: classes=({classes!r},)'
            )
        classes = Path(path).read_text().split('\n')
        classes = [name.strip() for name in classes if name.strip()]
    return list(classes) if classes else None


def stored_classes(dataset: dict[str, Any]) -> list[str] | None:
    """Classes of the label maps of a segmentation data set, if it takes a part of them."""
    cls = dataset_class(dataset)
    stored = getattr(cls, 'METAINFO', {}).get('classes') if hasattr(cls, 'get_label_map') else None
    return list(stored) if stored else None


def classes_of(dataset: dict[str, Any]) -> list[str] | None:
    """Class names of a data set in the order of its labels; None if they are not known before.

    They are those of :func:`named_classes`, else of its annotation file, else its class folders.
    """
    file = openmmlab_file(dataset)
    return named_classes(dataset) or (file and file.classes) or class_folders(dataset)


def class_folders(dataset: dict[str, Any]) -> list[str] | None:
    """Folders whose sorted names are the labels of a classification data set, or None."""
    cls = dataset_class(dataset)
    if not has_base(cls, 'CustomDataset', 'mmpretrain') or not dataset.get('with_label', True):
        return None
    if class_index_file(dataset) or dataset.get('split') == 'test':
        return None
    paths = paths_of(dataset)
    folder = next(iter(paths.values()), '')
    if not os.path.isdir(folder):
        return None
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())


def class_index_file(dataset: dict[str, Any]) -> str | None:
    """The text file of a classification data set with a path and a label in each line, or None."""
    if not has_base(dataset_class(dataset), 'CustomDataset', 'mmpretrain'):
        return None
    if not dataset.get('with_label', True):
        return None
    root, split = dataset.get('data_root') or '', dataset.get('split')
    if dataset.get('ann_file'):
        return os.path.join(root, dataset['ann_file'])
    found = os.path.join(root, 'meta', f'{split}.txt')
    return found if split and os.path.isfile(found) else None


class OpenMMLabFile(NamedTuple):
    """What an annotation file in OpenMMLab's own format says about classes.

    Attributes:
        path: The file.
        classes: Names of the classes, or None.
        labels: Labels of images, each with the position of the first entry that has it.
    """

    path: str
    classes: list[str] | None
    labels: dict[int, int]


def openmmlab_file(dataset: dict[str, Any]) -> OpenMMLabFile | None:
    """Read the annotation file of a data set in OpenMMLab's format; None for other data sets.

    Raises:
        UserError: It is not JSON.
    """
    cls = dataset_class(dataset)
    path = paths_of(dataset).get('ann_file', '')
    own = getattr(cls, 'load_data_list', None) is BaseDataset.load_data_list
    if not own or not path.endswith('.json') or not os.path.isfile(path):
        return None
    return _read_openmmlab(path, os.path.getmtime(path))


@functools.lru_cache(maxsize=8)
def _read_openmmlab(path: str, changed: float) -> OpenMMLabFile:
    try:
        content = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f'annotation file {path} cannot be read as JSON ({error})') from error
    content = content if isinstance(content, dict) else {}
    labels: dict[int, int] = {}
    entries = content.get('data_list')
    for i, entry in enumerate(entries if isinstance(entries, list) else ()):
        found = entry.get('gt_label') if isinstance(entry, dict) else None
        for label in found if isinstance(found, list) else [found]:
            if isinstance(label, int):
                labels.setdefault(label, i)
    return OpenMMLabFile(path, _names_in(content.get('metainfo')), labels)


def _names_in(meta: Any) -> list[str] | None:
    if not isinstance(meta, dict):
        return None
    if meta.get('classes'):
        return list(meta['classes'])
    categories = meta.get('categories')
    if isinstance(categories, list) and all(isinstance(item, dict) for item in categories):
        ordered = sorted(categories, key=lambda item: item.get('id', 0))
        return [str(item.get('category_name')) for item in ordered] or None
    return None


def dataset_classes(dataset: dict[str, Any]) -> dict[str, Any]:
    """Class names and palette that a data set has without reading its annotations."""
    first = next(readers(dataset))
    return {**metainfo_of(first), 'classes': classes_of(first)}
