"""Checks of the label maps of segmentations before a run, by the data sets that the run reads."""

import copy
import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from hybrid_mm.data.checked import CheckedDataset, images_not_read
from hybrid_mm.data.sample_check import Colours, files_below, one_label
from hybrid_mm.errors import UserError, shorten, warn
from hybrid_mm.run.checks.datasets import dataset_class, paths_of
from hybrid_mm.run.config import nodes
from hybrid_mm.run.registered import arguments

FEW = 8
"""Samples of which image and label map are read."""
MANY = 500
"""Largest number of label maps that are read to find the classes of the user."""


def check_label_maps(
    datasets: Sequence[dict[str, Any]],
    model: dict[str, Any],
    loader: str,
    skip: int = 0,
    training: bool = False,
    colours: Colours | None = None,
) -> None:
    """Check files, and labels in a sample of the label maps, of the data sets of a loader.

    Args:
        datasets: Configs of data sets that read files, without wrappers.
        model: Config of the model.
        loader: Key of the data loader, for messages.
        skip: Number of broken samples that the run may leave out.
        training: Whether the labels are what is trained: classes that no map has are named.
        colours: Those of the palettes of other loaders, to compare with.

    Raises:
        UserError: More samples are broken than may be left out, the label maps hold one class, or
            the heads do not leave out what the data set ignores.
    """
    samples = [
        _LabelMaps(dataset, loader, skip) for dataset in datasets if _has_label_maps(dataset)
    ]
    if not samples:
        return
    for sample in samples:
        sample.name_other_files()
    found = _Labels()
    for sample in samples:
        for index in spread(len(sample.data), FEW):
            found.add(sample, index)
    _check_colours(found, colours or Colours(), loader)
    classes = samples[0].classes
    suspicious = len(found.counted()) < 2 and len(classes) > 1
    own = training and any((d.get('metainfo') or {}).get('classes') for d in datasets)
    wanted = set(range(len(classes))) if own else set()
    if suspicious or own:
        places = [(sample, i) for sample in samples for i in range(len(sample.data))]
        random.Random(0).shuffle(places)
        for sample, index in places[:MANY]:
            if len(found.counted()) > 1 and wanted <= found.counted():
                break
            found.add(sample, index, image=False)
    if training:
        _check_heads(found, model, loader)
    number = sum(len(sample.data) for sample in samples)
    looked = f'{len(found.seen)} of {number} label maps were looked at'
    labels, ignored = found.counted(), found.ignored()
    shifted = any(sample.data.reduce_zero_label for sample in samples)
    problem = one_label(labels, ignored, len(classes), shifted)
    if problem:
        example = found.examples[min(found.examples) if ignored is None else ignored]
        text = f'{loader}: the label maps hold {problem} (e.g. {example}; {looked})'
        if training and ignored is not None:
            raise UserError(text)
        warn(text)
    elif own and wanted - labels:
        absent = [name for label, name in enumerate(classes) if label not in labels]
        warn(
            f'{loader}: {len(absent)} of {len(classes)} classes are in no label map: '
            f'{shorten(absent, 12)} ({looked}); nothing trains them'
        )


def _check_colours(found: '_Labels', colours: Colours, loader: str) -> None:
    known = colours.problem
    for path in sorted(found.seen):
        colours.add(path)
    if colours.problem != known:
        warn(f'{loader}: {colours.problem}')


def _check_heads(found: '_Labels', model: dict[str, Any], loader: str) -> None:
    """Check that the loss of each head can take the labels, and leaves out what the data set does.

    Raises:
        UserError: A label that the data set ignores is trained, or a head with one channel has a
            loss of several, or is one of a cascade.
    """
    for path, node in nodes(model, 'model'):
        if not isinstance(node.get('num_classes'), int) or 'head' not in path:
            continue
        if node.get('out_channels') == 1:
            _check_one_channel(path, node, str(model.get('type')))
        ignored = node.get('ignore_index', 255)
        wrong = sorted(found.outside - {ignored})
        if wrong and ignored is not None:  # None: the loss itself decides
            raise UserError(
                f'{loader}: {found.examples[wrong[0]]} has the label {wrong[0]}, which the data '
                f'set ignores, but the loss of {path} leaves out {ignored} only; use '
                f'--cfg-options {path}.ignore_index={wrong[0]}'
            )


def _check_one_channel(path: str, node: dict[str, Any], model: str) -> None:
    if node['num_classes'] > 2:
        raise UserError(
            f'{path} has out_channels=1 for {node["num_classes"]} classes; one channel tells two '
            'classes apart: leave it out'
        )
    losses = node.get('loss_decode', dict(type='CrossEntropyLoss'))
    for loss in losses if isinstance(losses, list | tuple) else [losses]:
        if str(loss.get('type')).endswith('CrossEntropyLoss') and not loss.get('use_sigmoid'):
            raise UserError(
                f'{path} has out_channels=1, but a {loss.get("type")} of several channels; set '
                f'use_sigmoid=True in {path}.loss_decode'
            )
    if model.endswith('CascadeEncoderDecoder'):
        raise UserError(
            f'{path} has out_channels=1, of which a {model} cannot predict; leave out_channels and '
            'threshold out, for two channels'
        )


