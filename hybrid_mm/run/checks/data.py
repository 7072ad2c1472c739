"""Checks of data, classes and weights before a run.

The dicts here are parts of configs: of a data set, with its wrappers, or of a model.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from hybrid_mm.checkpoints import MissingCheckpointError, check_exists, read_checkpoint, weights_of
from hybrid_mm.data.coco_check import coco_categories
from hybrid_mm.errors import UserError, shorten
from hybrid_mm.run.config import inner_dataset, nodes
from hybrid_mm.run.registered import arguments, registered_class


def check_training(cfg: Config) -> None:
    """Check data, classes, and the weights to start from, before a training run.

    Raises:
        UserError: See :func:`check_data`; a file of weights is missing or cannot be read.
    """
    check_data(cfg, 'train_dataloader')
    check_data(cfg, 'val_dataloader')
    _check_pretrained(cfg.model)
    if cfg.get('load_from') and not cfg.get('resume'):
        weights_of(read_checkpoint(cfg.load_from), cfg.load_from)


def check_testing(cfg: Config) -> None:
    """Check data and classes before a test run.

    Raises:
        UserError: The config is not made for tests; see :func:`check_data`.
    """
    for key in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        if cfg.get(key) is None:
            raise UserError(f'{cfg.filename} has no {key}; testing needs it')
    check_data(cfg, 'test_dataloader')


def check_data(cfg: Config, loader: str) -> None:
    """Check that the files of a dataloader exist and fit the classes of the config.

    Args:
        cfg: Config of the run.
        loader: Key of the dataloader in it; if there is none, nothing is checked.

    Raises:
        UserError: A path does not exist (the layout that the config expects is shown),
            annotation categories do not fit, the model's ``num_classes`` does not fit, or a
            segmentation map has a label out of range.
    """
    if not cfg.get(loader):
        return
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        for dataset in _datasets(cfg[loader].dataset):
            _check_paths(cfg, dataset, loader)
            classes = _classes(dataset)
            if classes:
                _check_categories(dataset, classes, loader)
                _check_num_classes(cfg, classes, loader)
                _check_label_maps(dataset, classes, loader)


def _check_paths(cfg: Config, dataset: dict[str, Any], loader: str) -> None:
    """Check that files and folders of a data set exist, or show which of its layout do."""
    paths = _paths(dataset)
    missing = [path for path in paths.values() if '://' not in path and not os.path.exists(path)]
    if not missing:
        return
    root = dataset.get('data_root') or ''
    lines = [f'    {root or "(no data_root)"}']
    for key, path in paths.items():
        state = 'MISSING' if path in missing else 'found'
        shown = os.path.relpath(path, root) if root else path
        folder = '' if os.path.splitext(path)[1] else '/'
        lines.append(f'      {shown + folder:<48} {key}: {state}')
    raise UserError(
        f'{loader}: {missing[0]} does not exist\n'
        f'  the config expects this layout ({dataset.get("type")}):\n'
        + '\n'.join(lines)
        + '\n  put or link the data there, or name its place with '
        + _place_option(cfg, root, loader)
    )


def _place_option(cfg: Config, root: str, loader: str) -> str:
    """The way to name another data root: the environment variable of the config, or an option."""
    for name, default in re.findall(r'\{\{\s*\$(\w+)\s*:\s*([^}]*?)\s*\}\}', cfg.text or ''):
        if default.rstrip('/') == root.rstrip('/'):
            return f'the environment variable {name}=DIR'
    return f'--cfg-options {loader}.dataset.data_root=DIR'


def _check_pretrained(model: dict[str, Any]) -> None:
    """Check that the files of every ``init_cfg=dict(type='Pretrained', ...)`` exist."""
    for path, node in nodes(model, 'model'):
        if node.get('type') != 'Pretrained':
            continue
        file = str(node.get('checkpoint') or '')
        try:
            check_exists(file)
        except MissingCheckpointError as error:
            beside = error.beside if file else ''
            raise UserError(
                f'pre-trained weights {file or "(no checkpoint)"} do not exist ({path}){beside}; '
                f'put the file there, name its place with --cfg-options {path}.checkpoint=FILE, or '
                f'train from scratch with {path}=None'
            ) from error


def _datasets(dataset: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The data sets that read files, within wrappers (``dataset``, ``datasets``)."""
    dataset = inner_dataset(dataset)
    if 'datasets' in dataset:
        for child in dataset['datasets']:
            yield from _datasets(child)
    else:
        yield dataset


def _paths(dataset: dict[str, Any]) -> dict[str, str]:
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


def _classes(dataset: dict[str, Any]) -> list[str] | None:
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
    first = next(_datasets(dataset))
    return {**_metainfo(first), 'classes': _classes(first)}


def _check_categories(dataset: dict[str, Any], classes: list[str], loader: str) -> None:
    """Check that a COCO file has the classes of the config among its categories."""
    path = _paths(dataset).get('ann_file', '')
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


def _check_num_classes(cfg: Config, classes: list[str], loader: str) -> None:
    """Check that all heads of the model have as many classes as the data set."""
    wrong = [(path, n) for path, n in _num_classes(cfg.model) if n != len(classes)]
    if wrong:
        path, number = wrong[0]
        options = ' '.join(f'{path}={len(classes)}' for path, _ in wrong)
        raise UserError(
            f'{path} is {number}, but the data set of {loader} has {len(classes)} classes '
            f'({shorten(classes, 4)}); use --cfg-options {options}'
        )


def _check_label_maps(
    dataset: dict[str, Any], classes: list[str], loader: str, samples: int = 8
) -> None:
    """Check the labels in a few label maps, spread over the folder."""
    folder = _paths(dataset).get('seg_map_path')
    if folder is None or not os.path.isdir(folder):
        return
    import mmcv  # takes a second, and only segmenters have label maps

    meta = {**arguments(dataset_class(dataset)), **dataset}
    suffix = meta.get('seg_map_suffix', '.png')
    files = sorted(path for path in Path(folder).rglob(f'*{suffix}'))
    if not files:
        raise UserError(f'{loader}: {folder} has no label maps *{suffix}')
    shifted = bool(meta.get('reduce_zero_label', False))
    ignored = meta.get('ignore_index', 255)
    high = len(classes) if shifted else len(classes) - 1
    for path in files[:: max(1, len(files) // samples)][:samples]:
        labels = mmcv.imread(str(path), flag='unchanged', backend='pillow')
        if labels is None or labels.ndim != 2:
            shape = None if labels is None else labels.shape
            raise UserError(
                f'{loader}: {path} is not a label map (one channel); its shape is {shape}'
            )
        wrong = [int(v) for v in np.unique(labels) if v > high and v not in (ignored, 255)]
        if wrong:
            raise UserError(
                f'{loader}: {path} has the label {wrong[0]}; {len(classes)} classes with '
                f'reduce_zero_label={shifted} allow 0..{high} and {ignored} (ignored)'
            )
