"""Common corruptions of images at five severities, and their transform.

Source: "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations" (ICLR
2019) and the package ``imagecorruptions``, which applies it to images of any size. The functions
are those of its maintained fork ``imagecorruptions-imaug`` (extra ``analysis``); the original one
fails with scikit-image from 0.19 on. Added here: random draws depend on the seed alone, and the
state of NumPy's global generator is restored.
"""

import contextlib
import io
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from mmengine import registry as root

from hybrid_mm.registry import TRANSFORMS

GROUPS = {
    'noise': ('gaussian_noise', 'shot_noise', 'impulse_noise'),
    'blur': ('defocus_blur', 'glass_blur', 'motion_blur', 'zoom_blur'),
    'weather': ('snow', 'frost', 'fog', 'brightness'),
    'digital': ('contrast', 'elastic_transform', 'pixelate', 'jpeg_compression'),
    'holdout': ('speckle_noise', 'gaussian_blur', 'spatter', 'saturate'),
}
CORRUPTIONS = tuple(name for names in GROUPS.values() for name in names)
BENCHMARK = CORRUPTIONS[:15]
SEVERITIES = (1, 2, 3, 4, 5)
SMALLEST = 32
_OWN_GENERATOR = ('impulse_noise', 'glass_blur')  # seeded by an argument


def names_of(selection: str) -> tuple[str, ...]:
    """Names of the corruptions of a group, of 'benchmark' (15) or 'all' (19), or the name itself.

    Raises:
        ValueError: Unknown group or corruption.
    """
    sets = dict(GROUPS, benchmark=BENCHMARK, all=CORRUPTIONS)
    if selection in CORRUPTIONS:
        return (selection,)
    if selection not in sets:
        raise ValueError(
            f'no corruption or group {selection!r}; expected {", ".join(sets)}, or one of '
            f'{", ".join(CORRUPTIONS)}'
        )
    return sets[selection]


def _package():
    try:
        import imagecorruptions
    except ImportError as error:
        raise ImportError(
            f'corruptions need the package imagecorruptions-imaug ({error}): '
            "pip install 'hybrid-mm[analysis]'"
        ) from error
    return imagecorruptions


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, which the package uses, and restore its state afterwards."""
    state = np.random.get_state()
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        np.random.set_state(state)


def corrupt(image: np.ndarray, name: str, severity: int, seed: int = 0) -> np.ndarray:
    """Corrupt an image.

    Args:
        image: (H, W, 3) or (H, W), uint8, RGB, at least 32 x 32; grey is expanded to RGB.
        name: One of ``CORRUPTIONS``.
        severity: 1 to 5, or 0 for the unchanged image.
        seed: The same seed gives the same image.

    Returns:
        (H, W, 3), uint8; values are truncated, not rounded, as in the package.

    Raises:
        ValueError: An unknown corruption or severity, another shape or type, or a smaller image.
        ImportError: The package is missing.
    """
    _check(name, severity)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
        raise ValueError(
            f'{name}: expected an image (H, W, 3) or (H, W) of uint8, got {image.shape} of '
            f'{image.dtype}'
        )
    if min(image.shape[:2]) < SMALLEST:
        raise ValueError(
            f'{name}: images must have {SMALLEST} x {SMALLEST} pixels at least, got '
            f'{image.shape[0]} x {image.shape[1]}; enlarge the image before'
        )
    if image.ndim == 2:
        image = np.stack([image] * 3, -1)
    if severity == 0:
        return image.copy()
    extra = dict(seed=seed % 2**32) if name in _OWN_GENERATOR else {}
    # zoom_blur and snow print a message where a zoomed image is one pixel short
    with _seeded(seed), contextlib.redirect_stdout(io.StringIO()):
        return _package().corrupt(image, severity, name, **extra)


def _check(name: str, severity: int) -> None:
    if name not in CORRUPTIONS:
        raise ValueError(f'no corruption {name!r}; expected one of {", ".join(CORRUPTIONS)}')
    if severity not in (0, *SEVERITIES):
        raise ValueError(f'severity must be 1 to 5, or 0 for clean, got {severity!r}')


@TRANSFORMS.register_module()
class Corrupt:
    """Corrupt ``results['img']``, directly after loading or after a crop.

    The random draws of an image depend on ``seed`` and its file name: they are the same in every
    run, in every worker and for every model.

    Args:
        corruption: One of ``CORRUPTIONS``.
        severity: 1 to 5, or 0 for clean.
        to_rgb: Convert from BGR, as MMCV loads images, to RGB for the corruption. By default the
            order of the channels is not changed, as in MMDetection's protocol; it matters for
            snow, frost, spatter and jpeg_compression only.
        seed: Seed of the random draws.

    Raises:
        ValueError: An unknown corruption or severity.
    """

    def __init__(
        self, corruption: str, severity: int = 1, to_rgb: bool = False, seed: int = 0
    ) -> None:
        _check(corruption, severity)
        if severity:
            _package()
        self.corruption, self.severity, self.to_rgb, self.seed = corruption, severity, to_rgb, seed

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``results['img']``, (H, W, 3) or (H, W) with values of 0 to 255."""
        if self.severity:
            image = np.asarray(results['img']).astype(np.uint8)
            if self.to_rgb and image.ndim == 3:
                image = image[..., ::-1]
            name = str(results.get('img_path', ''))
            name = name.replace('\\', '/').rpartition('/')[2]
            seed = zlib.crc32(f'{self.seed}/{self.corruption}/{self.severity}/{name}'.encode())
            try:
                image = corrupt(np.ascontiguousarray(image), self.corruption, self.severity, seed)
            except ValueError as error:
                raise ValueError(f'{results.get("img_path", "image")}: {error}') from error
            if self.to_rgb and results['img'].ndim == 3:
                image = np.ascontiguousarray(image[..., ::-1])
            results['img'] = image
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(corruption={self.corruption!r}, severity={self.severity}, '
            f'to_rgb={self.to_rgb}, seed={self.seed})'
        )


# the name of MMDetection's transform, for versions that lack it
if root.TRANSFORMS.get('Corrupt') is None:
    root.TRANSFORMS.register_module(name='Corrupt', module=Corrupt)
