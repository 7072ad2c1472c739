"""Estimate how many dimensions of a representation encode shape, and how many texture.

Source: "Shape or Texture: Understanding Discriminative Features in CNNs" (ICLR 2021, arXiv
2101.11604), section 3.1, and its code (``dim_estimation``), whose scores differ from the formula;
both are here.
"""

from typing import NamedTuple

import numpy as np

__all__ = ['Dimensions', 'dimensions', 'scores']


class Dimensions(NamedTuple):
    """Scores, dimensions and share of the dimensions in per cent.

    Each has the factors in order and the residual last.

    Attributes:
        scores: Score of each factor and of the residual.
        dims: Number of dimensions of each.
        percent: Share of the dimensions in per cent.
    """

    scores: tuple[float, ...]
    dims: tuple[int, ...]
    percent: tuple[float, ...]


def scores(pairs: list[tuple[np.ndarray, np.ndarray]], normalise: str = 'pooled') -> list[float]:
    """Score of each factor: how strongly features correlate within the pairs that share it.

    Args:
        pairs: For each factor, features (n, N) of the first and of the second images of n pairs.
        normalise: 'pooled' as in the authors' code: covariances around the mean of the factor's
            pairs, summed over the neurons, over the summed variances of all features. 'neuron' as
            in the paper: the sum of the neurons' correlations, from -N to N.

    Raises:
        ValueError: Shapes differ, a factor has fewer than two pairs, there is no variance, or
            ``normalise`` is unknown.
    """
    if normalise not in ('pooled', 'neuron'):
        raise ValueError(f"normalise must be 'pooled' or 'neuron', got {normalise!r}")
    pairs = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs]
    for a, b in pairs:
        if a.ndim != 2 or a.shape != b.shape or len(a) < 2:
            raise ValueError(
                'features of pairs must be two arrays (n, N) of one shape with n of at least 2, '
                f'got {a.shape} and {b.shape}'
            )
    if normalise == 'neuron':
        return [float(_correlations(a, b).sum()) for a, b in pairs]
    variance = np.concatenate([x for pair in pairs for x in pair]).var(0).sum()
    if not variance > 0:
        raise ValueError('all features are the same: factors cannot be estimated')
    found = []
    for a, b in pairs:
        mean = (a.mean(0) + b.mean(0)) / 2
        found.append(float(((a - mean) * (b - mean)).mean(0).sum() / variance))
    return found


def _correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of every neuron over the pairs; 0 for constant neurons."""
    a, b = a - a.mean(0), b - b.mean(0)
    scale = np.sqrt((a**2).mean(0) * (b**2).mean(0))
    return np.divide((a * b).mean(0), scale, out=np.zeros_like(scale), where=scale > 0)


def dimensions(pairs: list[tuple[np.ndarray, np.ndarray]], normalise: str = 'pooled') -> Dimensions:
    """Divide the N dimensions of a representation among the factors and a residual.

    Dimensions are N times the softmax of the scores, rounded down. The residual has score 1 with
    'pooled' scores and N with 'neuron', and gets the remaining dimensions.

    Args:
        pairs: See :func:`scores`.
        normalise: See :func:`scores`.

    Raises:
        ValueError: See :func:`scores`.
    """
    neurons = np.asarray(pairs[0][0]).shape[-1]
    found = [*scores(pairs, normalise), 1.0 if normalise == 'pooled' else float(neurons)]
    weights = np.exp(np.array(found) - max(found))
    dims = [int(x) for x in weights / weights.sum() * neurons]
    dims[-1] = neurons - sum(dims[:-1])
    percent = tuple(round(100 * d / neurons, 1) for d in dims)
    return Dimensions(tuple(found), tuple(dims), percent)
