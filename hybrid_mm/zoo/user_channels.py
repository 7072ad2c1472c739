"""How images of a user that are not three channels of 8 bits are loaded and normalised."""

import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybrid_mm.data.channel_files import ARRAY, TIFF, channels_first
from hybrid_mm.data.multichannel import read_channels
from hybrid_mm.errors import UserError, warn

SAMPLE = 50
"""Images that are read."""
_PIXELS = 20_000
"""Pixels of an image that count, about."""
_ALPHA = 4
_ORDINARY = (1, 3, _ALPHA)  # channels of a TIFF file that LoadImageFromFile reads


@dataclass(frozen=True)
class Channels:
    """Images of any number of channels.

    Attributes:
        loader: Arguments of ``hybrid_mm.LoadMultichannelImage``.
        mean: Mean of each loaded channel.
        std: Standard deviation of each.
        text: What was found, for people.
    """

    loader: dict[str, Any]
    mean: list[float]
    std: list[float]
    text: str

    @property
    def number(self) -> int:
        """Number of the loaded channels."""
        return len(self.mean)


def find_channels(paths: Sequence[Path], asked: int | Sequence[int] | None) -> Channels | None:
    """Look at the channels of a sample of images, and measure them.

    Args:
        paths: The images of the training.
        asked: Number of channels that all images must have, or a list of those to take; if None,
            arrays and TIFF files of 2 or more than 4 channels get as many as they have.

    Returns:
        None for images that ``LoadImageFromFile`` reads, unless channels were asked for.

    Raises:
        UserError: An image cannot be read, or has other channels than asked for, or than others.
    """
    chosen = random.Random(0).sample(list(paths), min(len(paths), SAMPLE))
    if asked is None:
        there = _channels_there(str(chosen[0])) if chosen else None
        if there == _ALPHA:
            warn(
                f'the TIFF files have {there} channels (e.g. {chosen[0]}), of which the fourth is '
                f'left out as transparency; --channels {there} takes it as well'
            )
        if there in _ORDINARY or there is None:
            return None
    try:
        images = {str(path): read_channels(str(path)) for path in chosen}
    except ValueError as error:
        raise UserError(str(error)) from error
    first = [channels_first(image.shape) for name, image in images.items() if name.endswith(ARRAY)]
    swapped = bool(first) and all(first)
    if swapped:
        images = {name: image.transpose(1, 2, 0) for name, image in images.items()}
    numbers = {image.shape[2]: name for name, image in images.items()}
    if len(numbers) > 1:
        (one, a), (two, b), *_ = sorted(numbers.items())
        raise UserError(f'the images have different channels: {a} has {one}, {b} {two}')
    (there,) = numbers
    loaded = list(range(there)) if asked is None or isinstance(asked, int) else list(asked)
    if isinstance(asked, int) and asked != there:
        listed = ','.join(map(str, range(min(asked, there))))
        raise UserError(
            f'--channels {asked}: the images have {there} (e.g. {next(iter(images))}); '
            f'--channels {there} takes all of them, --channels {listed}, (with a comma) those of '
            'these numbers'
        )
    if max(loaded) >= there:
        raise UserError(
            f'--channels: the images have the channels 0 to {there - 1}, there is no {max(loaded)}'
        )
    loader: dict[str, Any] = dict(channels=there if loaded == list(range(there)) else loaded)
    if swapped:
        loader['axes'] = 'chw'
    return _measured(images, loaded, loader)


def _channels_there(path: str) -> int | None:
    """Channels of a TIFF file, 0 of an array; None of others, and of what OpenCV alone reads."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix == ARRAY:
        return 0
    try:
        return read_channels(path).shape[2] if suffix in TIFF else None
    except ValueError:  # OpenCV reads some compressions that tifffile does not
        return None


def _measured(images: dict[str, np.ndarray], loaded: list[int], loader: dict[str, Any]) -> Channels:
    samples, holes = [], 0
    for image in images.values():
        step = max(1, math.isqrt(image.shape[0] * image.shape[1] // _PIXELS))
        values = image[::step, ::step][..., loaded].reshape(-1, len(loaded)).astype(np.float64)
        holes += image.dtype.kind == 'f' and not np.isfinite(image[..., loaded]).all()
        samples.append(values)
    every = np.concatenate(samples)
    every[~np.isfinite(every)] = np.nan
    empty = np.isnan(every).all(0)
    if empty.any():
        raise UserError(
            f'channel {loaded[int(np.flatnonzero(empty)[0])]} of the images has no value that is '
            'a number; leave it out of --channels'
        )
    mean, std = np.nanmean(every, 0), np.nanstd(every, 0)
    kinds = sorted({str(image.dtype) for image in images.values()})
    constant = [loaded[i] for i in np.flatnonzero(std == 0)]
    std[std == 0] = 1
    number = len(loaded)
    text = (
        f'The images have {"one channel" if number == 1 else f"{number} channels"} '
        f'({", ".join(kinds)}), from {_short(np.nanmin(every))} to {_short(np.nanmax(every))}; '
        f'mean and std are those of {len(images)} images.'
    )
    if holes:
        loader['fill'] = 0.0
        text += f' {holes} images have values that are not finite, which become 0.'
    if constant:
        text += f' The channels {constant} are constant.'
    return Channels(loader, [_short(x) for x in mean], [_short(x) for x in std], text)


def _short(value: float) -> float:
    return float(f'{value:.5g}')
