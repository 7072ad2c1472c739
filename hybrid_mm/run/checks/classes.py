"""Checks that labels stand for the same classes in configs, annotation files and heads."""

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from hybrid_mm.data.class_order import (
    check_same_labels,
    classes_of_checkpoint,
    meta_of_checkpoint,
    moved,
    spelling,
)
from hybrid_mm.data.coco_check import coco_categories, coco_category_entries
from hybrid_mm.errors import UserError, shorten, warn
from hybrid_mm.run.checks.datasets import (
    class_folders,
    classes_of,
    dataset_class,
    dataset_classes,
    given_metainfo,
    has_base,
    metainfo_of,
    named_classes,
    paths_of,
    readers,
    stored_classes,
)
from hybrid_mm.run.config import nodes


def check_names(dataset: dict[str, Any], loader: str) -> None:
    """Check the class names and the palette that a config gives to a data set.

    Raises:
        UserError: They are no list of texts, a name is listed twice, or the palette has another
            length.
    """
    meta = given_metainfo(dataset)
    where = f'{loader}.dataset.metainfo'
    for old in ('CLASSES', 'PALETTE'):
        if old in meta:
            raise UserError(f'{where}.{old} is not read; its key is {old.lower()!r}')
    given = meta.get('classes', dataset.get('classes'))
    if given is None:
        return
    if not isinstance(given, str | list | tuple) or not given:
        raise UserError(f"{where}.classes must be names, e.g. ('cat', 'dog'), got {given!r}")
    if not isinstance(given, str):
        wrong = [name for name in given if not isinstance(name, str)]
        if wrong:
            raise UserError(f'{where}.classes must be texts, got {wrong[0]!r}')
    classes = named_classes(dataset) or []
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        text = f'{where}.classes: listed twice: {shorten(twice)}'
        if class_folders(dataset) is None and not _is_classification(dataset):
            raise UserError(text)
        warn(text)  # as 'crane' among those of ImageNet
    palette = meta.get('palette')
    if isinstance(palette, list | tuple) and palette and len(palette) != len(classes):
        raise UserError(
            f'{where}.palette has {len(palette)} colours for {len(classes)} classes; give one for '
            'each, or leave it out'
        )


def _is_classification(dataset: dict[str, Any]) -> bool:
    return getattr(dataset_class(dataset), '__module__', '').startswith('mmpretrain.')


def check_subset(dataset: dict[str, Any], classes: list[str], loader: str) -> None:
    """Check that the classes of a segmentation data set are among those of its label maps.

    Data sets of MMSegmentation that know the classes of their label maps take a part of them, in
    any order, and change the labels accordingly.
    """
    stored = stored_classes(dataset)
    absent = [name for name in classes if name not in (stored or classes)]
    if stored and absent:
        raise UserError(
            f'{loader}: {len(absent)} of the {len(classes)} classes of the config are not among '
            f'those of {dataset["type"]}: {shorten(absent)}{spelling(absent[0], stored)}; it has '
            f'{len(stored)}: {shorten(stored)}. Label maps of other classes are read by '
            'BaseSegDataset'
        )


def check_categories(
    dataset: dict[str, Any], classes: list[str], loader: str, path: str = '', metric: str = ''
) -> None:
    """Check that a COCO file has the classes of the config among its categories.

    Args:
        dataset: Config of the data set.
        classes: Its classes.
        loader: Its place in the config, for messages.
        path: The file; by default that of the data set.
        metric: Type of the metric that reads the file, if it is one.
    """
    cls = dataset_class(dataset)
    path = path or paths_of(dataset).get('ann_file', '')
    if not path.endswith('.json') or '://' in path or not hasattr(cls, 'COCOAPI'):
        return
    names = coco_categories(path)
    if 'LVIS' in cls.__name__:  # takes all categories in the order of the file
        if moved(classes, names) or len(classes) != len(names):
            remedy = f'{cls.__name__} reads all categories in the order of its file: name them so'
            check_same_labels((f'{loader}.dataset', classes), (path, names), remedy)
        return
    absent = [name for name in classes if name not in names]
    if absent:
        # MMDetection would drop them silently and shift the labels of the others
        text = (
            f'{loader}: {len(absent)} of the {len(classes)} classes of the config are not among '
            f'the categories of {path}: {shorten(absent)}{spelling(absent[0], names)}; the file '
            f'has {len(names)}: {shorten(names)}. '
            'Set metainfo=dict(classes=(...)) in the data sets of train_, val_ and '
            'test_dataloader, and num_classes of the heads'
        )
        if 'classes' in given_metainfo(dataset) or cls.__name__.startswith('Coco'):
            raise UserError(text)
        warn(text)
    there = [name for name in names if name in classes]
    if moved(classes, there):
        if _by_file(metric):
            raise UserError(
                f'{loader}: {metric} evaluates classes in the order of {path} ({shorten(there)}); '
                f'the config has them as {shorten(classes)}; use CocoMetric'
            )
        warn(
            f'{loader}: {path} lists its categories in another order ({shorten(there)}) than '
            f'the config its classes ({shorten(classes)}). Labels follow the config here; in '
            'tools of MMDetection without hybrid_mm they follow the file'
        )


