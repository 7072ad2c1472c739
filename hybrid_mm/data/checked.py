"""Wrapper of data sets that reports broken samples, and skips and counts them on request."""

import functools
import logging
import os
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

import torch
from mmengine.dataset import BaseDataset, Compose
from mmengine.logging import print_log
from mmengine.registry import DATASETS as ROOT_DATASETS
from PIL import UnidentifiedImageError

from hybrid_mm.compat.category_order import b17_labels_in_order_of_classes
from hybrid_mm.data.coco_check import load_coco
from hybrid_mm.data.coco_lists import Findings, Use
from hybrid_mm.data.missing_files import missing_files
from hybrid_mm.data.sample_check import (
    SampleCheck,
    check_file_end,
    is_hidden,
    is_image,
    other_images,
)
from hybrid_mm.data.wrapper import DatasetWrapper
from hybrid_mm.errors import UserError, shorten, warn
from hybrid_mm.registry import DATASETS


class BadSampleError(UserError):
    """A sample cannot be used. The message names its files and the problem."""

    def __init__(self, text: str):
        # a data loader raises errors of its workers again, with their traceback as the message
        super().__init__(text.rpartition(f'{__name__}.{type(self).__name__}: ')[2].strip())


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
        UserError: The annotation file cannot be used, files are missing, or no image is left.
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
        b17_labels_in_order_of_classes()
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
            loaders = {type(step).__name__ for step in steps}
            deep = bool(loaders & {'LoadDeepImage', 'LoadMultichannelImage'})
            steps.insert(loads[-1] + 1, SampleCheck(classes, ignored, not deep))

    def full_init(self) -> None:
        """Read and check the annotations."""
        if self._bad is not None:
            return
        if hasattr(self.dataset, 'COCOAPI') and not self.dataset._fully_initialized:
            self.dataset.COCOAPI = functools.partial(self._read_coco, self.dataset.COCOAPI)
        if not self.dataset.ann_file and not self.dataset._fully_initialized:
            self.dataset.load_data_list = functools.partial(
                _without_hidden, self.dataset.load_data_list, self.dataset.data_prefix
            )
        if hasattr(self.dataset, 'img_subdir') and not self.dataset._fully_initialized:
            parse = self.dataset.parse_data_info
            self.dataset.parse_data_info = functools.partial(_parse_xml, parse)
        if not self.dataset._fully_initialized:
            self.dataset.filter_data = functools.partial(self._filter, self.dataset.filter_data)
        try:
            self.dataset.full_init()
            empty = not len(self.dataset)
        except UserError:
            raise
        except ValueError:  # an empty list of samples cannot be serialized
            empty = not self.dataset.data_list and self.dataset.serialize_data
            if not empty:
                raise
        for name in ('COCOAPI', 'load_data_list', 'parse_data_info', 'filter_data'):
            vars(self.dataset).pop(name, None)
        if empty:
            where = self.dataset.ann_file or self.dataset.data_prefix
            others = images_not_read(self.dataset)
            suffixes = f'{others} are of another suffix' if others else ''
            reasons = '; '.join(filter(None, [str(self._found or ''), suffixes]))
            found = f' ({reasons})' if reasons else ''
            raise UserError(
                f'{type(self.dataset).__name__}: no image is left in {where}{found}; check the '
                f'file, img_suffix, metainfo.classes ({self._classes()}) and filter_cfg '
                f'({getattr(self.dataset, "filter_cfg", None)})'
            )
        self._bad = torch.zeros(len(self.dataset), dtype=torch.uint8).share_memory_()

    def _filter(self, filter_data: Callable[[], list[dict]]) -> list[dict]:
        """The samples that the data set keeps; their files must exist."""
        if hasattr(self.dataset, 'img_subdir') and not self.dataset.test_mode:
            self._count_objects()
        entries, indices = filter_data(), self.dataset._indices
        used = entries
        if isinstance(indices, int):
            used = entries[:indices] if indices >= 0 else entries[indices:]
        elif indices is not None:
            used = [entries[i] for i in indices if -len(entries) <= i < len(entries)]
        number, text = missing_files(self.dataset, used)
        if number > self.skip_bad_samples:  # else they are counted when they are loaded
            self._refuse(number, text)
        return entries

    def _count_objects(self) -> None:
        """Count the objects of XML files: those of other classes are not there any more."""
        names = self.dataset.metainfo.get('classes') or ()
        objects = Counter(
            names[entry['bbox_label']]
            for sample in self.dataset.data_list
            for entry in sample.get('instances', ())
        )
        counts = shorten([f'{count} {name}' for name, count in objects.most_common()]) or 'none'
        found = f'{len(self.dataset.data_list)} images; objects: {counts}'
        self._name_untrained(objects, found)

    def _classes(self) -> str:
        return shorten([str(name) for name in self.dataset.metainfo.get('classes') or ()]) or 'none'

    def _read_coco(self, api: type, path: str) -> Any:
        dataset = self.dataset
        own = not type(dataset).parse_data_info.__module__.startswith('mmdet.')
        if 'img' not in dataset.data_prefix and not own:
            raise UserError(
                f'{type(dataset).__name__}: data_prefix={dataset.data_prefix} names no folder of '
                "images; use dict(img='train/')"
            )
        masks = [t for t in self.pipeline.transforms if getattr(t, 'with_mask', False)]
        polygons_only = any(not getattr(step, 'poly2mask', True) for step in masks)
        use = Use(
            masks='all' if masks else '',
            polygons_only=polygons_only and not dataset.test_mode,
            evaluated=dataset.test_mode,
        )
        coco, self._found = load_coco(api, path, use, dataset.ann_file)
        broken = self._found.broken
        if broken:
            texts = '; '.join(list(broken.values())[:3])
            self._count(len(broken), f'{dataset.ann_file}: {texts}')
        if not dataset.test_mode and self._found.images:
            left_out = sum(map(len, self._found.left_out.values()))
            if 8 < self._found.annotations == left_out:  # not a broken object or two
                raise UserError(
                    f'{dataset.ann_file}: none of the annotations can be trained ({self._found}); '
                    'boxes are [x, y, width, height] in pixels'
                )
            self._name_untrained(self._found.objects, str(self._found))
        return coco

    def _name_untrained(self, objects: Counter, found: str) -> None:
        absent = [c for c in self.dataset.metainfo.get('classes') or () if not objects[c]]
        if absent:
            warn(
                f'{self.dataset.ann_file}: {len(absent)} classes have no object to train on: '
                f'{shorten(absent)} ({found})'
            )

    def _count(self, number: int, text: str) -> None:
        """Report the ``number``-th broken sample.

        Raises:
            BadSampleError: ``number`` exceeds ``skip_bad_samples``.
        """
        if number > self.skip_bad_samples:
            self._refuse(number, text)
        print_log(
            f'broken sample skipped, {number} of at most {self.skip_bad_samples}: {text}',
            logger='current',
            level=logging.WARNING,
        )

    def _refuse(self, number: int, text: str) -> NoReturn:
        if self.skip_bad_samples:
            raise BadSampleError(
                f'{number} broken samples, skip_bad_samples={self.skip_bad_samples} tolerates no '
                f'more; the last: {text}'
            )
        hint = '' if self.dataset.test_mode else '; skip_bad_samples=N leaves out up to N'
        raise BadSampleError(f'broken sample: {text}{hint}')

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
        if isinstance(error, UnidentifiedImageError):  # which does not name the file
            unknown = [path for path in paths if os.path.isfile(path) and not is_image(path)]
            error = ValueError(f'{unknown[0]} is not an image') if unknown else error
        text = str(error).strip() or 'no message'
        prefix = '' if type(error) is ValueError else f'{type(error).__name__}: '
        return f'{shorten(paths) or f"sample {index}"}: {prefix}{text}'


