"""Wrapper of data sets that reports broken samples, and skips and counts them on request."""

import functools
import logging
import mmap
import os
from typing import Any

import numpy as np
import torch
from mmengine.dataset import BaseDataset, Compose
from mmengine.logging import print_log
from mmengine.registry import DATASETS as ROOT_DATASETS

from hybrid_mm.data.coco_check import load_coco
from hybrid_mm.data.coco_lists import Findings, Use
from hybrid_mm.data.wrapper import DatasetWrapper
from hybrid_mm.errors import UserError, shorten, warn
from hybrid_mm.registry import DATASETS


class BadSampleError(UserError):
    """A sample cannot be used. The message names its files and the problem."""

    def __init__(self, text: str):
        # a data loader raises errors of its workers again, with their traceback as the message
        super().__init__(text.rpartition(f'{__name__}.{type(self).__name__}: ')[2].strip())


def check_file_end(path: str) -> None:
    """Check that a file is not empty and, if it is a JPEG or PNG file, complete.

    Decoders may replace what is missing with grey.

    Raises:
        ValueError: The file is truncated.
    """
    size = os.path.getsize(path)
    if not size or not _is_complete(path):
        raise ValueError(f'{path} is truncated ({size} bytes)')


def _is_complete(path: str) -> bool:
    # memory-mapped: of a complete file only the beginning and the end are read
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:2] == b'\xff\xd8':
            start = 2
            while data[start : start + 1] == b'\xff' and data[start + 1 : start + 2] != b'\xda':
                start += 2 + int.from_bytes(data[start + 2 : start + 4], 'big')
            return data.rfind(b'\xff\xd9', start) > 0  # a thumbnail before that has its own end
        return data[:4] != b'\x89PNG' or b'IEND' in data[-4096:]


class SampleCheck:
    """Transform after the loading ones: checks that image and annotations fit together.

    Args:
        num_classes: Number of classes of a semantic segmentation, else None.
        ignore_index: The label that is ignored, besides 255.
    """

    def __init__(self, num_classes: int | None = None, ignore_index: int = 255):
        self.num_classes = num_classes
        self.ignore_index = ignore_index

    def __call__(self, results: dict) -> dict:
        """Return the sample unchanged if it passes the checks.

        Raises:
            ValueError: The image is truncated; its size is not that of the annotations; a label
                map has several channels, more than 8 bits, another size or a label out of range.
        """
        path, shape = results.get('img_path'), tuple(results.get('ori_shape', ()))
        if path and os.path.isfile(path):
            check_file_end(path)
        stated = (results.get('height'), results.get('width'))
        if shape and None not in stated and shape != stated:
            raise ValueError(
                f'the image has {shape[0]} x {shape[1]} pixels (height x width, turned upright as '
                f'its EXIF data say), the annotations are for {stated[0]} x {stated[1]}'
            )
        if self.num_classes is not None and results.get('gt_seg_map') is not None:
            self._check_labels(results, shape, self.num_classes)
        return results

    def _check_labels(self, results: dict, shape: tuple, num_classes: int) -> None:
        path, labels = results['seg_map_path'], results['gt_seg_map']
        if labels.ndim != 2:
            raise ValueError(f'label map {path} has the shape {labels.shape}; expected one channel')
        if labels.shape != shape:
            raise ValueError(
                f'label map {path} has {labels.shape[0]} x {labels.shape[1]} pixels (height x '
                f'width), the image {shape[0]} x {shape[1]}'
            )
        if os.path.isfile(path):
            with open(path, 'rb') as file:
                head = file.read(25)
            if head.startswith(b'\x89PNG') and head[24] > 8:
                raise ValueError(
                    f'label map {path} has {head[24]} bits per pixel; MMSegmentation keeps 8, '
                    'which would change labels'
                )
        counts = np.bincount(labels.ravel(), minlength=256)
        counts[[self.ignore_index, 255]] = 0
        wrong = np.flatnonzero(counts[num_classes:])
        if len(wrong):
            raise ValueError(
                f'label map {path} has the label {wrong[0] + num_classes} (after '
                f'reduce_zero_label and label_map); expected 0..{num_classes - 1} and '
                f'{self.ignore_index} (ignored)'
            )


