"""Effective receptive field: how much the centre of a feature map depends on each pixel.

Source: "Scaling Up Your Kernels to 31x31" (CVPR 2022, arXiv 2203.06717), appendix, and its code
(``erf``), after "Understanding the Effective Receptive Field in Deep Convolutional Neural
Networks" (NeurIPS 2016).
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hybrid_mm.run.outputs import plain_label

__all__ = ['contribution', 'display', 'draw', 'mean_contribution', 'rectangles']

THRESHOLDS = (0.2, 0.3, 0.5, 0.99)


def contribution(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Score of each pixel's contribution to the centre of the map.

    The score is the gradient of the sum of the rectified centre over the channels, rectified and
    summed over the colours.

    Args:
        network: Network in eval mode, from (N, 3, H, W) to (N, C, h, w).
        images: (N, 3, H, W), normalised.

    Returns:
        (N, H, W), non-negative.

    Raises:
        ValueError: The network does not return a map.
    """
    images = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        maps = network(images)
        if maps.ndim != 4:
            raise ValueError(f'expected a map (N, C, h, w), got {tuple(maps.shape)}')
        centre = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2].relu().sum()
        (gradient,) = torch.autograd.grad(centre, images)
    return gradient.relu().sum(1)


def mean_contribution(
    network: Callable[[Tensor], Tensor], images: Iterable[Tensor], count: int
) -> tuple[np.ndarray, int, int]:
    """Mean of :func:`contribution` over images, one at a time.

    Args:
        network: See :func:`contribution`.
        images: Tensors (1, 3, H, W) of one size.
        count: Number of images to average over; those with NaN or infinite scores are skipped.

    Returns:
        Scores (H, W) in float64, and the numbers of used and of skipped images.

    Raises:
        ValueError: No image gave finite scores.
    """
    total, used, skipped = None, 0, 0
    for image in images:
        scores = contribution(network, image)[0].double().cpu()
        if not torch.isfinite(scores).all():
            skipped += 1
            continue
        total = scores if total is None else total + scores
        used += 1
        if used == count:
            break
    if total is None:
        raise ValueError(f'no image gave finite scores ({skipped} gave NaN or infinity)')
    return (total / used).numpy(), used, skipped


def display(scores: np.ndarray) -> np.ndarray:
    """Scores (H, W) for figures and areas: log10(score + 1), divided by its maximum.

    Args:
        scores: Contribution of each pixel, (H, W), not negative.

    Raises:
        ValueError: No pixel contributes.
    """
    logs = np.log10(np.asarray(scores, np.float64) + 1)
    if not logs.max() > 0:
        raise ValueError('no pixel contributes to the centre: all scores are 0')
    return logs / logs.max()


def rectangles(
    scores: np.ndarray, thresholds: Sequence[float] = THRESHOLDS
) -> dict[float, tuple[int, float] | None]:
    """Smallest centred squares that contain more than a share of the (log) contribution.

    Args:
        scores: (H, W).
        thresholds: Shares between 0 and 1.

    Returns:
        For each share the side 2i + 1 of the square and its area as a fraction of the image's; None
        if no square inside the image contains so much.

    Raises:
        ValueError: See :func:`display`.
    """
    shown = display(scores)
    height, width = shown.shape
    y, x = height // 2, width // 2
    share = []
    for i in range(1, min(y, x + 1)):  # while the square is inside the image
        square = shown[y - i : y + i + 1, x - i : x + i + 1]
        share.append(square.sum() / shown.sum())
    found = {}
    for threshold in thresholds:
        i = next((i for i, value in enumerate(share, 1) if value > threshold), None)
        found[threshold] = i and (2 * i + 1, (2 * i + 1) ** 2 / (height * width))
    return found


def draw(maps: dict[str, np.ndarray], path: str | Path, thresholds: Sequence[float] = ()) -> None:
    """Draw the maps of several networks side by side; darker is more contribution.

    Args:
        maps: Scores (H, W) by the names of the networks.
        path: Picture to write.
        thresholds: Shares whose squares are drawn as well.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    columns = min(len(maps), 4)
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(3.4 * columns + 0.8, 3.5 * rows), layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, (name, scores) in zip(axes.flat, maps.items(), strict=False):
        shown = display(scores)
        image = ax.imshow(shown, cmap='YlGn', vmin=0, vmax=1)
        ax.set_title(plain_label(name), fontsize=10)
        y, x = shown.shape[0] // 2, shown.shape[1] // 2
        for i, (t, found) in enumerate(rectangles(scores, thresholds).items()):
            if found:
                side, colour = found[0], f'C{i + 1}'
                corner = (x - side / 2, y - side / 2)
                ax.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=colour))
                ax.text(*corner, f'{100 * t:g}%', color=colour, fontsize=7, va='bottom')
    figure.colorbar(image, ax=axes, shrink=0.8, label='log10(contribution + 1), largest = 1')
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
