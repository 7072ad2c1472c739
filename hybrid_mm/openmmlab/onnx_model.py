"""A model that is an ONNX file, in the place of a detector, segmenter or classifier in PyTorch."""

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor, nn

from hybrid_mm.errors import UserError, warn
from hybrid_mm.version import __version__

__all__ = ['OnnxModel']

# what a file of each task must return
_OUTPUTS = {
    'detection': ('boxes', 'scores', 'labels'),
    'segmentation': ('label_map',),
    'classification': ('scores',),
}


class OnnxModel(nn.Module):
    """A file that ``tools/export_onnx.py`` wrote, run by onnxruntime.

    It takes what a test pipeline gives, as the model that was exported does, and returns the same
    data samples: it can be tested by MMEngine's ``Runner`` and needs no weights. It cannot be
    trained.

    Args:
        file: The ONNX file, with the preparation of the images and the decoding of the outputs.
        device: Name of a torch device, 'cpu' or 'cuda:1'; by default the current GPU if both torch
            and onnxruntime have one, else the CPU.
        score_threshold: Scores of objects up to this do not count, from 0 to 1; None for that of
            the file.
        iou_threshold: Of the non-maximum suppression, likewise.

    Attributes:
        metadata: Properties of the file by name, decoded.
        task: 'detection', 'segmentation' or 'classification'.
        device: Where it runs.
        thresholds: Those that were given, by name.

    Raises:
        UserError: onnxruntime is not installed or has no provider for the device; the file is
            missing, damaged, from somewhere else or from a newer version, or its outputs are raw;
            it does not take a threshold.
    """

    def __init__(
        self,
        file: str | Path,
        device: str | torch.device | None = None,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
    ) -> None:
        super().__init__()
        self.file = str(file)
        self.session, self.device = _session(self.file, device)
        self.metadata = _metadata(self.file, self.session)
        self.task: str = self.metadata['task']
        image = self.session.get_inputs()[0]
        # inputs with default values
        optional = [item.name for item in self.session.get_overridable_initializers()]
        self.takes_size = 'size' in optional
        given = dict(score_threshold=score_threshold, iou_threshold=iou_threshold)
        self.thresholds = {name: value for name, value in given.items() if value is not None}
        _check_thresholds(self.file, self.thresholds, optional)
        self.takes_float = 'float' in image.type
        self.outputs = [item.name for item in self.session.get_outputs()]
        fixed = [length if isinstance(length, int) else None for length in image.shape]
        self.batch = fixed[0]
        # other files take the channels as they are loaded
        self.takes_rgb = (self.metadata.get('input') or {}).get('order', 'RGB') == 'RGB'
        self.fixed = tuple(fixed[1:] if self.takes_float else [fixed[3], *fixed[1:3]])
        # DistributedDataParallel refuses modules without parameters
        self.placeholder = nn.Parameter(torch.zeros(1))

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.metadata.get('classes') or ())

    def describe(self) -> dict[str, str]:
        """Lines of a run's summary: model, weights and device."""
        sizes = 'any size' if self.fixed[1:] == (None, None) else 'one size'
        return dict(
            model=f'{self.file} for {self.task}, images of {sizes}',
            weights='in the file',
            device=f'{self.device} (onnxruntime)',
        )

    @torch.no_grad()
    def test_step(self, data: dict[str, Any]) -> list[BaseDataElement]:
        """Predict on what a test pipeline gives.

        Args:
            data: ``inputs``, the images, each (C, H, W), uint8 or float, with three channels in
                the order blue, green, red unless the file takes those of images as they are; and
                ``data_samples``, which have ``ori_shape`` and, of detectors, ``scale_factor``.

        Returns:
            The data samples with ``pred_instances`` in pixels of the original image,
            ``pred_sem_seg`` at its size, or ``pred_score`` and ``pred_label``.

        Raises:
            UserError: The file cannot take these images.
        """
        images, samples = list(data['inputs']), list(data['data_samples'])
        if self.task == 'detection':
            from mmdet.models.utils import samplelist_boxtype2tensor

            samplelist_boxtype2tensor(samples)  # those of the truth, as MMDetection's models do
        groups: dict[tuple, list[int]] = {}
        for place, (image, sample) in enumerate(zip(images, samples, strict=True)):
            size = tuple(sample.ori_shape[:2]) if self.takes_size else None
            groups.setdefault((tuple(image.shape), size), []).append(place)
        for (_, size), places in groups.items():
            count = self.batch or len(places)
            for start in range(0, len(places), count):
                batch = places[start : start + count]
                found = self._run([images[place] for place in batch], size)
                for row, place in enumerate(batch):
                    one = {name: value[row] for name, value in found.items()}
                    self._add(samples[place], one)
        return samples

    def forward(self, inputs: Any, data_samples: Any = None, mode: str = 'predict') -> Any:
        """As the models of OpenMMLab: results of images that were loaded, not prepared."""
        if mode != 'predict' or data_samples is None:
            raise UserError(f'{self.file} predicts on data samples only; it cannot be trained')
        return self.test_step(dict(inputs=inputs, data_samples=data_samples))

    def _run(self, images: Sequence[Tensor], size: tuple[int, int] | None) -> dict[str, Tensor]:
        """Outputs by name, each (N, ...), of images of one shape (C, H, W)."""
        shape = tuple(images[0].shape)
        wrong = [
            f'{name} {length} instead of {fixed}'
            for name, length, fixed in zip(
                ('channels', 'height', 'width'), shape, self.fixed, strict=True
            )
            if fixed not in (None, length)
        ]
        if wrong:
            raise UserError(
                f'{self.file} cannot take what the test pipeline gives, {" and ".join(wrong)}; '
                'export the model for images of any size, or change the pipeline'
            )
        batch = torch.stack([*images, *[images[-1]] * ((self.batch or 0) - len(images))]).cpu()
        if shape[0] == 3 and self.takes_rgb:
            batch = batch.flip(1)  # from blue, green, red
        feed = {'image': (batch.float() if self.takes_float else self._bytes(batch)).numpy()}
        for name, value in self.thresholds.items():
            feed[name] = torch.tensor(float(value)).numpy()
        if size is not None:
            feed['size'] = torch.tensor(size).numpy()
        try:
            found = self.session.run(self.outputs, feed)
        except Exception as error:  # of several types of onnxruntime's own
            raise UserError(
                f'{self.file}: onnxruntime fails on {len(batch)} images of shape {shape}: '
                f'{_first_line(error)}'
            ) from error
        return {
            name: torch.from_numpy(value[: len(images)])
            for name, value in zip(self.outputs, found, strict=True)
        }

    def _bytes(self, batch: Tensor) -> Tensor:
        """Images (N, C, H, W) as (N, H, W, C), uint8; nothing is rounded."""
        found = batch.to(torch.uint8)
        if batch.dtype != torch.uint8 and not torch.equal(found.to(batch.dtype), batch):
            raise UserError(
                f'{self.file} takes whole numbers from 0 to 255, and the test pipeline gives '
                'others (to_float32, normalisation or 16 bit?): export the model with --input float'
            )
        return found.permute(0, 2, 3, 1).contiguous()

    def _add(self, sample: BaseDataElement, found: dict[str, Tensor]) -> None:
        """Put the results of an image into its data sample."""
        if self.task == 'classification':
            scores = found['scores']
            sample.set_pred_score(scores).set_pred_label(scores.argmax(0, keepdim=True))
        elif self.task == 'segmentation':
            labels = found['label_map'].long()
            if labels.shape != tuple(sample.ori_shape[:2]):
                raise UserError(
                    f'{self.file} returns label maps at the size of the image that it is given, '
                    f'{tuple(labels.shape)}, and not of the original, {sample.ori_shape}: it has '
                    'no input "size"; export the model again'
                )
            sample.set_data(dict(pred_sem_seg=PixelData(data=labels[None])))
        else:
            if 'boxes' in found:
                sample.pred_instances = self._instances(sample, found)
            if 'panoptic_map' in found:
                sample.pred_panoptic_seg = PixelData(sem_seg=found['panoptic_map'][None])

    def _instances(self, sample: BaseDataElement, found: dict[str, Tensor]) -> InstanceData:
        """Objects of an image, in pixels of the original."""
        kept = found['labels'] >= 0  # the others fill up the rows
        scale = torch.ones(4)
        if not self.takes_size:  # else they are in pixels of the original
            factor = torch.tensor(sample.get('scale_factor', (1.0, 1.0)), dtype=torch.float32)
            scale = factor.repeat(2)
        objects = InstanceData(
            bboxes=found['boxes'][kept] / scale,
            scores=found['scores'][kept],
            labels=found['labels'][kept],
        )
        if 'masks' in found and found['masks'].dtype == torch.bool:  # of the whole image
            objects.masks = found['masks'][kept]
        elif 'masks' in found:
            height, width = sample.ori_shape[:2]
            threshold = (self.metadata.get('thresholds') or {}).get('mask', 0.5)
            objects.masks = paste(found['masks'][kept], objects.bboxes, height, width, threshold)
        return objects


