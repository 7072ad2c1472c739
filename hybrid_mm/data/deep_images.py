"""Images of more than 8 bits per channel: how they are read, and what reading as 8 bits loses."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from mmengine import fileio
from PIL import Image

from hybrid_mm.errors import warn
from hybrid_mm.registry import TRANSFORMS

_PNG = b'\x89PNG\r\n\x1a\n'
_TIFF = (b'II', b'MM')
_OUTSIDE = 0.001
"""Share of the pixels of a data set that may lie above the range of values, and below it."""
_DARK = 64
"""Largest value of 0 to 255 up to which an image counts as dark."""

_LOOKED_AT = 4
"""Images of a folder that are looked at in training."""

_looked: Counter[str] = Counter()


@TRANSFORMS.register_module()
class LoadDeepImage:
    """Load an image, and map a range of values to 0 ... 255 if it has more than 8 bits.

    ``LoadImageFromFile`` divides 16 bits by 256, which leaves 0 to 15 of a camera with 12 bits. The
    image becomes (H, W, 3), uint8, BGR: one channel is repeated, transparency is dropped. Files of
    8 bits are read as ``LoadImageFromFile`` reads them.

    Args:
        value_range: Values that become 0 and 255; others are clipped.
        backend_args: Of MMEngine's file client.

    Raises:
        ValueError: The range is empty.
    """

    ignore_empty = False

    def __init__(self, value_range: tuple[float, float], backend_args: dict | None = None) -> None:
        low, high = value_range
        if not low < high:
            raise ValueError(f'value_range must be (low, high) with low < high, got {value_range}')
        self.value_range, self.backend_args = (low, high), backend_args

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img``, ``img_shape`` and ``ori_shape`` of the file ``img_path``.

        Raises:
            ValueError: The file is no image, or has two or more than four channels.
        """
        path = results['img_path']
        image = decode(fileio.get(path, self.backend_args), path)
        if image.dtype != np.uint8:
            low, high = self.value_range
            scaled = (np.nan_to_num(image.astype(np.float32), nan=low) - low) * (255 / (high - low))
            image = np.rint(scaled).clip(0, 255).astype(np.uint8)
        results['img'] = image
        results['img_shape'] = results['ori_shape'] = image.shape[:2]
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(value_range={self.value_range})'


def decode(content: bytes, path: str) -> np.ndarray:
    """Decode an image file with all of its bits.

    Returns:
        (H, W, 3), BGR, in the type of the file.

    Raises:
        ValueError: It is no image, or has two or more than four channels.
    """
    data = np.frombuffer(content, np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
    if image is not None and image.dtype == np.uint8:
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)  # turned upright, CMYK converted
    if image is None:
        raise ValueError(f'{path} is not an image that OpenCV can decode')
    channels = 1 if image.ndim == 2 else image.shape[2]
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if channels not in (3, 4):
        raise ValueError(f'{path} has {channels} channels; expected 1, 3 or 4')
    return np.ascontiguousarray(image[..., :3])


def is_deep(path: str) -> bool:
    """Whether an image file may have more than 8 bits, by its header; a TIFF file always may."""
    try:
        with open(path, 'rb') as file:
            head = file.read(25)
    except OSError:  # whoever reads it says so
        return False
    return head.startswith(_TIFF) or (head.startswith(_PNG) and head[24:] == b'\x10')


def _is_grey(path: str) -> bool:
    try:
        with Image.open(path) as picture:  # reads the header only
            return picture.mode in ('1', 'L', 'LA', 'F') or picture.mode.startswith('I')
    except OSError:  # of more than 8 bits in three channels, which Pillow does not read
        return False


@dataclass
class Depth:
    """What is known of the values of some images.

    Attributes:
        bits: Largest number of bits per channel.
        value_range: Values to map to 0 and 255, beyond which few pixels lie; None for 8 bits.
        number: Images of more than 8 bits that were looked at.
        grey: Whether all images have one channel.
    """

    bits: int = 8
    value_range: tuple[float, float] | None = None
    number: int = 0
    grey: bool = False


def depth_of(paths: Sequence[str]) -> Depth:
    """Look at the channels of images, and at the values of those of more than 8 bits.

    Raises:
        ValueError: One that may have more bits cannot be decoded.
    """
    found, values = Depth(grey=bool(paths) and all(map(_is_grey, paths))), []
    for path in filter(is_deep, paths):
        image = decode(fileio.get(path), path)
        if image.dtype != np.uint8:
            found.bits = max(found.bits, 8 * image.dtype.itemsize)
            pixels = image.ravel()[:: max(1, image.size // 100_000)]
            values.append(pixels[np.isfinite(pixels)])
            found.number += 1
    if values and sum(map(len, values)):
        found.value_range = _range(np.concatenate(values))
    return found


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [_OUTSIDE, 1 - _OUTSIDE])
    if 0 <= low < high / 10:  # black stays black
        low = 0
    if values.dtype.kind == 'f':
        low, high = float(f'{low:.4g}'), float(f'{high:.4g}')
        return (low, high) if low < high else (low, low + 1.0)
    low, high = int(low), int(np.ceil(high))
    return low, max(high, low + 1)


def warn_of_dark(path: str) -> None:
    """Warn, once for all files of a folder, that reading an image as 8 bits leaves it dark."""
    folder = os.path.dirname(path)
    if _looked[folder] >= _LOOKED_AT:
        return
    _looked[folder] += 1
    if not is_deep(path):
        return
    image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    if image is None or image.dtype != np.uint16 or image.max() >= 256 * _DARK:
        return
    _looked[folder] = _LOOKED_AT
    warn(
        f'{path} has 16 bits per channel but no value above {image.max()}; read as 8 bits it is '
        f"nearly black (0 to {image.max() // 256}). Load it with dict(type='hybrid_mm."
        f"LoadDeepImage', value_range={_range(image.ravel())}) in place of LoadImageFromFile"
    )