def check_things(
    model: dict[str, Any], dataset: dict[str, Any], classes: list[str], loader: str
) -> None:
    """Check that things come before stuff in the classes of a panoptic data set.

    Models tell them apart by the label: below ``num_things_classes`` it is a thing.
    """
    path = paths_of(dataset).get('ann_file', '')
    if not has_base(dataset_class(dataset), 'CocoPanopticDataset', 'mmdet') or '://' in path:
        return
    entries = {entry['name']: entry for entry in coco_category_entries(path)}
    things = [name for name in classes if entries.get(name, {}).get('isthing')]
    numbers = {node['num_things_classes'] for _, node in nodes(model, 'model')
               if isinstance(node.get('num_things_classes'), int)}  # fmt: skip
    if not numbers:
        return
    if classes[: len(things)] != things:
        stuff = next(name for name in classes if name not in things)
        raise UserError(
            f'{loader}: the class {stuff!r} is stuff (isthing of {path}), and stands before things '
            f'({shorten(things)}); list all things first, then the stuff'
        )
    if numbers != {len(things)}:
        raise UserError(
            f'{loader}: {len(things)} of the classes are things (isthing of {path}), '
            f'num_things_classes of the model is {min(numbers - {len(things)})}'
        )


def check_evaluator(cfg: Config, dataset: dict[str, Any], classes: list[str], loader: str) -> None:
    """Check the COCO files of the metrics of a dataloader as those of its data set."""
    key = loader.replace('dataloader', 'evaluator')
    for path, metric in metrics_of(cfg, key):
        file = metric.get('ann_file')
        if not isinstance(file, str):
            continue
        own = paths_of(dataset).get('ann_file')
        same = own is not None and os.path.realpath(file) == os.path.realpath(own)
        if str(metric['type']).rpartition('.')[2] == 'CocoMetric':  # of boxes and masks
            classes = [*(metainfo_of(dataset).get('thing_classes') or classes)]
        if same and not _by_file(metric['type']):
            continue  # it was checked
        try:
            check_categories(dataset, classes, path, file, metric['type'])
        except OSError as error:
            raise UserError(f'{path}.ann_file: {error}') from error


def _by_file(metric: str) -> bool:
    """Whether a metric numbers classes by its file, whatever their order in the config."""
    return metric.rpartition('.')[2] == 'CocoFastMetric'