def _parse_xml(parse: Callable[[dict], Any], raw: dict) -> Any:
    """Read an annotation file in the format of Pascal VOC."""
    try:
        return parse(raw)
    except Exception as error:  # whatever is missing in it
        reason = str(error) or 'no message'
        raise UserError(
            f'annotation file {raw["xml_path"]} is not in the format of Pascal VOC '
            f'({type(error).__name__}: {reason})'
        ) from error


def _without_hidden(load: Callable[[], list[dict]], prefixes: dict[str, str]) -> list[dict]:
    """Samples that a data set finds in folders, without hidden files and folders."""
    folders = sorted((str(folder) for folder in prefixes.values() if folder), key=len, reverse=True)

    def hidden(entry: Any) -> bool:
        path = str(entry.get('img_path') or '') if isinstance(entry, dict) else ''
        folder = next((folder for folder in folders if path.startswith(folder)), None)
        return folder is not None and is_hidden(path.removeprefix(folder))

    return [entry for entry in load() if not hidden(entry)]


def images_not_read(dataset: BaseDataset) -> str:
    """Images in the folder of a data set whose suffixes it does not read, as '3 .JPG, 1 .webp'.

    Empty if there are none, or if the data set has a list of its images or no suffix.
    """
    suffix = getattr(dataset, 'img_suffix', None) or getattr(dataset, 'extensions', None)
    folders = dataset.data_prefix
    folder = folders.get('img_path') or folders.get('img') or ''
    if not suffix or dataset.ann_file or not os.path.isdir(folder):
        return ''
    maps = getattr(dataset, 'seg_map_suffix', '')
    return other_images(folder, suffix, folders.get('seg_map_path'), maps)
