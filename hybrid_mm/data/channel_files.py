"""Files with images of any number of channels and bits: arrays, TIFF files, and pictures."""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, BinaryIO

import cv2
import numpy as np

ARRAY = '.npy'
TIFF = ('.tif', '.tiff')
_NUMPY = b'\x93NUMPY'
_JPEG = b'\xff\xd8\xff'
_KINDS = 'buif'  # booleans, integers, floats
_INSTALL = "pip install 'hybrid-mm[multichannel]'"


def channels_first(shape: Sequence[int]) -> bool:
    """Whether an array of this shape is rather (C, H, W) than (H, W, C)."""
    return len(shape) == 3 and shape[0] < min(shape[1:])


def decode_channels(content: bytes, path: str, axes: str = 'hwc') -> np.ndarray:
    """Decode an image with all of its channels and bits.

    Args:
        content: Content of a ``.npy`` array, a TIFF file, or what OpenCV decodes.
        path: Its path, whose suffix tells which.
        axes: 'hwc' or 'chw', of an array.

    Returns:
        (H, W, C) in the type of the file; colours are in the order red, green, blue (and alpha).

    Raises:
        ValueError: It cannot be read; the text names the file.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ARRAY:
        image = three_axes(_array(content, path), path)
        return image.transpose(1, 2, 0) if axes == 'chw' and image.shape[2] > 1 else image
    if suffix in TIFF:
        return _tiff(content, path)
    return _picture(content, path)


def three_axes(image: Any, name: str) -> np.ndarray:
    """An array of numbers as (H, W, C).

    Args:
        image: (H, W) or (H, W, C); booleans become 0 and 1.
        name: For messages.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(image, np.ndarray) or image.dtype.kind not in _KINDS:
        kind = getattr(image, 'dtype', type(image).__name__)
        raise ValueError(f'{name} is no image: expected an array of numbers, got {kind}')
    if image.ndim not in (2, 3) or not image.size:
        raise ValueError(f'{name} has the shape {image.shape}; expected height, width and channels')
    image = image if image.ndim == 3 else image[..., None]
    return image.view(np.uint8) if image.dtype == np.bool_ else image


def _array(content: bytes, path: str) -> np.ndarray:
    if not content.startswith(_NUMPY):
        raise ValueError(f'{path} is no array as numpy.save writes it ({len(content)} bytes)')
    try:
        return np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # of NumPy: several
        raise ValueError(
            f'{path} cannot be read as an array ({len(content)} bytes): {error}'
        ) from error


@contextmanager
def _opened(file: BinaryIO, size: int, path: str) -> Iterator[Sequence[Any]]:
    """Series of pages like the first in a TIFF file of ``size`` bytes; others are previews."""
    if find_spec('tifffile') is None:
        raise ValueError(
            f'{path}: TIFF files are read by the package tifffile, which is not installed: '
            f'{_INSTALL}'
        )
    import tifffile

    try:
        with tifffile.TiffFile(file) as opened:
            if not opened.series:
                raise ValueError('it has no image; is it truncated?')
            first = opened.series[0]
            alike = [s for s in opened.series if (s.shape, s.dtype) == (first.shape, first.dtype)]
            for series in alike:
                _check_whole(series, size)
            yield alike
    except ValueError as error:
        raise ValueError(f'{path} cannot be read as a TIFF file: {error}') from error
    except Exception as error:  # of tifffile: several, also of the standard library
        text = ' '.join(str(error).strip('\'"').split())
        codec = f': {_INSTALL}' if 'imagecodecs' in text else ''
        raise ValueError(
            f'{path} cannot be read as a TIFF file ({type(error).__name__}: {text}){codec}'
        ) from error


def _check_whole(series: Any, size: int) -> None:
    """Check that the data of a TIFF file are there: tifffile takes what is missing as zeros."""
    for page in series.pages:
        if page is None:
            raise ValueError(f'it is truncated ({size} bytes): a page is missing')
        offsets = getattr(page, 'dataoffsets', ())
        ends = [o + n for o, n in zip(offsets, page.databytecounts, strict=False)]
        if ends and max(ends) > size:
            raise ValueError(f'it is truncated ({size} bytes, of at least {max(ends)})')


def _order(pages: Sequence[Any]) -> list[int]:
    """Axes of rows, columns and, if there are several, channels among those of stacked series."""
    names, shape = f'Q{pages[0].axes}', (len(pages), *pages[0].shape)
    further = [i for i, size in enumerate(shape) if size > 1 and names[i] not in 'YX']
    if len(further) > 1 or not {'Y', 'X'} <= set(names):
        raise ValueError(
            f'it has the axes {names[1:]} of lengths {shape[1:]}; expected rows, columns and '
            'channels (or pages)'
        )
    return [names.index('Y'), names.index('X'), *further]


def _tiff(content: bytes, path: str) -> np.ndarray:
    with _opened(io.BytesIO(content), len(content), path) as pages:
        order, array = _order(pages), np.stack([series.asarray() for series in pages])
    array = array.transpose(*order, *(i for i in range(array.ndim) if i not in order))
    return three_axes(array.reshape(array.shape[: len(order)]), path)


def _picture(content: bytes, path: str) -> np.ndarray:
    data = np.frombuffer(content, np.uint8)
    # a JPEG file is turned upright, other files have no such mark; alpha is a channel
    flag = cv2.IMREAD_ANYCOLOR if content[:3] == _JPEG else cv2.IMREAD_UNCHANGED
    image = cv2.imdecode(data, flag) if len(data) else None
    if image is None:
        raise ValueError(f'{path} is neither an array ({ARRAY}) nor an image that OpenCV decodes')
    image = three_axes(image, path)
    if image.shape[2] >= 3:
        image = np.concatenate([image[..., 2::-1], image[..., 3:]], axis=2)
    return image


def size_of_array(path: str) -> tuple[int, int] | None:
    """(Width, height) of a ``.npy`` array or a TIFF file; None for other files.

    Raises:
        ValueError: It cannot be read.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ARRAY:
        try:
            shape = np.load(path, mmap_mode='r', allow_pickle=False).shape
        except Exception as error:  # of NumPy: several
            raise ValueError(f'{path} cannot be read as an array: {error}') from error
        height, width = shape[1:] if channels_first(shape) else shape[:2]
        return width, height
    if suffix in TIFF:
        with open(path, 'rb') as file, _opened(file, os.path.getsize(path), path) as pages:
            rows, columns, *_ = _order(pages)
            height, width = pages[0].shape[rows - 1], pages[0].shape[columns - 1]
        return width, height
    return None
