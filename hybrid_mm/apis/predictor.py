"""Prediction by detectors, segmenters and classifiers alike.

The model is a config with a checkpoint, or a file in ONNX.
"""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, TRANSFORMS, VISUALIZERS, DefaultScope
from mmengine.structures import BaseDataElement

from hybrid_mm.apis.results import Prediction, to_prediction
from hybrid_mm.apis.sources import (
    FailedInput,
    Source,
    UnreadableInput,
    check_image,
    read_sources,
)
from hybrid_mm.checkpoints import load_weights, read_checkpoint
from hybrid_mm.data.deep_images import warn_of_dark
from hybrid_mm.data.images import count_frames
from hybrid_mm.data.multichannel import LoadMultichannelImage
from hybrid_mm.data.sample_check import check_file_end
from hybrid_mm.errors import UserError, plain_text, shorten, warn
from hybrid_mm.run.checks.channels import check_channels
from hybrid_mm.run.checks.classes import meta_of_model
from hybrid_mm.run.config import (
    inner_dataset,
    load_config,
    require,
    task_of,
    without_annotations,
    without_init_cfg,
)
from hybrid_mm.run.devices import torch_device
from hybrid_mm.run.onnx_file import (
    SUFFIX,
    config_of_file,
    is_onnx,
    model_of_file,
    split_options,
)
from hybrid_mm.run.published import checkpoint_of
from hybrid_mm.run.tta import set_test_time_augmentation

LOOKAHEAD = 4
"""Batches that are read ahead, so that images of one size can be batched."""

OnError = Callable[[str, Exception], None]
Read = tuple[Source, np.ndarray, dict]
"""An input, its image, and what the pipeline makes of it."""