def metrics_of(cfg: Config, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The metrics of an evaluator, each with its place in the config."""
    found = cfg.get(key) or ()
    if isinstance(found, dict):
        found = found.get('metrics', [found]) if found.get('type') == 'Evaluator' else [found]
        found = [found] if isinstance(found, dict) else found
    for i, metric in enumerate(found):
        if isinstance(metric, dict) and 'type' in metric:
            yield (key if len(found) == 1 else f'{key}.{i}'), metric


def check_loader(cfg: Config, loader: str) -> None:
    """Check that all data sets of a dataloader have the same classes in one order.

    Raises:
        UserError: They differ.
    """
    if is_open_vocabulary(cfg.model):
        return
    first, *others = readers(cfg[loader].dataset)
    classes = classes_of(first)
    for number, other in enumerate(others, 2):
        found = classes_of(other)
        if classes and found and classes != found:
            raise UserError(
                f'{loader}: data sets that are joined must have the same classes in the same '
                f'order; the first ({first["type"]}) has {shorten(classes)}, number {number} '
                f'({other["type"]}) has {shorten(found)}. Give all the same metainfo.classes'
            )


def check_splits(cfg: Config, first: str, second: str) -> None:
    """Check that labels stand for the same classes in two dataloaders.

    Args:
        cfg: Config of the run.
        first: Key of a dataloader; if there is none, nothing is checked.
        second: Key of another one.

    Raises:
        UserError: A class has other labels, or is in one of them only.
    """
    if not cfg.get(first) or not cfg.get(second) or is_open_vocabulary(cfg.model):
        return
    places = [next(readers(cfg[key].dataset)) for key in (first, second)]
    folders = [class_folders(place) for place in places]
    if folders[0] is not None and folders[1] is not None:
        roots = [next(iter(paths_of(place).values())) for place in places]
        check_same_labels(
            (f'{first} ({roots[0]})', folders[0]),
            (f'{second} ({roots[1]})', folders[1]),
            'labels are the positions of the class folders: make those that are missing, empty',
        )
    names = [classes_of(place) for place in places]
    if names[0] and names[1] and not any(is_video(place) for place in places):
        check_same_labels(
            (f'{first}.dataset', names[0]),
            (f'{second}.dataset', names[1]),
            'give both the same metainfo.classes',
        )


def _num_classes(node: Any, path: str = 'model') -> Iterator[tuple[str, int]]:
    """Every ``num_classes`` of a model's config that is one of the data set's classes.

    Others are that of region proposals, of stuff beside the things of a detector, and of borders.
    """
    if isinstance(node, dict):
        own = str(node.get('type')).rpartition('.')[2] == 'STDCHead'
        if isinstance(node.get('num_classes'), int) and not own:
            yield f'{path}.num_classes', node['num_classes']
        for key, value in node.items():
            if key not in ('rpn_head', 'backbone', 'semantic_head'):
                yield from _num_classes(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from _num_classes(value, f'{path}.{i}')


def check_num_classes(
    model: dict[str, Any], classes: list[str], place: str, things: int | None = None
) -> None:
    """Check that all heads of a model have as many classes as a data set, or as the weights.

    Args:
        model: Config of the model.
        classes: Names of the classes.
        place: What has them, for the message.
        things: Number of things among them, which heads for boxes and masks may have instead.
    """
    if is_open_vocabulary(model):
        return
    allowed = (len(classes), things)
    wrong = [(path, n) for path, n in _num_classes(model) if n not in allowed]
    if wrong:
        path, number = wrong[0]
        options = ' '.join(f'{path}={len(classes)}' for path, _ in wrong)
        raise UserError(
            f'{path} is {number}, but {place} has {len(classes)} classes '
            f'({shorten(classes, 4)}); use --cfg-options {options}'
        )
    for path, node in nodes(model, 'model'):  # heads of panoptic and instance segmentation
        things, stuff = node.get('num_things_classes'), node.get('num_stuff_classes')
        if isinstance(things, int) and isinstance(stuff, int) and things + stuff != len(classes):
            raise UserError(
                f'{path}: num_things_classes {things} and num_stuff_classes {stuff} are not '
                f'the {len(classes)} classes of {place} ({shorten(classes, 4)})'
            )


def is_open_vocabulary(model: dict[str, Any]) -> bool:
    """Whether a model gets its classes as text, so that its heads and data sets may differ."""
    texts = {'language_model', 'text_encoder'}
    return any(texts & node.keys() for _, node in nodes(model, 'model'))


def is_video(dataset: dict[str, Any]) -> bool:
    """Whether a data set is one of videos, where trackers follow one of its classes."""
    return has_base(dataset_class(dataset), 'BaseVideoDataset', 'mmdet')


def number_of_classes(model: dict[str, Any]) -> int | None:
    """The first ``num_classes`` of the heads of a model, or None."""
    return next((number for _, number in _num_classes(model)), None)


def meta_of_model(cfg: Config, weights: dict[str, Any], path: str) -> dict[str, Any]:
    """Class names (None if nothing has them) and palette of a model.

    Args:
        cfg: Config of the model; the default scope must be its own.
        weights: Content of a checkpoint, whose names go before those of the config's data set.
        path: The checkpoint, for messages.

    Raises:
        UserError: There are names for another number of classes than the model has.
    """
    ours = dataset_classes(cfg.test_dataloader.dataset)
    trained, there = classes_of_checkpoint(weights), ours.get('classes') or ()
    classes = trained or ours.get('classes')
    if classes:
        check_num_classes(
            cfg.model, classes, path if trained else 'the data set of test_dataloader'
        )
    if trained and moved(trained, there):
        warn(
            f'{path} has the classes of the config in another order: its names are given to the '
            f'results ({shorten(trained)}), not those of the config ({shorten(there)})'
        )
    return {**ours, **meta_of_checkpoint(weights), 'classes': classes}
