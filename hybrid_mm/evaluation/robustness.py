"""Summaries of evaluations under corruption: mCE of ImageNet-C, mPC and rPC of detection."""

import math
from collections.abc import Mapping, Sequence

from hybrid_mm.data.corruptions import BENCHMARK, CORRUPTIONS

__all__ = ['corruption_errors', 'mce', 'performance_under_corruption']

ALEXNET_ERROR = {
    'gaussian_noise': 88.6,
    'shot_noise': 89.4,
    'impulse_noise': 92.3,
    'defocus_blur': 82.0,
    'glass_blur': 82.6,
    'motion_blur': 78.6,
    'zoom_blur': 79.8,
    'snow': 86.7,
    'frost': 82.7,
    'fog': 81.9,
    'brightness': 56.5,
    'contrast': 85.3,
    'elastic_transform': 64.6,
    'pixelate': 71.8,
    'jpeg_compression': 60.7,
    'speckle_noise': 84.5,
    'gaussian_blur': 78.7,
    'spatter': 71.8,
    'saturate': 65.8,
}
"""Top-1 error of AlexNet in per cent, mean over the severities: the unit of :func:`mce`."""


def corruption_errors(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Errors of corruptions as multiples of AlexNet's (CE, 1 is AlexNet).

    Args:
        errors: Top-1 errors in per cent at severities 1 to 5, by corruption.

    Raises:
        ValueError: Unknown corruption, not five errors, or an error outside 0 to 100.
    """
    found = {}
    for name, values in errors.items():
        if name not in ALEXNET_ERROR:
            raise ValueError(f'no corruption {name!r}; expected one of {", ".join(ALEXNET_ERROR)}')
        if len(values) != 5 or not all(0 <= v <= 100 for v in values):
            raise ValueError(
                f'{name}: expected five top-1 errors in per cent (0 to 100), one per severity, '
                f'got {list(values)}'
            )
        found[name] = sum(values) / 5 / ALEXNET_ERROR[name]
    return found


def mce(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean corruption errors in per cent, lower is better.

    The benchmark ("Benchmarking Neural Network Robustness to Common Corruptions", ICLR 2019)
    averages over 15 corruptions; the LSKA paper over these and the four held-out ones.

    Args:
        errors: See :func:`corruption_errors`.

    Returns:
        ``mCE(15)`` and ``mCE(19)``, each only if all its corruptions are given: means over other
        sets are not comparable with published figures.
    """
    found = corruption_errors(errors)
    result = {}
    for names in (BENCHMARK, CORRUPTIONS):
        if all(name in found for name in names):
            result[f'mCE({len(names)})'] = 100 * sum(found[n] for n in names) / len(names)
    return result


def performance_under_corruption(
    clean: float | None, corrupted: Mapping[str, Sequence[float | None]]
) -> dict[str, float | None]:
    """Mean performance under corruption and its ratio to the clean performance.

    Source: "Benchmarking Robustness in Object Detection" (arXiv 1907.07484), eq. 1 and 2.

    Args:
        clean: Performance P on clean images.
        corrupted: Performance at the severities, by corruption; None where it is unknown.

    Returns:
        ``clean``, ``mPC`` in the unit of the performance, and ``rPC`` = mPC / P in per cent;
        None where it is undefined.
    """
    values = [v for severities in corrupted.values() for v in severities]
    known = [v for v in values if v is not None and math.isfinite(v)]
    mean = sum(known) / len(known) if known and len(known) == len(values) else None
    ratio = 100 * mean / clean if mean is not None and clean else None
    return dict(clean=clean, mPC=mean, rPC=ratio)
