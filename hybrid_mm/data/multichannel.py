"""Images of any number of channels and bits: arrays, TIFF files, pictures, several files each."""

import io
import os
import re
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
from mmengine import fileio
from mmengine.fileio import BaseStorageBackend, register_backend

from hybrid_mm.data.sample_check import JPEG, check_file_end
from hybrid_mm.errors import UserError
from hybrid_mm.registry import TRANSFORMS

__all__ = ['LoadMultichannelImage', 'channels_first', 'read_channels', 'size_of_array', 'to_picture']

ARRAY = '.npy'
TIFF = ('.tif', '.tiff')
PICTURES_BACKEND = 'hybrid_mm_pictures'
"""Backend of ``mmengine.fileio`` that reads such an image as a picture; see :class:`Pictures`."""
_NUMPY = b'\x93NUMPY'
_KINDS = 'buif'  # booleans, integers, floats
_STRETCH = (1, 99)
"""Percentiles of a channel of more than 8 bits that are drawn black and white."""


@TRANSFORMS.register_module()
class LoadMultichannelImage:
    """Load an image of any number of channels, with all of its bits.

    ``LoadImageFromFile`` makes three channels of 8 bits of everything, in the order blue, green,
    red. Here the channels are those of the file in the order of the file (red, green, blue of a
    coloured PNG file), and the values are not scaled: ``mean`` and ``std`` of the data
    preprocessor are in their units. The image is (H, W, C), uint8 if all files have 8 bits, else
    float32.

    Files are ``.npy`` arrays (H, W, C) or (H, W); TIFF files, whose channels may be samples or
    pages, with the package ``tifffile``; and what OpenCV decodes, as PNG files of 8 or 16 bits.

    Args:
        channels: The number of channels that every file must have, or a list of the channels to
            take, from 0.
        others: Further files of each image, whose channels follow: paths relative to the folder of
            the image, as ``'../thermal/{stem}.png'``; ``{name}`` stands for the name of the image,
            ``{stem}`` for that without its suffix, and ``{folder}`` for the name of its folder.
            ``channels`` refers to all of them.
        axes: 'hwc' or, for arrays (C, H, W), 'chw'.
        fill: Value in place of those that are not finite (NaN); by default they are an error.
        picture: Up to three of the loaded channels, from 0, that are drawn as red, green and blue;
            one is drawn as grey. By default the first three, or the first if there are only two.
        backend_args: Of MMEngine's file client.

    Raises:
        ValueError: An argument is of another form; the text names it.
    """

    ignore_empty = False

    def __init__(
        self,
        channels: int | Sequence[int],
        others: Sequence[str] = (),
        axes: str = 'hwc',
        fill: float | None = None,
        picture: Sequence[int] | None = None,
        backend_args: dict | None = None,
    ) -> None:
        whole = isinstance(channels, int) and not isinstance(channels, bool)
        chosen = list(range(channels)) if whole else _listed('channels', channels)  # type: ignore
        if not chosen:
            raise ValueError(f'channels must be a positive number or a list, got {channels!r}')
        if axes not in ('hwc', 'chw'):
            raise ValueError(f"axes must be 'hwc' or 'chw', got {axes!r}")
        if isinstance(others, str):
            raise ValueError(f'others must be a list of paths, got the text {others!r}')
        drawn = _listed('picture', picture) if picture is not None else first_three(len(chosen))
        if len(drawn) not in (1, 3) or max(drawn) >= len(chosen):
            raise ValueError(
                f'picture must be one or three of the channels 0..{len(chosen) - 1}, got {picture}'
            )
        self.channels, self.number = chosen, channels if whole else None
        self.others, self.axes, self.fill = list(others), axes, fill
        self.picture, self.backend_args = drawn, backend_args

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add ``img``, ``img_shape`` and ``ori_shape`` of the file ``img_path``.

        Raises:
            ValueError: A file does not exist, cannot be decoded or is truncated; it has another
                number of channels, another size than the first one, or values that are not finite.
        """
        path = results['img_path']
        files = [path, *self.further(path)]
        parts = [read_channels(file, self.axes, self.backend_args) for file in files]
        for file, part in zip(files, parts, strict=True):
            if part.shape[:2] != parts[0].shape[:2]:
                raise ValueError(
                    f'{file} has {part.shape[0]} x {part.shape[1]} pixels (height x width), '
                    f'{path} {parts[0].shape[0]} x {parts[0].shape[1]}'
                )
        image = parts[0]
        if len(parts) > 1:
            same = all(part.dtype == np.uint8 for part in parts)
            image = np.concatenate([p if same else p.astype(np.float32) for p in parts], axis=2)
        name = path if len(files) == 1 else f'{path} with {len(files) - 1} further files'
        return {**results, **self.sample(image, name)}

    def further(self, path: str) -> list[str]:
        """Paths of the further files of an image."""
        folder, name = os.path.split(str(path))
        words = dict(
            name=name,
            stem=os.path.splitext(name)[0],
            folder=os.path.basename(os.path.abspath(folder)),
        )

        def named(match: re.Match) -> str:
            return words[match[1]]

        return [
            os.path.normpath(os.path.join(folder, re.sub(r'\{(name|stem|folder)\}', named, other)))
            for other in self.others
        ]

    def from_array(self, image: np.ndarray, name: str = 'the array') -> dict[str, Any]:
        """What a file with these values gives.

        Args:
            image: (H, W, C) or, of one channel, (H, W), with the channels of all files.
            name: For messages.

        Raises:
            ValueError: It has another form, or values that are not finite.
        """
        return self.sample(_three_axes(image, name), name)

    def sample(self, image: np.ndarray, name: str) -> dict[str, Any]:
        """``img``, ``img_shape`` and ``ori_shape`` of an array (H, W, C) with all channels."""
        there = image.shape[2]
        if self.number is not None and there != self.number:
            raise ValueError(
                f'{name} has {_channels(there)}; expected {self.number}'
                + self._hint(image.shape, self.number)
            )
        if there <= max(self.channels):
            raise ValueError(
                f'{name} has {_channels(there)}; expected at least {max(self.channels) + 1}, as '
                f'channels={self.channels} needs' + self._hint(image.shape, max(self.channels) + 1)
            )
        if self.number is None and there > min(image.shape[:2]):  # a list tells no wrong axes
            raise ValueError(
                f'{name} has {image.shape[0]} x {image.shape[1]} pixels (height x width) of '
                f'{_channels(there)}{self._hint(image.shape, len(self.channels))}'
            )
        if self.channels != list(range(there)):
            image = image[..., self.channels]
        if image.dtype != np.uint8:
            image = image.astype(np.float32)
            finite = np.isfinite(image)
            if not finite.all():
                if self.fill is None:
                    raise ValueError(
                        f'{name} has {np.count_nonzero(~finite):,} values that are not finite (NaN '
                        'or infinite, or too large for float32); fill=0 of LoadMultichannelImage '
                        'replaces them by 0'
                    )
                image[~finite] = self.fill
        image = np.ascontiguousarray(image)
        return dict(img=image, img_shape=image.shape[:2], ori_shape=image.shape[:2])

    def _hint(self, shape: tuple[int, ...], expected: int) -> str:
        height, width, channels = shape
        found, other = (width, 'hwc') if self.axes == 'chw' else (height, 'chw')
        if found == expected or channels > min(height, width):
            return f"; if {found} is the number of its channels, set axes='{other}'"
        if channels < expected:
            return ''
        return '; channels=[0, 1, ...] of LoadMultichannelImage takes some of them'

    def to_picture(self, image: np.ndarray) -> np.ndarray:
        """A loaded image (H, W, C) as a picture (H, W, 3), uint8, in the order blue, green, red."""
        return to_picture(image, self.picture)

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(channels={self.number or self.channels}, '
            f'others={self.others}, axes={self.axes!r}, fill={self.fill}, picture={self.picture})'
        )


def _listed(name: str, value: Any) -> list[int]:
    listed = list(value) if isinstance(value, list | tuple) else [None]
    if not listed or any(not isinstance(i, int) or isinstance(i, bool) or i < 0 for i in listed):
        raise ValueError(f'{name} must be a list of numbers from 0, got {value!r}')
    return listed


def first_three(number: int) -> list[int]:
    """The channels of an image of ``number`` channels that are drawn."""
    return [0, 1, 2] if number >= 3 else [0]


def _channels(number: int) -> str:
    return '1 channel' if number == 1 else f'{number} channels'


def channels_first(shape: Sequence[int]) -> bool:
    """Whether an array of this shape is rather (C, H, W) than (H, W, C)."""
    return len(shape) == 3 and shape[0] < min(shape[1:])


def read_channels(path: str, axes: str = 'hwc', backend_args: dict | None = None) -> np.ndarray:
    """Read an image with all of its channels and bits.

    Args:
        path: A ``.npy`` array, a TIFF file, or what OpenCV decodes.
        axes: 'hwc' or 'chw', of an array.
        backend_args: Of MMEngine's file client.

    Returns:
        (H, W, C) in the type of the file; colours are in the order red, green, blue (and alpha).

    Raises:
        ValueError: It cannot be read; the text names the file.
    """
    if os.path.isfile(path):
        check_file_end(path)
    try:
        content = fileio.get(path, backend_args)
    except OSError as error:
        raise ValueError(f'{path} cannot be read: {error.strerror or error}') from error
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ARRAY:
        image = _three_axes(_array(content, path), path)
        return image.transpose(1, 2, 0) if axes == 'chw' and image.shape[2] > 1 else image
    if suffix in TIFF:
        return _tiff(content, path)
    return _picture(content, path)


def _three_axes(image: Any, name: str) -> np.ndarray:
    if not isinstance(image, np.ndarray) or image.dtype.kind not in _KINDS:
        kind = getattr(image, 'dtype', type(image).__name__)
        raise ValueError(f'{name} is no image: expected an array of numbers, got {kind}')
    if image.ndim not in (2, 3) or not image.size:
        raise ValueError(
            f'{name} has the shape {image.shape}; expected height, width and channels'
        )
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


def _tiff(content: bytes, path: str) -> np.ndarray:
    if find_spec('tifffile') is None:
        raise ValueError(
            f'{path}: TIFF files are read by the package tifffile, which is not installed: '
            "pip install 'hybrid-mm[multichannel]'"
        )
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            if not file.series:
                raise ValueError('it has no image; is it truncated?')
            series = file.series[0]
            _check_tiff(file, len(content), path)
            array, names = series.asarray(), series.axes
    except ValueError as error:
        if str(error).startswith(path):
            raise
        raise ValueError(f'{path} cannot be read as a TIFF file: {error}') from error
    except Exception as error:  # of tifffile: several, also of the standard library
        text = ' '.join(str(error).strip('\'"').split())
        codec = ": pip install 'hybrid-mm[multichannel]'" if 'imagecodecs' in text else ''
        raise ValueError(
            f'{path} cannot be read as a TIFF file ({type(error).__name__}: {text}){codec}'
        ) from error
    long = [i for i, size in enumerate(array.shape) if size > 1 or names[i] in 'YX']
    array, names = np.moveaxis(array, long, range(len(long))), ''.join(names[i] for i in long)
    array = array.reshape(array.shape[: len(long)])
    further = [i for i, name in enumerate(names) if name not in 'YX']
    if len(further) > 1 or not {'Y', 'X'} <= set(names):
        raise ValueError(
            f'{path} has the axes {names} of lengths {array.shape}; expected rows, columns and '
            'channels (or pages)'
        )
    order = [names.index('Y'), names.index('X'), *further]
    return _three_axes(array.transpose(order), path)


def _check_tiff(file: Any, size: int, path: str) -> None:
    """Check that the data of a TIFF file are there: tifffile takes what is missing as zeros."""
    for page in file.series[0].pages:
        if page is None:
            raise ValueError(f'{path} is truncated ({size} bytes): a page is missing')
        offsets = getattr(page, 'dataoffsets', ())
        ends = [o + n for o, n in zip(offsets, page.databytecounts, strict=False)]
        if ends and max(ends) > size:
            raise ValueError(f'{path} is truncated ({size} bytes, of at least {max(ends)})')


def _picture(content: bytes, path: str) -> np.ndarray:
    data = np.frombuffer(content, np.uint8)
    # a JPEG file is turned upright, other files have no such mark; alpha is a channel
    flag = cv2.IMREAD_ANYCOLOR if content[:3] == JPEG else cv2.IMREAD_UNCHANGED
    image = cv2.imdecode(data, flag) if len(data) else None
    if image is None:
        raise ValueError(f'{path} is neither an array ({ARRAY}) nor an image that OpenCV decodes')
    image = _three_axes(image, path)
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
        height, width = read_channels(path).shape[:2]
        return width, height
    return None


def to_picture(image: np.ndarray, channels: Sequence[int] | None = None) -> np.ndarray:
    """Draw some channels as a picture.

    Values of 8 bits stay. Of others, each channel is stretched so that 1 % of its pixels are black
    and 1 % have the full intensity.

    Args:
        image: (H, W, C).
        channels: One or three of its channels: grey, or red, green and blue; by default the first
            three, or the first if there are fewer.

    Returns:
        (H, W, 3), uint8, in the order blue, green, red.
    """
    chosen = list(channels) if channels is not None else first_three(image.shape[2])
    planes = [_eight_bits(image[..., i]) for i in reversed(chosen)]
    return np.stack(planes * (3 // len(planes)), axis=-1)


def _eight_bits(plane: np.ndarray) -> np.ndarray:
    if plane.dtype == np.uint8:
        return plane
    plane = plane.astype(np.float32)
    finite = plane[np.isfinite(plane)]
    low, high = np.percentile(finite, _STRETCH) if finite.size else (0, 0)
    if high <= low:  # hardly any pixels differ
        low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    scaled = (np.nan_to_num(plane, nan=low) - low) * (255 / (high - low) if high > low else 0)
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


@register_backend(PICTURES_BACKEND, force=True)
class Pictures(BaseStorageBackend):
    """Reads images as pictures, for the visualization hooks of OpenMMLab, which decode a file.

    Such a hook gets ``backend_args=dict(backend='hybrid_mm_pictures', loader=dict(...))``.

    Args:
        loader: Arguments of :class:`LoadMultichannelImage`.
    """

    def __init__(self, loader: dict[str, Any]) -> None:
        self.loader = LoadMultichannelImage(**loader)

    def get(self, filepath: str) -> bytes:
        """The picture of an image, as a PNG file."""
        path = str(filepath)
        if path.endswith('.png') and not os.path.exists(path):  # of `as_png`
            path = path.removesuffix('.png')
        picture = self.loader.to_picture(self.loader(dict(img_path=path))['img'])
        return cv2.imencode('.png', picture)[1].tobytes()

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Pictures have no text.

        Raises:
            UserError: Always.
        """
        raise UserError(f'{filepath} is read as a picture, not as text')
