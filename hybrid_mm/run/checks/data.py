"""Checks of data, classes and weights before a run.

The dicts here are parts of configs: of a data set, with its wrappers, or of a model.
"""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope

from hybrid_mm.checkpoint_files import MissingCheckpointError
from hybrid_mm.checkpoints import check_exists, read_checkpoint, weights_of
from hybrid_mm.data.sample_check import Colours, other_images
from hybrid_mm.errors import UserError, warn
from hybrid_mm.run.checks.channels import check_channels
from hybrid_mm.run.checks.class_labels import check_class_labels
from hybrid_mm.run.checks.classes import (
    check_categories,
    check_evaluator,
    check_loader,
    check_names,
    check_num_classes,
    check_splits,
    check_subset,
    check_things,
    is_video,
    number_of_classes,
)
from hybrid_mm.run.checks.datasets import (
    class_folders,
    classes_of,
    dataset_class,
    has_base,
    metainfo_of,
    paths_of,
    readers,
)
from hybrid_mm.run.checks.label_maps import check_label_maps
from hybrid_mm.run.checks.metrics import check_metrics, check_save_best
from hybrid_mm.run.checks.places import data_sets, found_instead, root_hint
from hybrid_mm.run.checks.types import check_types
from hybrid_mm.run.config import nodes, require_library
from hybrid_mm.run.registered import arguments
from hybrid_mm.weights import SCHEME, WeightsError, check_available


def check_training(cfg: Config, resumed: bool = False) -> None:
    """Check data, classes, and the weights to start from, before a training run.

    Args:
        cfg: Config of the run.
        resumed: Whether it goes on from a checkpoint, so that no other file is read.

    Raises:
        UserError: See :func:`check_data`; a file of weights is missing or cannot be read; the
            validation does not return the metric of ``save_best``.
    """
    load_from = None if resumed else cfg.get('load_from')
    # those of runners that split a model are initialised before a checkpoint is read
    starts = not resumed or 'runner_type' in cfg
    if starts:
        _check_pretrained(cfg.model, available=True)  # before what takes time
    if load_from and load_from.startswith(SCHEME):
        check_available(load_from)
    colours = Colours()
    check_data(cfg, 'train_dataloader', colours)
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        check_splits(cfg, 'train_dataloader', 'val_dataloader')
    check_data(cfg, 'val_dataloader', colours)
    check_save_best(cfg)
    if starts:
        _check_pretrained(cfg.model)
    if load_from:
        weights_of(read_checkpoint(load_from), load_from)


def check_testing(cfg: Config) -> None:
    """Check data and classes before a test run.

    Raises:
        UserError: The config is not made for tests, or its package is not installed; see
            :func:`check_data`.
    """
    require_library(cfg)
    for key in ('test_dataloader', 'test_cfg', 'test_evaluator'):
        if cfg.get(key) is None:
            raise UserError(f'{cfg.filename} has no {key}; testing needs it')
    check_types(cfg, 'test')
    check_channels(cfg, 'test')
    check_data(cfg, 'test_dataloader')


def check_data(cfg: Config, loader: str, colours: Colours | None = None) -> None:
    """Check that the files of a dataloader exist and fit the classes of the config.

    Args:
        cfg: Config of the run.
        loader: Key of the dataloader in it; if there is none, nothing is checked.
        colours: Those of label maps that were checked before.

    Raises:
        UserError: A path does not exist (the layout that the config expects is shown),
            classes of data sets, annotations, class folders, heads or metrics do not fit each
            other, or label maps are missing, broken, or hold one class only; a package is missing.
    """
    if not cfg.get(loader):
        return
    _check_packages(cfg, loader)
    training = loader == 'train_dataloader'
    skip = cfg.get('skip_bad_samples', 0) if training else 0
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        datasets = list(readers(cfg[loader].dataset))
        for dataset in datasets:
            _check_arguments(dataset, loader)
            check_names(dataset, loader)
            _check_paths(cfg, dataset, loader)
            _check_zero_label(cfg, dataset, loader)
            classes = classes_of(dataset)
            number = len(classes) if classes else number_of_classes(cfg.model)
            check_class_labels(dataset, number, loader, training and len(datasets) == 1)
            if classes:
                check_subset(dataset, classes, loader)
                check_categories(dataset, classes, loader)
                check_evaluator(cfg, dataset, classes, loader)
                where = ' (its class folders)' if class_folders(dataset) == classes else ''
                things = len(metainfo_of(dataset).get('thing_classes') or ()) or None
                if not is_video(dataset):
                    place = f'the data set of {loader}{where}'
                    check_num_classes(cfg.model, classes, place, things)
                check_things(cfg.model, dataset, classes, loader)
            _name_other_images(dataset, loader)
            if number:
                check_metrics(cfg, dataset, number, loader)
        check_label_maps(datasets, cfg.model, loader, skip, training, colours)
        check_loader(cfg, loader)


def _check_packages(cfg: Config, loader: str) -> None:
    """Check that panoptic labels can be read: MMDetection does not install what it reads them by.

    Raises:
        UserError: They cannot.
    """
    parts = [cfg[loader], cfg.get(loader.replace('_dataloader', '_evaluator'))]
    types = {str(node.get('type')).rpartition('.')[2] for _, node in nodes(parts, loader)}
    readers_of_panoptic = sorted(types & {'LoadPanopticAnnotations', 'CocoPanopticMetric'})
    if readers_of_panoptic and find_spec('panopticapi') is None:
        raise UserError(
            f'{loader}: {readers_of_panoptic[0]} needs the package panopticapi: '
            'pip install git+https://github.com/cocodataset/panopticapi.git'
        )