@DATASETS.register_module()
class CheckedDataset(DatasetWrapper):
    """Data set whose broken samples raise an error, or are skipped and counted.

    Annotation files in COCO's format are checked when they are read; images, masks and label maps
    when they are loaded. Broken are files that are missing, unreadable or truncated, images of
    another size than their annotations or label map, labels out of range, and samples for which a
    transform of the pipeline fails. All other attributes are those of the inner data set.

    A skipped sample is replaced by the next good one: batches keep their size, and no random
    number is drawn. Each is reported once. The count covers all epochs and the workers of one
    process; in a distributed run every process counts its own samples.

    Args:
        dataset: The data set, or its config.
        skip_bad_samples: Largest number of broken samples that are skipped in training; one more
            is an error. 0: the first one is an error.
        lazy_init: Read the annotations at :meth:`full_init` only.

    Raises:
        UserError: The annotation file cannot be used, or no image is left.
        ValueError: ``skip_bad_samples`` is negative, or given for a data set in test mode, where
            metrics must cover all samples.
    """

    def __init__(
        self,
        dataset: dict | BaseDataset,
        skip_bad_samples: int = 0,
        lazy_init: bool = False,
    ) -> None:
        if isinstance(skip_bad_samples, bool) or not isinstance(skip_bad_samples, int):
            raise ValueError(f'skip_bad_samples must be a number, got {skip_bad_samples!r}')
        if skip_bad_samples < 0:
            raise ValueError(f'skip_bad_samples must not be negative, got {skip_bad_samples}')
        if isinstance(dataset, dict):
            dataset = ROOT_DATASETS.build(dict(dataset, lazy_init=True))
        if skip_bad_samples and dataset.test_mode:
            raise ValueError('skip_bad_samples is for training: metrics are those of all samples')
        self.dataset = dataset
        self.skip_bad_samples = skip_bad_samples
        self._found: Findings | None = None  # in an annotation file of COCO's format
        self._bad: torch.Tensor | None = None  # which samples are broken, shared with the workers
        self._check_pipeline()
        if not lazy_init:
            self.full_init()

    @property
    def pipeline(self) -> Compose:
        """Transforms of the inner data set; the checks are added to an assigned pipeline too."""
        return self.dataset.pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Compose) -> None:
        self.dataset.pipeline = pipeline
        self._check_pipeline()

    def _check_pipeline(self) -> None:
        steps = self.dataset.pipeline.transforms
        loads = [i for i, step in enumerate(steps) if type(step).__name__.startswith('Load')]
        if loads and not any(isinstance(step, SampleCheck) for step in steps):
            classes = None
            if hasattr(self.dataset, 'reduce_zero_label'):  # data sets of MMSegmentation
                classes = len(self.dataset.metainfo.get('classes') or ()) or None
            ignored = getattr(self.dataset, 'ignore_index', 255)
            steps.insert(loads[-1] + 1, SampleCheck(classes, ignored))

    def full_init(self) -> None:
        """Read and check the annotations."""
        if self._bad is not None:
            return
        if hasattr(self.dataset, 'COCOAPI') and not self.dataset._fully_initialized:
            self.dataset.COCOAPI = functools.partial(self._read_coco, self.dataset.COCOAPI)
        try:
            self.dataset.full_init()
            empty = not len(self.dataset)
        except UserError:
            raise
        except ValueError:  # an empty list of samples cannot be serialized
            empty = not self.dataset.data_list and self.dataset.serialize_data
            if not empty:
                raise
        vars(self.dataset).pop('COCOAPI', None)
        if empty:
            where = self.dataset.ann_file or self.dataset.data_prefix
            found = f' ({self._found})' if self._found else ''
            raise UserError(
                f'{type(self.dataset).__name__}: no image is left in {where}{found}; check the '
                f'file, img_suffix, metainfo.classes ({self._classes()}) and filter_cfg '
                f'({getattr(self.dataset, "filter_cfg", None)})'
            )
        self._bad = torch.zeros(len(self.dataset), dtype=torch.uint8).share_memory_()

    def _classes(self) -> str:
        return shorten([str(name) for name in self.dataset.metainfo.get('classes') or ()]) or 'none'

    def _read_coco(self, api: type, path: str) -> Any:
        dataset = self.dataset
        masks = [t for t in self.pipeline.transforms if getattr(t, 'with_mask', False)]
        polygons_only = any(not getattr(step, 'poly2mask', True) for step in masks)
        use = Use(
            masks='all' if masks else '',
            polygons_only=polygons_only and not dataset.test_mode,
            evaluated=dataset.test_mode,
        )
        coco, self._found = load_coco(api, path, use)
        broken = self._found.broken
        if broken:
            self._count(len(broken), f'{path}: {"; ".join(list(broken.values())[:3])}')
        if not dataset.test_mode and self._found.images:
            objects = self._found.objects
            absent = [c for c in dataset.metainfo.get('classes') or () if not objects[c]]
            if absent:
                warn(
                    f'{path}: {len(absent)} classes have no object to train on: {shorten(absent)} '
                    f'({self._found})'
                )
        return coco

    def _count(self, number: int, text: str) -> None:
        """Report the ``number``-th broken sample.

        Raises:
            BadSampleError: ``number`` exceeds ``skip_bad_samples``.
        """
        if not self.skip_bad_samples:
            hint = '' if self.dataset.test_mode else '; skip_bad_samples=N leaves out up to N'
            raise BadSampleError(f'broken sample: {text}{hint}')
        if number > self.skip_bad_samples:
            raise BadSampleError(
                f'{number} broken samples, skip_bad_samples={self.skip_bad_samples} tolerates no '
                f'more; the last: {text}'
            )
        print_log(
            f'broken sample skipped, {number} of at most {self.skip_bad_samples}: {text}',
            logger='current',
            level=logging.WARNING,
        )

    @property
    def num_bad_samples(self) -> int:
        """Number of broken samples found so far."""
        broken = len(self._found.broken) if self._found else 0
        return broken + (0 if self._bad is None else int(self._bad.sum()))

    def __len__(self) -> int:
        self.full_init()
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """Return a sample, or the next good one if it is broken and may be skipped.

        Raises:
            BadSampleError: More samples are broken than may be skipped.
        """
        self.full_init()
        assert self._bad is not None  # set by full_init
        for shift in range(len(self.dataset)):
            current = (index + shift) % len(self.dataset)
            if self._bad[current]:
                continue
            try:
                return self.dataset[current]
            except Exception as error:
                self._bad[current] = 1
                try:
                    self._count(self.num_bad_samples, self._describe(current, error))
                except BadSampleError as stop:
                    raise stop from error
        raise BadSampleError('no good sample is left')

    def _describe(self, index: int, error: Exception) -> str:
        info = self.dataset.get_data_info(index)
        paths = [str(info[key]) for key in ('img_path', 'seg_map_path') if info.get(key)]
        for path in filter(os.path.isfile, paths):
            try:  # the message of a decoder often lacks the reason
                check_file_end(path)
            except ValueError as truncated:
                error = truncated
        text = str(error).strip() or 'no message'
        prefix = '' if type(error) is ValueError else f'{type(error).__name__}: '
        return f'{shorten(paths) or f"sample {index}"}: {prefix}{text}'
