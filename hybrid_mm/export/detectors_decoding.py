"""From maps of scores and deltas to boxes, with fixed shapes: what detectors have in common.

Rows that MMDetection would leave out stay, with a score of -1.
"""

from typing import Any

import torch
from mmengine.config import ConfigDict
from torch import Tensor
from torch.nn import functional as F

from hybrid_mm.export.detections import same_detections
from hybrid_mm.export.graphs import ExportError, Network
from hybrid_mm.export.operators import nms_mask

__all__ = ['Detector', 'candidates', 'decode', 'nms_settings', 'positive', 'suppress']


class Detector(Network):
    """A detector: ``boxes``, ``scores``, ``labels`` and possibly ``masks``.

    Attributes:
        most: Largest number of objects of an image.
    """

    most: int

    def difference(
        self, found: dict[str, Tensor], x: Tensor, size: tuple[int, int], *settings: Tensor
    ) -> float:
        """See :class:`hybrid_mm.export.graphs.Network`; objects are compared in any order."""
        expected = dict(zip(self.outputs, self(x, size, *settings), strict=True))
        threshold = float(settings[0]) if settings else 0.0
        return same_detections(expected, found, max(size), threshold, self.most)


def nms_settings(config: ConfigDict | None, owner: str) -> tuple[float, bool]:
    """Threshold of a non-maximum suppression, and whether it disregards classes.

    Args:
        config: Entry ``nms`` of a ``test_cfg``.
        owner: Whose it is, for messages.

    Raises:
        ExportError: It is another suppression.
    """
    settings = dict(config or {})
    kind, agnostic = settings.pop('type', 'nms'), bool(settings.pop('class_agnostic', False))
    threshold = settings.pop('iou_threshold', settings.pop('iou_thr', None))
    settings.pop('split_thr', None)  # MMCV's limit of memory, without effect on the result
    if kind != 'nms' or threshold is None or settings:
        raise ExportError(
            f'{owner}: test_cfg has nms={dict(config or {})}; an end-to-end file has type nms with '
            'iou_threshold and class_agnostic only; change it, or use --raw'
        )
    return float(threshold), agnostic


def positive(config: ConfigDict, name: str, owner: str) -> int:
    """A number of a ``test_cfg`` that has to be positive.

    Args:
        config: The ``test_cfg``.
        name: Name of the number.
        owner: Whose it is, for messages.

    Raises:
        ExportError: It is not.
    """
    value = config.get(name)
    if not isinstance(value, int) or value < 1:
        raise ExportError(
            f'{owner}: test_cfg has {name}={value!r}; an end-to-end file needs a number of boxes, '
            f'such as {name}=1000; or use --raw'
        )
    return value


