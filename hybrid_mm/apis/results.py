"""Results of predictions as plain NumPy arrays."""

import dataclasses

import numpy as np
from mmengine.structures import BaseDataElement

from hybrid_mm.errors import UserError


@dataclasses.dataclass
class Prediction:
    """Base class of all results.

    Attributes:
        index: Position of the image among the inputs, from 0; unreadable ones count.
        name: Path relative to the folder given as input, or ``array0`` and so on.
        image: The image before the pipeline, (H, W, 3), BGR.
        classes: Names of the classes.
        sample: The data sample of the OpenMMLab package, on the CPU, for its own functions.
        frame: Number of the frame in its video, from 0.
        fps: Frames per second of the video.
    """

    index: int
    name: str
    image: np.ndarray
    classes: tuple[str, ...]
    sample: BaseDataElement = dataclasses.field(repr=False)
    frame: int | None = None
    fps: float | None = None


@dataclasses.dataclass
class Detection(Prediction):
    """Objects of an image, best first.

    Attributes:
        boxes: (n, 4), float32: left, top, right, bottom in pixels of the image. Those of MMRotate's
            detectors are rotated, (n, 5): x and y of the centre, width, height, and the angle from
            the x axis to the side of that width, in radians, clockwise on the screen; or
            quadrilaterals, (n, 8), of their corners.
        scores: (n,), float32.
        labels: (n,), int64, indices into ``classes``.
        masks: (n, H, W), bool; None if the model has no mask head.
    """

    boxes: np.ndarray = dataclasses.field(kw_only=True)
    scores: np.ndarray = dataclasses.field(kw_only=True)
    labels: np.ndarray = dataclasses.field(kw_only=True)
    masks: np.ndarray | None = dataclasses.field(kw_only=True)

    def __len__(self) -> int:
        return len(self.scores)

    def corners(self) -> np.ndarray:
        """Corners of the boxes, (n, 4, 2), float32: x and y of one after the other."""
        if self.boxes.shape[1] == 4:
            return self.boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
        if self.boxes.shape[1] == 8:
            return self.boxes.reshape(-1, 4, 2)
        centres, angles = self.boxes[:, None, :2], self.boxes[:, 4]
        cos, sin = np.cos(angles), np.sin(angles)
        x = self.boxes[:, 2, None] / 2 * np.stack([cos, sin], -1)
        y = self.boxes[:, 3, None] / 2 * np.stack([-sin, cos], -1)
        return centres + np.stack([-x - y, x - y, x + y, y - x], 1)

    def above(self, threshold: float) -> 'Detection':
        """The objects with scores of at least ``threshold``."""
        keep = self.scores >= threshold
        masks = None if self.masks is None else self.masks[keep]
        kept = dict(boxes=self.boxes[keep], scores=self.scores[keep], labels=self.labels[keep])
        return dataclasses.replace(self, **kept, masks=masks)


@dataclasses.dataclass
class Segmentation(Prediction):
    """Semantic segmentation of an image.

    Attributes:
        label_map: (H, W), int64, indices into ``classes``.
    """

    label_map: np.ndarray = dataclasses.field(kw_only=True)

    def shares(self) -> dict[str, float]:
        """Fraction of the pixels by class, largest first; only classes that occur."""
        values, counts = np.unique(self.label_map, return_counts=True)
        order = np.argsort(-counts)
        return {self.classes[values[i]]: float(counts[i] / counts.sum()) for i in order}


@dataclasses.dataclass
class Classification(Prediction):
    """Scores of the classes of an image.

    Attributes:
        scores: (number of classes,), float32.
    """

    scores: np.ndarray = dataclasses.field(kw_only=True)

    def top(self, number: int = 5) -> list[tuple[str, float]]:
        """The classes with the highest scores, best first."""
        order = np.argsort(-self.scores)[:number]
        return [(self.classes[i], float(self.scores[i])) for i in order]


def to_prediction(task: str, sample: BaseDataElement, shared: dict) -> Prediction:
    """Convert a data sample to the result of a task.

    Args:
        task: 'detection', 'segmentation' or 'classification'.
        sample: Output of a model's ``test_step``, on the CPU.
        shared: Attributes of :class:`Prediction`.

    Raises:
        UserError: The model predicts no instances.
    """
    shared = dict(shared, sample=sample)
    if task == 'segmentation':
        # those of segmenters with one channel for two classes are floating-point numbers
        return Segmentation(**shared, label_map=sample.pred_sem_seg.data[0].long().numpy())
    if task == 'classification':
        return Classification(**shared, scores=sample.pred_score.float().numpy())
    found = sample.get('pred_instances')
    if found is None:
        raise UserError(
            'the model predicts no instances; a panoptic one does with --cfg-options '
            'model.test_cfg.instance_on=True'
        )
    return Detection(
        **shared,
        boxes=found.bboxes.float().numpy(),
        scores=found.scores.float().numpy(),
        labels=found.labels.numpy(),
        masks=found.masks.numpy().astype(bool, copy=False) if 'masks' in found else None,
    )