class Predictor:
    """A model with its weights and its test pipeline.

    Only images of the same size after the pipeline are batched: none is padded to the size of
    another, so a batch gives the same results as its images one by one.

    Args:
        config: Config file of a detector, segmenter or classifier, or a config; or a
            ``model.onnx`` that ``tools/export_onnx.py`` wrote, which contains all that is needed
            and is run by onnxruntime.
        checkpoint: Weights: a file, ``hybrid_mm://NAME``, or 'auto', the published weights of the
            config; all keys and shapes must match the model. None with a ``model.onnx``.
        device: Name of a torch device; by default the first GPU if there is one (which
            onnxruntime can use, with a ``model.onnx``).
        batch_size: Images per batch.
        tta: Augment with the ``tta_pipeline`` of the config, else with a flip, and merge with its
            ``tta_model``.
        options: Settings of the config to override, as ``{'model.test_cfg.score_thr': 0.1}``. With
            a ``model.onnx``, those of the test pipeline, and of a detector's ``test_cfg`` (or
            ``test_cfg.rcnn``) ``score_thr`` and ``nms.iou_threshold``.

    Raises:
        UserError: (a ValueError) A file or the device does not exist, the config is one of poses,
            the checkpoint does not fit, or the ONNX file cannot be used.

    Example:
        >>> predictor = Predictor('configs/van/mask-rcnn_van-b0_fpn_1x_coco.py', 'epoch_12.pth')
        >>> for result in predictor.stream('photos', on_error=print):
        ...     print(result.name, result.above(0.5).boxes)
    """

    def __init__(
        self,
        config: str | Path | Config,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        batch_size: int = 1,
        tta: bool = False,
        options: dict | None = None,
    ):
        if batch_size < 1:
            raise UserError(f'batch_size must be at least 1, got {batch_size}')
        if is_onnx(config):
            if checkpoint is not None:
                raise UserError(
                    f'{config} contains its weights; leave out the checkpoint {checkpoint}'
                )
            self._use_file(str(config), device, tta, options)
        elif is_onnx(checkpoint):
            raise UserError(f'{checkpoint} contains its config; leave out {config}')
        elif checkpoint is None:
            raise UserError(f'{config} needs a checkpoint; only a {SUFFIX} file contains its own')
        else:
            self._use_config(config, checkpoint, device, tta, options)
        self.batch_size = batch_size
        with DefaultScope.overwrite_default_scope(self.cfg.default_scope):
            steps = inner_dataset(self.cfg.test_dataloader.dataset).pipeline
            loader, *steps = without_annotations(steps)
            try:
                self._load, self._prepare = TRANSFORMS.build(loader), Compose(steps)
            except KeyError as error:
                if not is_onnx(config):  # of a config, whose custom_imports are imported
                    raise
                raise UserError(
                    f'{config}: a transform of its test pipeline is not known here: '
                    f'{plain_text(error)}; import the module that registers it before'
                ) from error
        self._visualizer = None

    def _use_config(
        self,
        config: str | Path | Config,
        checkpoint: str | Path,
        device: str | None,
        tta: bool,
        options: dict | None,
    ) -> None:
        """Build the model of a config, with the weights of a checkpoint."""
        cfg = copy.deepcopy(config) if isinstance(config, Config) else load_config(str(config))
        if options:
            cfg.merge_from_dict(options)
        self.cfg, self.task = cfg, task_of(cfg)
        if self.task == 'pose':
            raise UserError(
                'poses are predicted within boxes of persons, which Predictor does not find; use '
                'mmpose.apis.MMPoseInferencer, or tools/test.py --show-dir on a data set'
            )
        require(cfg, 'model', 'test_dataloader.dataset')
        check_channels(cfg, 'test')
        self.device = torch_device(device)
        checkpoint = checkpoint_of(cfg, checkpoint)
        weights = read_checkpoint(checkpoint)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            if tta:
                set_test_time_augmentation(cfg)
            model = revert_sync_batchnorm(MODELS.build(without_init_cfg(cfg.model)))
            load_weights(model, weights, checkpoint)
            self.meta = self._meta(weights, checkpoint)
            self.model = model.to(self.device).eval()

    def _use_file(self, file: str, device: str | None, tta: bool, options: dict | None) -> None:
        """Take the model, its test pipeline and its classes from an ONNX file."""
        if tta:
            raise UserError(
                f'{file} predicts on images as they are; test-time augmentation needs the config '
                'and the checkpoint'
            )
        device = None if device is None else str(torch_device(device))
        thresholds, of_data = split_options(file, options)
        self.model = MODELS.build(model_of_file(file, device, thresholds))
        metadata = self.model.metadata
        self.cfg = config_of_file(file, metadata)
        self.cfg.merge_from_dict(of_data)
        self.task, self.device = self.model.task, self.model.device
        self.meta = dict(classes=metadata['classes'])
        if metadata.get('palette'):  # JSON has no tuples, as visualizers want them
            self.meta['palette'] = [tuple(colour) for colour in metadata['palette']]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, from the checkpoint, else from the config's data set."""
        return tuple(self.meta['classes'])

    def __call__(self, inputs, on_error: OnError | None = None) -> list[Prediction]:
        """Return the results of all inputs; :meth:`stream` keeps only a few in memory."""
        return list(self.stream(inputs, on_error))

    def stream(self, inputs, on_error: OnError | None = None) -> Iterator[Prediction]:
        """Predict on inputs one after the other.

        Of a file with several frames or pages the first is taken; a warning at the end names those.

        Args:
            inputs: Array (H, W, 3), uint8, BGR, path of an image, of a folder of images (searched
                recursively) or of a video, or an iterable of those. If the test pipeline loads
                images with ``LoadMultichannelImage``, an array (H, W, C) as a file has it.
            on_error: Called with the name of an input and the error if it cannot be read, if the
                pipeline cannot prepare it, or if the model fails on it; the remaining inputs are
                then processed. By default the error is raised.

        Yields:
            One :class:`hybrid_mm.apis.Detection`, ``Segmentation`` or ``Classification`` for each
            image or frame, in the order of the inputs.

        Raises:
            UserError: (a ValueError) An input does not exist, or is not one of the above;
                :class:`FailedInput` without ``on_error``.
        """
        window: list[Read] = []
        several = []
        size = self.batch_size * (LOOKAHEAD if self.batch_size > 1 else 1)
        for source in read_sources(inputs):
            try:
                window.append((source, *self._read(source)))
                pages = source.path is not None and not self._multichannel
                if pages and count_frames(source.path) > 1:
                    several.append(source.name)
            except FailedInput as error:
                if on_error is None:
                    raise
                on_error(source.label, error)
            if len(window) == size:
                yield from self._predict(window, on_error)
                window = []
        yield from self._predict(window, on_error)
        if several:
            warn(
                f'{len(several)} files have several frames or pages, of which the first was '
                f'taken: {shorten(several)}'
            )

    def draw(self, prediction: Prediction, threshold: float = 0.3) -> np.ndarray:
        """Draw a result on its image.

        Args:
            prediction: Result of this predictor.
            threshold: Lowest score of an object that is drawn.

        Returns:
            Image, (H, W, 3), uint8, BGR.
        """
        visualizer = self._visualizer or self._build_visualizer()
        image, sample = np.ascontiguousarray(prediction.image[..., ::-1]), prediction.sample
        if self.task == 'classification':
            drawn = visualizer.visualize_cls(
                image, sample, classes=list(self.classes), draw_gt=False
            )
        else:
            extra = dict(pred_score_thr=threshold) if self.task == 'detection' else {}
            visualizer.add_datasample('prediction', image, sample, draw_gt=False, **extra)
            drawn = visualizer.get_image()
        return np.ascontiguousarray(drawn[..., ::-1])

    def _read(self, source: Source) -> tuple[np.ndarray, dict]:
        """Read an image; return it and the output of the pipeline."""
        if source.problem is not None:
            raise UnreadableInput(f'{source.label} cannot be read: {source.problem}')
        data = self._from_array(source) if source.path is None else self._from_file(source)
        image = data['img']
        try:
            prepared = self._prepare(data)
            if prepared is None:
                raise ValueError('a transform leaves it out')
        except Exception as error:  # whatever a transform raises
            size = f'{image.shape[1]} x {image.shape[0]} pixels (width x height)'
            raise FailedInput(
                f'{source.label}: the test pipeline cannot prepare an image of {size}: '
                f'{_reason(error)}'
            ) from error
        return self._picture(image), prepared

    @property
    def _multichannel(self) -> bool:
        """Whether the pipeline loads images of any number of channels."""
        return isinstance(self._load, LoadMultichannelImage)

    def _picture(self, image: np.ndarray) -> np.ndarray:
        """A loaded image as one that can be drawn on, (H, W, 3), uint8, BGR."""
        if self._multichannel:
            return self._load.to_picture(image)
        return image.clip(0, 255).astype(np.uint8, copy=False)

    def _from_array(self, source: Source) -> dict:
        image = source.image
        if self._multichannel:
            try:
                found = self._load.from_array(image, source.label)
            except ValueError as error:
                raise UnreadableInput(str(error)) from error
            return dict(found, img_path=None, img_id=source.index)
        check_image(image)
        if getattr(self._load, 'to_float32', False):
            image = image.astype(np.float32)
        shape = image.shape[:2]
        return dict(img=image, img_shape=shape, ori_shape=shape, img_path=None, img_id=source.index)

    def _from_file(self, source: Source) -> dict:
        """Read a file as training does, and as strictly."""
        try:
            if not source.path.is_file():
                there = source.path.is_dir() or source.path.exists()
                raise OSError(
                    'it is not a file' if there else 'it does not exist, or is a dead link'
                )
            check_file_end(str(source.path))
            if type(self._load).__name__ == 'LoadImageFromFile':
                warn_of_dark(str(source.path))
            try:
                data = self._load(dict(img_path=str(source.path), img_id=source.index))
                assert data is not None
            except AssertionError as error:
                raise ValueError('it is not an image that can be decoded here') from error
        except Exception as error:  # whatever a decoder raises
            raise UnreadableInput(f'{source.path} cannot be read: {_reason(error)}') from error
        return data

    @torch.no_grad()
    def _predict(self, window: list[Read], on_error: OnError | None) -> Iterator[Prediction]:
        """Predict on images that were read, batching those of one size; results in their order."""
        groups: dict[tuple, list[int]] = {}
        for place, (_, _, data) in enumerate(window):
            groups.setdefault(_shapes(data), []).append(place)
        found: dict[int, BaseDataElement | FailedInput] = {}
        with DefaultScope.overwrite_default_scope(self.cfg.default_scope):
            for places in groups.values():
                for start in range(0, len(places), self.batch_size):
                    batch = places[start : start + self.batch_size]
                    results = self._step([window[place] for place in batch])
                    found.update(zip(batch, results, strict=True))
        for place, (source, image, _) in enumerate(window):
            sample = found[place]
            if isinstance(sample, FailedInput):
                if on_error is None:
                    raise sample
                on_error(source.label, sample)
                continue
            shared = dict(
                index=source.index,
                name=source.name,
                image=image,
                classes=self.classes,
                frame=source.frame,
                fps=source.fps,
            )
            yield to_prediction(self.task, sample, shared)

    def _step(self, batch: list[Read]) -> list[BaseDataElement | FailedInput]:
        """Predict on a batch; on its images one by one, if the model fails on it."""
        try:
            found = self.model.test_step(pseudo_collate([data for _, _, data in batch]))
            return [sample.cpu() for sample in found]
        except Exception as error:  # whatever a network raises
            if 'CUDA error' in str(error):  # nothing works after that
                raise
            if len(batch) == 1:
                source, _, data = batch[0]
                failed = FailedInput(
                    f'{source.label}: the model fails on the prepared image of shape '
                    f'{_shapes(data)[0]}: {_reason(error)}'
                )
                failed.__cause__ = error
                return [failed]
        # here, where the error and what it holds on to are gone: perhaps memory was short
        return [result for one in batch for result in self._step([one])]

    def _meta(self, weights: dict, checkpoint: str) -> dict:
        """Class names and palette from the checkpoint, else from the config's data set."""
        meta = meta_of_model(self.cfg, weights, checkpoint)
        if not meta['classes']:
            raise UserError(
                'neither the checkpoint nor the config names the classes; use --cfg-options '
                'test_dataloader.dataset.metainfo.classes=a,b,...'
            )
        return meta

    def _build_visualizer(self):
        spec = {k: v for k, v in self.cfg.visualizer.items() if k != 'vis_backends'}
        with DefaultScope.overwrite_default_scope(self.cfg.default_scope):
            self._visualizer = VISUALIZERS.build({**spec, 'name': f'predictor{id(self)}'})
        meta = dict(self.meta)
        if self.task == 'segmentation' and meta.get('palette') is None:
            colours = np.random.default_rng(42).integers(0, 256, (len(self.classes), 3))
            meta['palette'] = colours.tolist()
        self._visualizer.dataset_meta = meta
        return self._visualizer


def _shapes(data: dict) -> tuple[tuple[int, ...], ...]:
    """Shapes of the inputs that the pipeline gives: one, or several of an augmented image."""
    inputs = data['inputs'] if isinstance(data['inputs'], list) else [data['inputs']]
    return tuple(tuple(x.shape) for x in inputs)


def _reason(error: Exception) -> str:
    """First line of the text of an exception, with its type unless it is a ``ValueError``."""
    text = str(error).strip().split('\n')[0]
    kind = type(error).__name__
    return text if text and type(error) is ValueError else f'{kind}: {text}' if text else kind