def paste(masks: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5) -> Tensor:
    """Masks of boxes as masks of the image.

    Args:
        masks: (n, h, w), probabilities within the boxes.
        boxes: (n, 4), left, top, right and bottom in pixels.
        height: Of the image.
        width: Of the image.
        threshold: Least probability of a pixel of the object.

    Returns:
        (n, height, width), bool; what MMDetection's ``FCNMaskHead`` makes of them.
    """
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    found = torch.zeros(len(masks), height, width, dtype=torch.bool)
    for i, (mask, box) in enumerate(zip(masks, boxes, strict=True)):
        pasted, place = _do_paste_mask(mask[None, None], box[None], height, width, skip_empty=True)
        found[i][place] = pasted[0] >= threshold
    return found


def _check_thresholds(file: str, given: dict[str, float], optional: Sequence[str]) -> None:
    """Check that a file takes thresholds, and that they are such."""
    for name, value in given.items():
        if name not in optional:
            raise UserError(
                f'{file} has no input {name}: only files of detectors whose boxes go through a '
                'non-maximum suppression do; export it again with another threshold'
            )
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise UserError(f'{name} of {file} must be a number from 0 to 1, got {value!r}')


def _session(file: str, device: str | torch.device | None) -> tuple[Any, torch.device]:
    """Open a file; the session and the device that it runs on."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            f'{file} is run by onnxruntime, which is not installed; pip install "hybrid-mm[export]"'
        ) from error
    if not Path(file).is_file():
        raise UserError(f'{file} does not exist, or is no file; expected a model in ONNX')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    for provider, settings in _providers(device, onnxruntime.get_available_providers()):
        try:
            session = onnxruntime.InferenceSession(file, options, [(provider, settings)])
        except Exception as error:  # of several types of onnxruntime's own
            raise UserError(
                f'{file} cannot be opened by onnxruntime {onnxruntime.__version__}: '
                f'{_first_line(error)}. Is it a whole file in ONNX?'
            ) from error
        if session.get_providers()[0] == provider:
            place = 'cpu' if provider.startswith('CPU') else f'cuda:{settings["device_id"]}'
            return session, torch.device(place)
        _without_gpu(device, f'onnxruntime cannot start {provider}')  # libraries of CUDA are absent
    raise AssertionError('the CPU provider starts always')


def _providers(
    device: str | torch.device | None, available: Sequence[str]
) -> Iterator[tuple[str, dict[str, int]]]:
    """Providers of a device, the best first; the CPU's follows where the device was not named."""
    cuda = 'CUDAExecutionProvider'
    place = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    if place.type == 'cuda':
        if cuda in available:
            index = torch.cuda.current_device() if place.index is None else place.index
            yield cuda, dict(device_id=index)
        else:
            _without_gpu(device, f'onnxruntime has no {cuda}, only {", ".join(available)}')
    elif place.type != 'cpu':
        raise UserError(f'onnxruntime is run on cpu or cuda here, not on {device}')
    yield 'CPUExecutionProvider', {}


