"""Operators of detectors whose results have shapes that depend on values, as parts of a graph.

In the traced graph they are one node with results of a fixed shape; in the ONNX file they consist
of ONNX's own operators.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hybrid_mm.ops.custom_op import custom_op

__all__ = ['nms_mask', 'pyramid_roi_align', 'translations']


@custom_op(
    'hybrid_mm::nms_mask',
    fake=lambda boxes, scores, *_: scores.new_empty(scores.shape, dtype=torch.bool),
)
def nms_mask(boxes: Tensor, scores: Tensor, iou_threshold: Tensor, most: int) -> Tensor:
    """Which boxes non-maximum suppression keeps.

    As MMCV's ``nms``, a box is removed if its intersection over union with a kept box of a higher
    score is above the threshold.

    Args:
        boxes: (N, M, 4), left, top, right, bottom.
        scores: (N, M); boxes with scores up to 0 are never kept.
        iou_threshold: Threshold, 0-dimensional.
        most: Largest number of boxes that are kept for an image: those of the highest scores.

    Returns:
        (N, M), bool.
    """
    from mmcv.ops import nms

    kept = torch.zeros_like(scores, dtype=torch.bool)
    for i in range(len(boxes)):
        among = (scores[i] > 0).nonzero()[:, 0]
        if len(among):
            found = nms(boxes[i, among], scores[i, among], float(iou_threshold))[1]
            kept[i, among[found[:most]]] = True
    return kept


def _regions(
    rois: Tensor,
    levels: Tensor,
    maps: Sequence[Tensor],
    strides: Any,
    height: int,
    width: int,
    *_: Any,
) -> Tensor:
    return rois.new_empty((rois.shape[0], maps[0].shape[1], height, width))


@custom_op('hybrid_mm::pyramid_roi_align', fake=_regions)
def pyramid_roi_align(
    rois: Tensor,
    levels: Tensor,
    maps: list[Tensor],
    strides: list[int],
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Features of regions, each from its level of a pyramid; see torchvision's ``roi_align``.

    Args:
        rois: (R, 5): number of the image, left, top, right, bottom.
        levels: Level of each region, (R,), int64.
        maps: Maps of the levels, (N, C, H, W).
        strides: Pixels of the image per place of each map.
        height: Height of the features of a region.
        width: Their width.
        sampling_ratio: Samples per place and axis; 0 for as many as the size of the region needs.
        aligned: Whether pixels are squares whose centres are half a pixel off.

    Returns:
        (R, C, height, width).
    """
    from torchvision.ops import roi_align

    found = rois.new_zeros((len(rois), maps[0].shape[1], height, width))
    for i, (x, stride) in enumerate(zip(maps, strides, strict=True)):
        among = (levels == i).nonzero()[:, 0]
        sampled = roi_align(x, rois[among], (height, width), 1 / stride, sampling_ratio, aligned)
        found[among] = sampled
    return found


def translations() -> dict[Any, Callable]:
    """The operators in ONNX, for ``custom_translation_table`` of torch's exporter."""
    from onnxscript import opset18 as op

    def translate_nms(boxes: Any, scores: Any, iou_threshold: Any, most: int) -> Any:
        threshold = op.Reshape(iou_threshold, [1])
        limits = op.Constant(value_ints=[most]), threshold, op.Constant(value_floats=[0.0])
        found = op.NonMaxSuppression(boxes, op.Unsqueeze(scores, [1]), *limits)
        places = op.Gather(found, op.Constant(value_ints=[0, 2]), axis=1)  # image and box
        ones = op.Expand(op.Constant(value_float=1.0), op.Shape(found, end=1))
        nothing = op.Expand(op.Constant(value_float=0.0), op.Shape(scores))
        return op.Greater(op.ScatterND(nothing, places, ones), op.Constant(value_float=0.5))

    def translate_roi_align(
        rois: Any,
        levels: Any,
        maps: Sequence[Any],
        strides: Sequence[int],
        height: int,
        width: int,
        sampling_ratio: int,
        aligned: bool,
    ) -> Any:
        def sample(x: Any, rois: Any, stride: int) -> Any:
            image = op.Squeeze(op.Slice(rois, [0], [1], [1]), [1])
            return op.RoiAlign(
                x,
                op.Slice(rois, [1], [5], [1]),
                op.Cast(image, to=7),
                coordinate_transformation_mode='half_pixel' if aligned else 'output_half_pixel',
                output_height=height,
                output_width=width,
                sampling_ratio=sampling_ratio,
                spatial_scale=1 / stride,
            )

        if len(maps) == 1:
            return sample(maps[0], rois, strides[0])
        order, features = [], []
        for i, (x, stride) in enumerate(zip(maps, strides, strict=True)):
            among = op.Squeeze(op.NonZero(op.Equal(levels, op.Constant(value_int=i))), [0])
            order.append(among)
            features.append(sample(x, op.Gather(rois, among), stride))
        # the features come sorted by level: the place of each region among them
        count = op.Squeeze(op.Shape(levels), [0])
        numbers = op.Range(op.Constant(value_int=0), count, op.Constant(value_int=1))
        places = op.Unsqueeze(op.Concat(*order, axis=0), [1])
        return op.Gather(
            op.Concat(*features, axis=0), op.ScatterND(op.Mul(numbers, 0), places, numbers)
        )

    operators = torch.ops.hybrid_mm
    return {
        operators.nms_mask.default: translate_nms,
        operators.pyramid_roi_align.default: translate_roi_align,
    }
