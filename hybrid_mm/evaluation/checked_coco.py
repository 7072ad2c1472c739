"""MMDetection's metric on the checked content of its annotation file."""

from typing import Any

from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path
from mmengine.registry import METRICS as ROOT_METRICS

from hybrid_mm.data.coco_check import load_coco
from hybrid_mm.data.coco_lists import Use
from hybrid_mm.errors import UserError, shorten, warn
from hybrid_mm.registry import METRICS


@METRICS.register_module(name='CheckedCocoMetric')
def checked_coco_metric(
    inner: str,
    ann_file: str,
    backend_args: dict | None = None,
    sort_categories: bool = False,
    **settings: Any,
) -> BaseMetric:
    """Build a metric of MMDetection that compares with what the data set would read.

    ``CocoMetric`` and its kin read their annotation file themselves, and find what they cannot use
    at the end of the first validation. Here the file is checked and converted as in
    :class:`hybrid_mm.data.CheckedDataset` before the first step.

    Args:
        inner: Type of the metric, ``CocoMetric`` or one that is derived from it.
        ann_file: Annotation file.
        backend_args: Storage of the file; see MMEngine.
        sort_categories: Whether labels number the categories in the order of their ids.
        **settings: Other arguments of the metric.

    Raises:
        UserError: The file cannot be used; see ``hybrid_mm.data.coco_check.check_coco``.
    """
    from mmdet.datasets.api_wrappers import COCO  # MMDetection is there, or `inner` is not

    metric = ROOT_METRICS.build(dict(settings, type=inner, backend_args=backend_args))
    masks = 'all' if 'segm' in metric.metrics else ''
    with get_local_path(ann_file, backend_args=backend_args) as path:
        coco, found = load_coco(COCO, path, Use(masks=masks, evaluated=True), ann_file)
    if found.broken:
        raise UserError(
            f'{ann_file}: {len(found.broken)} images cannot be evaluated: '
            f'{shorten(list(found.broken.values()), 3)}'
        )
    if not found.annotations and not metric.format_only:
        warn(f'{ann_file} has no annotations: all results of {inner} will be -1')
    if 'proposal_fast' in metric.metrics and any(isinstance(number, str) for number in coco.imgs):
        raise UserError(f'{ann_file}: the metric proposal_fast needs numbers as ids of images')
    if sort_categories:
        coco.cats = dict(sorted(coco.cats.items()))
        coco.dataset['categories'].sort(key=lambda category: category['id'])
    metric._coco_api, metric.ann_file = coco, ann_file
    return metric