def first(scores: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The highest scores of each row, (N, most), and where they are.

    Where a row is shorter, -inf at the place 0 follows; if its length is known, the result is
    shorter instead.
    """
    length = scores.shape[1]
    if isinstance(length, int):
        return scores.topk(min(most, length))
    found, places = F.pad(scores, (0, most), value=-torch.inf).topk(most)
    return found, torch.where(found == -torch.inf, 0, places)


def at_anchors(maps: Tensor, anchors: Tensor, number: int) -> Tensor:
    """Values of anchors, (N, K, D), taken from a map without reordering it.

    Args:
        maps: (N, A * D, H, W), with A anchors at each place.
        anchors: (N, K), numbers of anchors in the order H, W, A.
        number: A.
    """
    channels, places = maps.shape[1] // number, maps.shape[2] * maps.shape[3]
    index = (anchors % number)[..., None] * channels + torch.arange(channels, device=maps.device)
    index = index * places + (anchors // number)[..., None]
    found = maps.flatten(1).gather(1, index.flatten(1))
    return found.unflatten(1, (-1, channels))


def candidates(
    head: Any,
    maps: tuple[Tensor, ...],
    priors: Tensor,
    most: int,
    score_threshold: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Those anchors of a level and their classes that have the highest scores.

    Args:
        head: The dense head.
        maps: Scores (N, A * classes, H, W), deltas (N, A * D, H, W) and, if the head has them,
            factors of the scores (N, A, H, W).
        priors: Anchors or points, (H * W * A, 4 or 2).
        most: Their largest number, K.
        score_threshold: Scores up to this do not count; None takes all.

    Returns:
        Scores (N, K), classes (N, K), deltas (N, K, D), priors (N, K, 4 or 2).
    """
    scores, deltas, *factors = maps
    classes = head.cls_out_channels
    number = scores.shape[1] // classes
    if not head.use_sigmoid_cls:  # the last class is the background
        scores = scores.unflatten(1, (number, classes)).softmax(2)[:, :, :-1].flatten(1, 2)
        classes -= 1
    # the best pairs of anchor and class belong to the anchors whose best class is best
    best = scores.unflatten(1, (number, classes)).amax(2).flatten(2).transpose(1, 2).flatten(1)
    best, anchors = first(best, most)
    scores = at_anchors(scores, anchors, number)
    if head.use_sigmoid_cls:
        scores = scores.sigmoid()
    counts = (best > -torch.inf)[..., None]
    if score_threshold is not None:
        counts = counts & (scores > score_threshold)
    scores = torch.where(counts, scores, -1.0).flatten(1)
    if classes == 1:
        labels = torch.zeros_like(anchors)
    else:
        scores, pairs = scores.topk(min(most, scores.shape[1]))
        labels, anchors = pairs % classes, anchors.gather(1, pairs // classes)
    if factors:
        factor = at_anchors(factors[0], anchors, number)[..., 0].sigmoid()
        scores = torch.where(scores > 0, scores * factor, -1.0)
    return scores, labels, at_anchors(deltas, anchors, number), priors[anchors]


def decode(coder: Any, priors: Tensor, deltas: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) of priors (..., 4 or 2) and deltas (..., 4), within the image.

    Args:
        coder: Box coder of MMDetection.
        priors: Anchors, regions or points.
        deltas: What the head says about them.
        size: Height and width of the image.
    """
    boxes = coder.decode(priors.reshape(-1, priors.shape[-1]), deltas.reshape(-1, 4))
    boxes = boxes.reshape(*deltas.shape[:-1], 4)
    if not coder.clip_border:
        return boxes
    x = boxes[..., 0::2].clamp(0, size[1])
    y = boxes[..., 1::2].clamp(0, size[0])
    return torch.stack([x, y], -1).flatten(-2)


def suppress(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    iou_threshold: Tensor,
    most: int,
    min_size: float = -1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Non-maximum suppression within groups, as MMCV's ``batched_nms``, and the best that are left.

    Args:
        boxes: (N, M, 4).
        scores: (N, M); boxes with scores up to 0 do not count.
        groups: (N, M), from 0; boxes of different groups do not suppress each other. None for one.
        iou_threshold: Threshold, 0-dimensional.
        most: Largest number of boxes that are left, K.
        min_size: Smaller boxes do not count, if it is not negative.

    Returns:
        Boxes (N, K, 4), scores (N, K) and their places among the M; 0 where there are fewer.
    """
    if min_size >= 0:
        large = ((boxes[..., 2:] - boxes[..., :2]) > min_size).all(-1)
        scores = torch.where(large, scores, -1.0)
    apart = boxes
    if groups is not None:  # moved apart, in the same numbers as MMCV does
        counted = torch.where((scores > 0)[..., None], boxes, 0.0)
        apart = boxes + (groups * (counted.amax((1, 2)) + 1)[:, None])[..., None]
    kept = nms_mask(apart, scores, iou_threshold, most)
    scores, places = torch.where(kept, scores, 0.0).topk(min(most, scores.shape[1]))
    index = places[..., None].expand(-1, -1, 4)
    return torch.where((scores > 0)[..., None], boxes.gather(1, index), 0.0), scores, places