def _name_other_images(dataset: dict[str, Any], loader: str) -> None:
    """Warn of images that a data set of class folders does not read for their suffix."""
    cls = dataset_class(dataset)
    takes = arguments(cls) if cls is not None else {}
    folder = paths_of(dataset)
    if 'extensions' not in takes or 'ann_file' in folder or os.environ.get('RANK', '0') != '0':
        return
    default = getattr(cls, 'IMG_EXTENSIONS', takes['extensions'])
    suffixes = [suffix.lower() for suffix in dataset.get('extensions', default)]
    for path in filter(os.path.isdir, folder.values()):
        if others := other_images(path, suffixes):
            warn(f'{loader}: {others} in {path} are not read, only {", ".join(suffixes)}')


def _check_arguments(dataset: dict[str, Any], loader: str) -> None:
    """Check the kinds of the arguments that name files and folders."""
    where, cls = f'{loader}.dataset', dataset_class(dataset)
    for key in ('data_root', 'ann_file'):
        value = dataset.get(key)
        if value is not None and not isinstance(value, str):
            hint = (
                '; several are joined by ConcatDataset' if isinstance(value, list | tuple) else ''
            )
            raise UserError(f'{where}.{key} must be text, got {value!r}{hint}')
    prefix = dataset.get('data_prefix')
    if prefix is not None and not isinstance(prefix, str | dict):
        raise UserError(f'{where}.data_prefix must be a dict of folders, got {prefix!r}')
    coco = has_base(cls, 'CocoDataset', 'mmdet')
    if isinstance(prefix, str) and (coco or has_base(cls, 'BaseSegDataset', 'mmseg')):
        key = 'img' if coco else 'img_path'
        raise UserError(f'{where}.data_prefix must be a dict; use dict({key}={prefix!r})')
    if coco and not dataset.get('ann_file'):
        raise UserError(f'{where} has no ann_file; {dataset["type"]} reads an annotation file')


def _check_paths(cfg: Config, dataset: dict[str, Any], loader: str) -> None:
    """Check that files and folders of a data set exist, or show which of its layout do."""
    paths = paths_of(dataset)
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
    there = found_instead(missing, root) if os.path.isdir(root) else ''
    if there:
        lines.append(f'  {there}')
        keys = [key if key in dataset else f'data_prefix.{key}' for key in paths]
        metric = ', and ann_file of its metric' if 'ann_file' in paths else ''
        lines.append(f'  if these are the data, set {", ".join(keys)} of the data set{metric};')
    raise UserError(
        f'{loader}: {missing[0]} does not exist\n'
        f'  the config expects this layout ({dataset.get("type")}):\n'
        + '\n'.join(lines)
        + '\n  put or link the data there, or name its place with '
        + root_hint(cfg, root)
        + ('; ~ is not expanded here, write the path in full' if missing[0].startswith('~') else '')
    )


def _check_zero_label(cfg: Config, dataset: dict[str, Any], loader: str) -> None:
    """Check that a data set of MMSegmentation and the transform that loads its labels agree.

    Raises:
        UserError: One leaves out label 0, the other does not; names the options for all loaders.
    """
    own = _zero_label(dataset)
    if not list(_other_zero_labels(dataset)):
        return
    options = [
        f'{name}_dataloader.dataset{path}.pipeline.{i}.reduce_zero_label={_zero_label(node)}'
        for name in ('train', 'val', 'test')
        for path, node in data_sets((cfg.get(f'{name}_dataloader') or {}).get('dataset'))
        for i in _other_zero_labels(node)
    ]
    raise UserError(
        f'{loader}: reduce_zero_label of the data set ({dataset["type"]}) is {own}, but '
        f'{not own} in LoadAnnotations of its pipeline; if {own} is right, use --cfg-options '
        + ' '.join(options)
    )


def _zero_label(dataset: dict[str, Any]) -> bool | None:
    """Whether a data set of MMSegmentation leaves out label 0; None for others."""
    cls = dataset_class(dataset)
    if not has_base(cls, 'BaseSegDataset', 'mmseg'):
        return None
    return bool(dataset.get('reduce_zero_label', arguments(cls).get('reduce_zero_label')))


def _other_zero_labels(dataset: dict[str, Any]) -> Iterator[int]:
    """Transforms that load label maps and do not agree with their data set, by position."""
    own, pipeline = _zero_label(dataset), dataset.get('pipeline')
    for i, step in enumerate(pipeline if isinstance(pipeline, list | tuple) else ()):
        named = step.get('reduce_zero_label') if isinstance(step, dict) else None
        loads = named is not None and str(step.get('type')).endswith('LoadAnnotations')
        if loads and own is not None and bool(named) != own:
            yield i


def _check_pretrained(model: dict[str, Any], available: bool = False) -> None:
    """Check that the files of every ``init_cfg=dict(type='Pretrained', ...)`` exist.

    Published weights and addresses are downloaded.

    Args:
        model: Part of a config.
        available: Check only that published weights can be had.
    """
    for path, node in nodes(model, 'model'):
        if str(node.get('type')).rpartition('.')[2] != 'Pretrained':
            continue
        file = str(node.get('checkpoint') or '')
        try:
            if not available:
                check_exists(file)
            elif file.startswith(SCHEME):
                check_available(file)
        except MissingCheckpointError as error:
            beside = error.beside if file else ''
            raise UserError(
                f'pre-trained weights {file or "(no checkpoint)"} do not exist ({path}){beside}; '
                f'put the file there, name its place with --cfg-options {path}.checkpoint=FILE, or '
                f'train from scratch with {path}=None'
            ) from error
        except WeightsError as error:
            raise error.at(path) from error
