"""Inputs of predictions as one stream of images: arrays, files, folders, videos and lists."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np

from hybrid_mm.data.images import find_images
from hybrid_mm.errors import UserError

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


class UnreadableInput(UserError):
    """An image or a video cannot be decoded. The message names it."""


@dataclasses.dataclass
class Source:
    """One image that is not read yet.

    Attributes:
        index: Position in the stream, from 0.
        name: Path relative to the folder given as input, or ``array0`` and so on.
        path: File of the image; None for an array.
        image: Pixels of an array or a frame, (H, W, 3), uint8, BGR; None for a file.
        frame: Number of the frame in its video, from 0.
        fps: Frames per second of the video.
        problem: Why there is no image; the other attributes but ``name`` are empty then.
    """

    index: int
    name: str
    path: Path | None = None
    image: np.ndarray | None = None
    frame: int | None = None
    fps: float | None = None
    problem: str | None = None

    @property
    def label(self) -> str:
        """Name with the number of the frame, for messages."""
        return self.name if self.frame is None else f'{self.name}, frame {self.frame}'


def read_sources(inputs) -> Iterator[Source]:
    """Expand inputs one by one, without reading ahead.

    Args:
        inputs: Array (H, W, 3), uint8, BGR; path of an image, a video or a folder (of images,
            searched recursively); or any iterable of those.

    Raises:
        UserError: A path does not exist, a folder holds no images, or an input is something else.
    """
    if isinstance(inputs, str | Path | np.ndarray):
        items: Iterable = [inputs]
        root = None if isinstance(inputs, np.ndarray) else _folder(Path(inputs))
    elif isinstance(inputs, Iterable):
        items, root = inputs, _common_folder(inputs)
    else:
        raise _no_input(inputs)
    expanded = (source for item in items for source in _expand(item, root))
    for index, source in enumerate(expanded):
        if source.image is not None and source.frame is None:
            source.name = f'array{index}'
        source.index = index
        yield source


def count_sources(paths: Iterable[str | Path]) -> int:
    """Number of images and frames at the given paths; that of a video is from its header.

    Raises:
        UserError: A path does not exist, or a folder holds no images.
    """
    total = 0
    for path in map(Path, paths):
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            video = cv2.VideoCapture(str(path))
            total += max(1, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))
            video.release()
        else:
            total += len(find_images(path))
    return total


def _expand(item, root: Path | None) -> Iterator[Source]:
    if isinstance(item, np.ndarray):
        check_image(item)
        yield Source(0, '', image=item)
    elif isinstance(item, str | Path):
        if Path(item).suffix.lower() in VIDEO_SUFFIXES and Path(item).is_file():
            yield from _frames(Path(item), _name(Path(item), root))
        else:
            for file in find_images(item):
                yield Source(0, _name(file, root), path=file)
    else:
        raise _no_input(item)


def _frames(path: Path, name: str) -> Iterator[Source]:
    video = cv2.VideoCapture(str(path))
    try:
        fps, number = video.get(cv2.CAP_PROP_FPS) or 25.0, 0
        while True:
            read, image = video.read()
            if not read:
                break
            yield Source(0, name, image=image, frame=number, fps=fps)
            number += 1
        if number == 0:
            yield Source(0, name, problem='no frame of the video can be decoded')
    finally:
        video.release()


def check_image(image: np.ndarray) -> None:
    """Check that an array is an image.

    Raises:
        UserError: It is not (H, W, 3), uint8.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UserError(
            'an array must be an image (H, W, 3), uint8, in the order blue, green, red, got '
            f'{tuple(image.shape)}, {image.dtype}'
        )


def _no_input(item) -> UserError:
    return UserError(
        'inputs must be arrays (H, W, 3), paths of images, folders or videos, or an iterable of '
        f'those, got {type(item).__name__}'
    )


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _common_folder(inputs: Iterable) -> Path | None:
    """Common folder of the paths of a list; None for other iterables, which are read only once."""
    if not isinstance(inputs, list | tuple):
        return None
    folders = [_folder(Path(item)).resolve() for item in inputs if isinstance(item, str | Path)]
    try:
        return Path(os.path.commonpath(folders)) if folders else None
    except ValueError:  # several drives
        return None


def _name(file: Path, root: Path | None) -> str:
    """Path relative to ``root``, or else the whole path without drive, root and ``..``."""
    if root is not None:
        return file.resolve().relative_to(root.resolve()).as_posix()
    return Path(*[part for part in file.parts if part not in (file.anchor, '..')]).as_posix()
