"""Images of any number of channels and bits: arrays, TIFF files, pictures, several files each."""

import os
import re
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmengine import fileio
from mmengine.fileio import BaseStorageBackend, register_backend

from hybrid_mm.data.channel_files import decode_channels, three_axes
from hybrid_mm.data.sample_check import check_file_end
from hybrid_mm.errors import UserError
from hybrid_mm.registry import TRANSFORMS

PICTURES_BACKEND = 'hybrid_mm_pictures'
"""Backend of ``mmengine.fileio`` that reads such an image as a picture; see :class:`Pictures`."""
PICTURE_SUFFIXES = ('.png', '.jpg', '.jpeg')
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
        return self.sample(three_axes(image, name), name)

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


@TRANSFORMS.register_module()
class ShowChannels:
    """Turn an image of any number of channels into a picture, to look at what a pipeline does.

    Args:
        picture: One or three of its channels, see :class:`LoadMultichannelImage`.
    """

    def __init__(self, picture: Sequence[int] | None = None) -> None:
        self.picture = picture

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        """Replace ``img``; ``img_path`` gets the suffix of a picture."""
        path = str(results.get('img_path'))
        if not path.lower().endswith(PICTURE_SUFFIXES):
            path += '.png'
        return {**results, 'img': to_picture(results['img'], self.picture), 'img_path': path}


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
    return decode_channels(content, path, axes)


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
        if path.endswith('.png') and not os.path.exists(path):  # of `PictureHook`
            path = path.removesuffix('.png')
        picture = self.loader.to_picture(self.loader(dict(img_path=path))['img'])
        return cv2.imencode('.png', picture)[1].tobytes()

    def get_text(self, filepath: str, encoding: str = 'utf-8') -> str:
        """Pictures have no text.

        Raises:
            UserError: Always.
        """
        raise UserError(f'{filepath} is read as a picture, not as text')