def _without_gpu(device: str | torch.device | None, problem: str) -> None:
    """Stop if the user named the GPU; else say that the CPU is used."""
    if device is not None:
        raise UserError(f'{device}: {problem}; install onnxruntime-gpu, or use the CPU')
    warn(f'{problem}: running on the CPU; onnxruntime-gpu would use the GPU')


def _metadata(file: str, session: Any) -> dict[str, Any]:
    """Decoded properties of a file, which is end to end and not newer than this package."""
    stored = session.get_modelmeta().custom_metadata_map
    names = [item.name for item in session.get_outputs()]
    try:
        meta = {key: json.loads(value) for key, value in stored.items()}
    except ValueError:  # properties of someone else
        meta = {}
    if 'hybrid_mm' not in meta and 'classes' not in meta:
        raise UserError(
            f'{file} was not written by tools/export_onnx.py: it does not say what its inputs and '
            f'outputs ({", ".join(names[:4])}) mean'
        )
    if _release(str(meta.get('hybrid_mm'))) > _release(__version__):
        raise UserError(
            f'{file} was written by hybrid_mm {meta["hybrid_mm"]}, and this is {__version__}; '
            'update it: pip install -U hybrid-mm'
        )
    wanted = _OUTPUTS.get(meta.get('task', ''))
    if wanted == _OUTPUTS['detection'] and 'panoptic_map' in names:
        wanted = ()  # there may be no objects beside it
    if wanted is None or not set(wanted) <= set(names) or session.get_inputs()[0].name != 'image':
        raise UserError(
            f'{file} returns what the network computes ({", ".join(names[:4])}), not results; '
            'export it again, without --raw and --backbone-only'
        )
    return meta


def _release(version: str) -> tuple[int, ...]:
    """Numbers of a release, as (0, 1, 0)."""
    found = re.match(r'\d+(\.\d+)*', version)
    return tuple(map(int, found[0].split('.'))) if found else ()


def _first_line(error: Exception) -> str:
    return str(error).strip().split('\n')[0][:300]
