"""Check that a metric with an annotation file of its own knows the images that it is given."""

import os
from typing import Any

from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.runner import Runner

from hybrid_mm.errors import UserError, warn


class EvaluatedImagesHook(Hook):
    """Compare the images of data sets and of the COCO files of their metrics before the first step.

    Pycocotools ends the first validation at an image that the file of the metric does not list, and
    counts the objects of an image that the data set does not have as missed.
    """

    def before_run(self, runner: Runner) -> None:
        """Look at the loops that were built.

        Raises:
            UserError: The file of a metric lacks images of the data set.
        """
        for loop in (runner._val_loop, runner._test_loop):
            evaluator = getattr(loop, 'evaluator', None)
            if type(evaluator) is not Evaluator:  # others divide the images among their metrics
                continue
            for metric in evaluator.metrics:
                if getattr(metric, '_coco_api', None) is not None:
                    _compare(metric, loop.dataloader.dataset)


def _compare(metric: Any, dataset: Any) -> None:
    listed = metric._coco_api.imgs
    file, own = getattr(metric, 'ann_file', None), getattr(dataset, 'ann_file', None)
    if not hasattr(dataset, 'get_data_info'):
        return
    same = file and isinstance(own, str) and os.path.realpath(file) == os.path.realpath(own)
    if same and len(dataset) == len(listed):
        return
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    ids = [info.get('img_id') for info in infos]
    if None in ids:  # videos
        return
    unknown = [number for number in ids if number not in listed]
    name = type(metric).__name__
    if unknown:
        raise UserError(
            f'{name}: its ann_file {file} does not list {len(unknown)} of the {len(ids)} images '
            f'of the data set (ids {unknown[0]!r}, ...), which reads {own}; both must be one file'
        )
    for number, info in zip(ids, infos, strict=True):
        name_there = os.path.basename(str(listed[number].get('file_name', '')))
        name_here = os.path.basename(str(info.get('img_path', name_there)))
        if name_there != name_here:
            raise UserError(
                f'{name}: image {number} is {name_there} in its ann_file {file}, but {name_here} '
                f'in the data set, which reads {own}; both must be one file'
            )
    more = len(listed) - len(set(ids))
    if more:
        warn(
            f'{name}: its ann_file {file} lists {more} images that the data set has not '
            f'({len(ids)} images of {own}): their objects count as missed'
        )
