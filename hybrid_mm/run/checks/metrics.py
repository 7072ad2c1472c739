"""Checks of the arguments of metrics that depend on the classes, before a run."""

from typing import Any

from mmengine.config import Config
from mmengine.registry import METRICS, DefaultScope

from hybrid_mm.errors import UserError, nearest, warn
from hybrid_mm.run.checks.classes import metrics_of
from hybrid_mm.run.checks.datasets import dataset_class, has_base
from hybrid_mm.run.config import checkpoint_hook
from hybrid_mm.run.registered import arguments, registered_class

_OF_KEYPOINTS = ('', ' .5', ' .75', ' (M)', ' (L)')


def check_metrics(cfg: Config, dataset: dict[str, Any], number: int, loader: str) -> None:
    """Check the arguments of an evaluator's metrics against the number of classes.

    Args:
        cfg: Config of the run.
        dataset: Config of the data set.
        number: Number of its classes.
        loader: Key of its dataloader.

    Raises:
        UserError: ``topk`` exceeds the number of classes, ``num_classes`` is another one, a label
            of ``valid_labels`` is none of them, or a metric has nothing to compare with.
    """
    key = loader.replace('dataloader', 'evaluator')
    for path, metric in metrics_of(cfg, key):
        _check_topk(metric.get('topk'), number, f'{path}.topk')
        named = metric.get('num_classes')
        if isinstance(named, int) and named != number:
            raise UserError(
                f'{path}.num_classes is {named}, but the data set of {loader} has {number} classes'
            )
        valid = metric.get('valid_labels') or ()
        wrong = [label for label in valid if not 0 <= label < number]
        if wrong:
            raise UserError(
                f'{path}.valid_labels has {wrong[0]}; the {number} classes of {loader} are '
                f'0..{number - 1}'
            )
        kind = str(metric['type']).rpartition('.')[2]
        if kind == 'CocoMetric' and not metric.get('ann_file'):
            _check_ground_truth(dataset, path, loader)
        if kind == 'IoUMetric':
            _check_ignored(metric, dataset, path, loader)
    head = cfg.model.get('head') or {}
    if isinstance(head, dict) and head.get('cal_acc'):
        _check_topk(head.get('topk'), number, 'model.head.topk')
    if loader == 'train_dataloader':
        _check_one_hot(cfg, number)


def check_save_best(cfg: Config) -> None:
    """Check that the validation returns the metrics by which the best checkpoint is chosen.

    Raises:
        UserError: One is none of them; names the nearest. If the config has a metric whose results
            are not known here, the first validation tells.
    """
    asked = checkpoint_hook(cfg).get('save_best')
    known: set[str] = set()
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        for _, metric in metrics_of(cfg, 'val_evaluator'):
            names = _results(metric)
            if names is None:
                return
            known |= names
    for name in [asked] if isinstance(asked, str) else asked or ():
        if known and name != 'auto' and name not in known:
            raise UserError(
                f'save_best {name!r} of the checkpoint hook is not one of the metrics that '
                f'val_evaluator returns{nearest(name, known, cutoff=0.3)}'
            )


def _results(metric: dict[str, Any]) -> set[str] | None:
    """Names of the results of the usual metrics; None if they are not known."""
    kind, prefix = str(metric['type']).rpartition('.')[2], metric.get('prefix')
    if has_base(registered_class(METRICS, metric['type']), 'CocoMetric', 'mmpose'):
        if metric.get('iou_type', 'keypoints') != 'keypoints' or metric.get('format_only'):
            return None
        names = {f'{name}{end}' for name in ('AP', 'AR') for end in _OF_KEYPOINTS}
        prefix = prefix or 'coco'
    elif kind == 'IoUMetric' and not metric.get('format_only'):
        names = {'aAcc', *metric.get('iou_metrics', ['mIoU'])}
        names |= {'mAcc'} if {'mIoU', 'mDice'} & names else set()
        names |= {'mPrecision', 'mRecall'} if 'mFscore' in names else set()
    elif kind == 'CocoMetric' and not any(
        metric.get(key) for key in ('metric_items', 'classwise', 'format_only')
    ):
        kinds = metric.get('metric', 'bbox')
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not {*kinds} <= {'bbox', 'segm'}:
            return None
        names = {f'{k}_mAP{end}' for k in kinds for end in ('', '_50', '_75', '_s', '_m', '_l')}
        prefix = prefix or 'coco'
    elif kind == 'Accuracy' and not metric.get('thrs'):
        topk = metric.get('topk', 1)
        names = {f'top{k}' for k in (topk if isinstance(topk, list | tuple) else [topk])}
        prefix = prefix or 'accuracy'
    else:
        return None
    return {f'{prefix}/{name}' if prefix else name for name in names}


def _check_ground_truth(dataset: dict[str, Any], path: str, loader: str) -> None:
    """Check that samples carry the objects for a metric that has no file of them."""
    for step in dataset.get('pipeline') or ():
        packs = str(step.get('type')).rpartition('.')[2] == 'PackDetInputs'
        if packs and 'instances' not in step.get('meta_keys', ()):
            raise UserError(
                f'{path} has no ann_file, and the pipeline of {loader} does not pass the objects '
                f'on; use --cfg-options {path}.ann_file=FILE'
            )


def _check_topk(topk: Any, number: int, path: str) -> None:
    for k in topk if isinstance(topk, list | tuple) else [topk]:
        if isinstance(k, int) and k > number:
            raise UserError(f'{path} has {k}, but there are {number} classes only')


def _check_one_hot(cfg: Config, number: int) -> None:
    """Check the preprocessor of a classifier where it makes vectors of labels, as for mixup."""
    settings = cfg.get('data_preprocessor') or {}
    augments = settings.get('batch_augments') or (cfg.model.get('train_cfg') or {}).get('augments')
    named = settings.get('num_classes')
    if isinstance(named, int) and named != number and (augments or settings.get('to_onehot')):
        raise UserError(
            f'data_preprocessor.num_classes is {named}, but the data set of train_dataloader has '
            f'{number} classes; use --cfg-options data_preprocessor.num_classes={number}'
        )


def _check_ignored(metric: dict[str, Any], dataset: dict[str, Any], path: str, loader: str) -> None:
    cls = dataset_class(dataset)
    given = {**arguments(cls), **dataset}.get('ignore_index', 255)
    counted = metric.get('ignore_index', 255)
    if isinstance(given, int) and isinstance(counted, int) and given != counted:
        warn(
            f'{loader}.dataset ignores the label {given}, {path} the label {counted}: pixels of '
            f'the label {given} count as errors; use --cfg-options {path}.ignore_index={given}'
        )
