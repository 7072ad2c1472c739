"""Inputs of predictions as one stream of images: arrays, files, folders, videos and lists."""

import dataclasses
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from hybrid_mm.data.images import RESULTS_FOLDERS, find_images
from hybrid_mm.errors import UserError, warn

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')


class FailedInput(UserError):
    """There is no result for an image or a video. The message names it."""


class UnreadableInput(FailedInput):
    """An image or a video cannot be decoded."""


@dataclasses.dataclass(frozen=True)
class File:
    """An image or a video.

    Attributes:
        path: Where it is.
        name: Its name in results: the path relative to a folder of the inputs.
    """

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        """Whether it is read as a video."""
        return self.path.suffix.lower() in VIDEO_SUFFIXES and self.path.is_file()


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
        inputs: Array of an image; path of an image, a video or a folder (of images, searched
            recursively); a :class:`File`; or any iterable of those.

    Raises:
        UserError: A path does not exist, a folder holds no images, or an input is something else.
    """
    if isinstance(inputs, str | Path | np.ndarray | File):
        inputs = [inputs]
    elif not isinstance(inputs, Iterable):
        raise _no_input(inputs)
    # other iterables are read only once
    root = _common_folder(inputs) if isinstance(inputs, list | tuple) else None
    expanded = (source for item in inputs for source in _expand(item, root))
    for index, source in enumerate(expanded):
        if source.image is not None and source.frame is None:
            source.name = f'array{index}'
        source.index = index
        yield source


def list_files(paths: Sequence[str | Path], out: str | Path | None = None) -> list[File]:
    """Images and videos at some paths, each once; see :func:`read_sources`.

    Args:
        paths: Images, videos and folders.
        out: Folder of the results, which are no inputs.

    Raises:
        UserError: A path is empty, does not exist, is in the folder of the results, or holds no
            images.
    """
    if '' in map(str, paths):
        raise UserError("an input is '', which names nothing; is a variable empty?")
    root = _common_folder(paths)
    results = [] if out is None else [Path(out).resolve() / name for name in RESULTS_FOLDERS]
    found: dict[str, File] = {}
    twice = 0
    for path in map(Path, paths):
        if any(path.resolve().is_relative_to(folder) for folder in results):
            raise UserError(f'{path} is in the folder of the results, {out}; name another --out')
        for file in _files(path, root):
            key = os.path.abspath(file.path)
            twice += key in found
            found.setdefault(key, file)
    if twice:
        warn(f'{twice} of the inputs are named twice; they are taken once')
    return list(found.values())


def count_sources(files: Iterable[str | Path | File]) -> int:
    """Number of images and frames at the given paths; that of a video is from its header.

    Raises:
        UserError: A path does not exist, or a folder holds no images.
    """
    total = 0
    for item in files:
        for file in [item] if isinstance(item, File) else _files(Path(item), None):
            total += _count_frames(file.path) if file.is_video else 1
    return total


def _expand(item, root: Path | None) -> Iterator[Source]:
    if isinstance(item, np.ndarray):
        yield Source(0, '', image=item)
    elif isinstance(item, str | Path | File):
        for file in [item] if isinstance(item, File) else _files(Path(item), root):
            if file.is_video:
                yield from _frames(file.path, file.name)
            else:
                yield Source(0, file.name, path=file.path)
    else:
        raise _no_input(item)


def _files(path: Path, root: Path | None) -> list[File]:
    return [File(file, _name(file, root)) for file in find_images(path)]


@contextmanager
def plain_path(path: Path) -> Iterator[str]:
    """Path for OpenCV: a link, if the name is not UTF-8, at which OpenCV crashes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        with tempfile.TemporaryDirectory() as folder:
            link = Path(folder, 'video' + path.suffix)
            link.symlink_to(os.path.abspath(path))
            yield str(link)
    else:
        yield str(path)


@contextmanager
def _opened(path: Path) -> Iterator[cv2.VideoCapture]:
    with plain_path(path) as name:
        video = cv2.VideoCapture(name)
        try:
            yield video
        finally:
            video.release()


def _count_frames(path: Path) -> int:
    with _opened(path) as video:
        return max(1, int(video.get(cv2.CAP_PROP_FRAME_COUNT)))


def _frames(path: Path, name: str) -> Iterator[Source]:
    with _opened(path) as video:
        fps, number = video.get(cv2.CAP_PROP_FPS) or 25.0, 0
        while True:
            read, image = video.read()
            if not read:
                break
            yield Source(0, name, image=image, frame=number, fps=fps)
            number += 1
        stated = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    if number == 0:
        yield Source(0, name, problem='no frame of the video can be decoded')
    elif number < 0.95 * stated - 2:  # headers are not exact
        warn(f'{path}: {number} of {stated} frames can be decoded; is the video complete?')


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


def _common_folder(inputs: Iterable) -> Path | None:
    """Common folder of the paths among inputs."""
    paths = [os.path.abspath(item) for item in inputs if isinstance(item, str | Path)]
    folders = [path if os.path.isdir(path) else os.path.dirname(path) for path in paths]
    try:
        return Path(os.path.commonpath(folders)) if folders else None
    except ValueError:  # several drives
        return None


def _name(file: Path, root: Path | None) -> str:
    """Path relative to ``root``, or else the whole path without drive, root and ``..``.

    Links are named as they are: what they point to may be anywhere.
    """
    if root is not None:
        return Path(os.path.abspath(file)).relative_to(root).as_posix()
    return Path(*[part for part in file.parts if part not in (file.anchor, '..')]).as_posix()
