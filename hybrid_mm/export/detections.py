"""Comparison of detections, whatever their order."""

import torch
from torch import Tensor

__all__ = ['same_detections']

NEAR = 1e-3  # of a score or the size of the image, within which two objects are the same


def same_detections(
    expected: dict[str, Tensor],
    found: dict[str, Tensor],
    scale: float,
    score_threshold: float = 0.0,
    most: int | None = None,
) -> float:
    """Largest difference of objects, whatever their order.

    An object of one side is compared with the one of its label on the other side that is nearest.
    An object that the other side lacks counts as its score, unless rounding decides whether it is
    among the results: its score is that of the threshold, or the last of a full list.

    Args:
        expected: ``boxes`` (N, K, 4), ``scores`` (N, K), ``labels`` (N, K) and possibly ``masks``
            (N, K, h, w); rows with scores of 0 are no objects.
        found: The same of the other side, with any other number of rows.
        scale: Size of the image in pixels, to which differences of boxes are relative.
        score_threshold: Threshold of the scores.
        most: Largest number of objects of an image.

    Returns:
        The largest difference of boxes (relative), scores and masks (absolute).
    """
    worst = 0.0
    for i in range(len(expected['scores'])):
        a, b = (
            {name: values[i][side['scores'][i] > 0] for name, values in side.items()}
            for side in (expected, found)
        )
        worst = max(worst, _difference(a, b, scale, score_threshold, most))
    return worst


def _difference(
    a: dict[str, Tensor], b: dict[str, Tensor], scale: float, threshold: float, most: int | None
) -> float:
    """The same for one image, without empty rows."""
    apart = (a['boxes'][:, None] - b['boxes']).abs().amax(-1) / scale
    apart = apart.maximum((a['scores'][:, None] - b['scores']).abs())
    apart[a['labels'][:, None] != b['labels']] = torch.inf
    if 'masks' in a and apart.numel():  # tells objects of equal boxes apart
        masks = (a['masks'][:, None] - b['masks']).abs().amax((-1, -2))
        apart = torch.where(apart < NEAR, apart.maximum(masks), apart)
    worst = 0.0
    single = [set(range(len(a['scores']))), set(range(len(b['scores'])))]
    for place in apart.flatten().argsort().tolist():  # the nearest pairs first
        i, j = divmod(place, apart.shape[1])
        if not apart[i, j] < torch.inf or not all(single):
            break
        near = (a['boxes'][i] - b['boxes'][j]).abs().max() < NEAR * scale
        if near and i in single[0] and j in single[1]:
            single[0].remove(i)
            single[1].remove(j)
            worst = max(worst, apart[i, j].item())
    for side, left in zip((a, b), single, strict=True):
        border = threshold
        if most is not None and len(side['scores']) == most:
            border = max(border, side['scores'].min().item())
        for score in side['scores'][sorted(left)].tolist():
            if score > border + NEAR:
                worst = max(worst, score)
    return worst
