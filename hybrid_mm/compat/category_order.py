"""Workaround for MMDetection's order of categories (B17)."""

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from hybrid_mm.compat.installed import read_text

_API = 'mmdet.datasets.api_wrappers.coco_api'


def b17_labels_in_order_of_classes() -> bool:
    """B17: MMDetection numbers labels by the file, and names them by ``metainfo.classes``.

    The categories of a COCO file are numbered in the order in which the file lists them. With
    ``classes`` in another order, or files that list their categories differently, labels have the
    names of other classes; and in the table of the metric for each class, which pycocotools sorts
    by id, values stand beside other names if the ids are not ascending. Here both follow
    ``classes``. Called where data sets are built: MMDetection is imported by then.

    https://github.com/open-mmlab/mmdetection/issues/4167, mended in MMDetection 2 only.
    Remove when ``CocoDataset`` numbers labels by ``classes``.

    Returns:
        Whether the workaround was needed.
    """
    api = sys.modules.get(_API)
    if api is None or api.COCO.get_cat_ids.__module__ == __name__ or not has_b17():
        return False
    in_file_order = api.COCO.get_cat_ids

    def get_cat_ids(
        self: Any, cat_names: Any = (), sup_names: Any = (), cat_ids: Any = ()
    ) -> list[int]:
        found = in_file_order(self, cat_names, sup_names, cat_ids)
        if isinstance(cat_names, str):
            return found
        place = {name: i for i, name in enumerate(cat_names)}
        return sorted(found, key=lambda number: place.get(self.cats[number]['name'], 0))

    api.COCO.get_cat_ids = get_cat_ids
    metrics = import_module('mmdet.evaluation.metrics')
    for key in ('coco_metric', 'ov_coco_metric'):  # older releases have less
        metric = getattr(metrics, key, None)
        for name in ('COCOeval', 'COCOevalMP'):
            evaluator = getattr(metric, name, None)
            if evaluator is not None:
                setattr(metric, name, _by_given_ids(evaluator, metric.__name__, name))
    return True


def has_b17() -> bool:
    """Whether the installed MMDetection has B17, see :func:`b17_labels_in_order_of_classes`."""
    return 'order of returned `cat_ids` will not' in read_text('mmdet', 'datasets/coco.py')


def _by_given_ids(evaluator: type, module: str, name: str) -> type:
    """Class whose table has the categories in the order in which its user named them."""

    def evaluate(self: Any) -> None:
        self._given = list(self.params.catIds)
        evaluator.evaluate(self)

    def accumulate(self: Any, p: Any = None) -> None:
        evaluator.accumulate(self, p)
        if not self.params.useCats:
            return
        order = _positions(self._given, self.params.catIds)
        self.eval['precision'] = self.eval['precision'][:, :, order]
        self.eval['scores'] = self.eval['scores'][:, :, order]
        self.eval['recall'] = self.eval['recall'][:, order]

    # under this name it is found by other processes, to which evaluators are sent
    members = dict(evaluate=evaluate, accumulate=accumulate, __module__=module, __qualname__=name)
    return type(name, (evaluator,), members)


def _positions(wanted: Sequence[int], there: Sequence[int]) -> list[int]:
    place = {number: i for i, number in enumerate(there)}
    return [place[number] for number in wanted]