def spread(number: int, count: int) -> range:
    """At most ``count`` indices, spread over ``range(number)``."""
    return range(0, number, max(1, number // count))[:count]


def _has_label_maps(dataset: dict[str, Any]) -> bool:
    """Whether a data set of MMSegmentation reads label maps from a local folder."""
    folder = paths_of(dataset).get('seg_map_path', '')
    backend = (dataset.get('backend_args') or {}).get('backend', 'local')
    cls = dataset_class(dataset)
    steps = [str(step.get('type')) for step in dataset.get('pipeline') or ()]
    return (
        os.path.isdir(folder)
        and backend in ('local', 'LocalBackend')
        and cls is not None
        and 'reduce_zero_label' in arguments(cls)
        and any('Annotation' in step for step in steps)
        and 'Load' in steps[0]  # else the run itself says what is wrong
    )


class _LabelMaps:
    """A data set with the loading steps of its pipeline."""

    def __init__(self, dataset: dict[str, Any], loader: str, skip: int):
        self.loader, self.skip = loader, skip
        steps = list(dataset['pipeline'])
        last = max(i for i, step in enumerate(steps) if 'Annotation' in str(step['type']))
        spec = copy.deepcopy({**dataset, 'pipeline': steps[: last + 1]})
        self.data = CheckedDataset(spec, skip)
        self.classes: Sequence[str] = self.data.metainfo.get('classes') or ()

    def labels(self, index: int, image: bool = True) -> tuple[str, np.ndarray]:
        """Path and labels of a sample, after ``reduce_zero_label`` and ``label_map``.

        Raises:
            BadSampleError: It is broken and may not be left out; else the next one is read.
        """
        steps = self.data.pipeline.transforms
        kept = steps
        if not image:
            names = [type(step).__name__ for step in steps]
            kept = [
                s for s, n in zip(steps, names, strict=True) if 'Annotation' in n or 'Check' in n
            ]
        try:
            self.data.pipeline.transforms = kept
            sample = self.data[index]
        finally:
            self.data.pipeline.transforms = steps
        return sample['seg_map_path'], sample['gt_seg_map']

    def name_other_files(self) -> None:
        """Name the files that are not read."""
        others = images_not_read(self.data.dataset)
        if others:
            folder = self.data.data_prefix.get('img_path')
            warn(
                f'{self.loader}: {others} in {folder} are not read, only *{self.data.img_suffix} '
                '(img_suffix); convert the others'
            )
        if self.data.seg_map_suffix.lower().endswith(('.jpg', '.jpeg')):
            warn(
                f'{self.loader}: label maps *{self.data.seg_map_suffix} are compressed with '
                'losses, which changes labels at the borders of objects; write PNG files instead'
            )
        if not self.data.ann_file and not self.data._indices:
            infos = map(self.data.get_data_info, range(len(self.data)))
            self._name_unused({os.path.normpath(info.get('seg_map_path', '')) for info in infos})

    def _name_unused(self, used: set[str]) -> None:
        folder, suffix = self.data.data_prefix['seg_map_path'], self.data.seg_map_suffix
        images = self.data.img_suffix
        if self.data.data_prefix.get('img_path') != folder or not images.endswith(suffix):
            images = '\0'  # they are not among the label maps
        unused = [
            name
            for name in sorted(files_below(folder))
            if name.endswith(suffix)
            and not name.endswith(images)
            and os.path.normpath(os.path.join(folder, name)) not in used
        ]
        if unused:
            warn(
                f'{self.loader}: {len(unused)} label maps in {folder} have no image and are not '
                f'read: {shorten(unused, 3)}'
            )


class _Labels:
    """Labels of the samples that were looked at.

    Attributes:
        seen: Paths of the label maps.
        examples: A label map by the label that it has.
    """

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.examples: dict[int, str] = {}
        self.outside: set[int] = set()

    def add(self, sample: _LabelMaps, index: int, image: bool = True) -> None:
        """Read a sample; see :meth:`_LabelMaps.labels`."""
        path, labels = sample.labels(index, image)
        self.seen.add(path)
        if labels.dtype == np.uint8:
            values = np.flatnonzero(np.bincount(labels.ravel()))
        else:
            values = np.unique(labels)
        for label in values:
            self.examples.setdefault(int(label), path)
            if label >= len(sample.classes) or label == sample.data.ignore_index:
                self.outside.add(int(label))

    def counted(self) -> set[int]:
        """Labels that are not ignored."""
        return self.examples.keys() - self.outside

    def ignored(self) -> int | None:
        """A value that is ignored, if one was found."""
        return min(self.outside, default=None)
