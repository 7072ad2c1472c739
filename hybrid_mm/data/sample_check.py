"""Checks of one sample: image files that are whole, and label maps that fit their image."""

import logging
import mmap
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from hybrid_mm.data.channel_files import size_of_array
from hybrid_mm.data.deep_images import warn_of_dark
from hybrid_mm.data.images import IMAGE_SUFFIXES

PICTURES = (*IMAGE_SUFFIXES, '.jpe', '.jp2', '.heic', '.heif', '.avif')
"""Endings of the names of image files, also of those that are not read."""
_SIGNATURES = JPEG, PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'
# a marker of a JPEG file: not a stuffed byte of a scan, and none of the marks within a scan
_MARKER = re.compile(rb'\xff+[^\x00\xff\xd0-\xd7]')
_EIGHT_BITS = ('1', 'L', 'P', 'LA', 'PA', 'RGB', 'RGBA', 'CMYK')


def is_hidden(path: str) -> bool:
    """Whether a file is none of the user's data, by its path relative to the folder of the data.

    Such are files and folders whose names start with a dot (``._0.png`` of macOS,
    ``.ipynb_checkpoints``), and what is in ``__MACOSX``.
    """
    parts = [part for part in path.replace(os.sep, '/').split('/') if part not in ('', '.', '..')]
    return any(part.startswith('.') or part == '__MACOSX' for part in parts)


def files_below(folder: str | os.PathLike) -> Iterator[str]:
    """Files in a folder and its subfolders, relative to it, without hidden ones; links count."""
    seen = set()
    for path, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(path)
        if real in seen:  # links in a circle
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not is_hidden(name)]
        below = os.path.relpath(path, folder)
        yield from (os.path.normpath(os.path.join(below, n)) for n in names if not is_hidden(n))


def other_images(
    folder: str, suffix: str | Sequence[str], maps: str | None = None, map_suffix: str = ''
) -> str:
    """Images in a folder and its subfolders that have another suffix, as '3 .JPG, 1 .webp'.

    Args:
        folder: The folder.
        suffix: Suffix of the images that are read, or several in lower case, for names in any.
        maps: Folder of the label maps, which may be the same or in it.
        map_suffix: Suffix of the label maps.
    """
    folder, maps = os.path.abspath(folder), maps and os.path.abspath(maps)
    by_folder: dict[str, list[str]] = {}
    for path in files_below(folder):
        by_folder.setdefault(os.path.dirname(path), []).append(os.path.basename(path))
    found: Counter[str] = Counter()
    for below, names in by_folder.items():
        path = os.path.join(folder, below)
        if maps and maps != folder and f'{path}/'.startswith(f'{maps}/'):
            continue
        if isinstance(suffix, str):
            stems = {name.removesuffix(suffix) for name in names if name.endswith(suffix)}
            known = {stem + suffix for stem in stems}
            if maps == folder:
                known |= {stem + map_suffix for stem in stems}
        else:
            known = {name for name in names if name.lower().endswith(tuple(suffix))}
        for name in names:
            ending = os.path.splitext(name)[1]
            if name not in known and ending.lower() in PICTURES:
                found[ending] += 1
    return ', '.join(f'{count} {ending}' for ending, count in sorted(found.items()))


def is_image(path: str) -> bool:
    """Whether Pillow knows the format of a file."""
    try:
        _opened(path).close()
    except ValueError:
        return False
    return True


def check_file_end(path: str) -> None:
    """Check that a file is not empty and, if it is a JPEG or PNG file, complete.

    Decoders may replace what is missing with grey. Bytes behind the end of an image do no harm.

    Raises:
        ValueError: The file is truncated.
    """
    size = os.path.getsize(path)
    if not size or not _is_complete(path):
        raise ValueError(f'{path} is truncated ({size} bytes)')


def _is_complete(path: str) -> bool:
    # memory-mapped: of most complete files only the beginning and the end are read
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:3] == JPEG:
            return _jpeg_is_complete(data)
        if data[:8] == PNG:
            return _png_is_complete(data)
        return not any(signature.startswith(data[:8]) for signature in _SIGNATURES)


def _jpeg_is_complete(data: mmap.mmap) -> bool:
    """Whether the end of the first image is there; a thumbnail in its header has its own."""
    at = 2
    while found := _MARKER.search(data, at):
        at = found.end()
        marker = data[at - 1]
        if marker == 0xD9:  # end of the image
            return True
        if marker not in (0x01, 0xD8):  # all others have a length
            at += int.from_bytes(data[at : at + 2], 'big')
        if marker == 0xDA and data[-2:] == b'\xff\xd9':
            return True  # a scan, and nothing behind the end: no need to read it
    return False


def _png_is_complete(data: mmap.mmap) -> bool:
    at = len(PNG)
    while at + 12 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], 'big'), data[at + 4 : at + 8]
        at += 12 + length
        if kind == b'IEND':
            return True
    return False


def read_pair(image: str, label_map: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Read a label map as it is, and the size of its image turned upright.

    Returns:
        Labels (H, W), uint8, and (W, H).

    Raises:
        ValueError: A file cannot be read or is truncated, the label map has several channels,
            values that 8 bits do not hold, or another size than the image.
    """
    for path in (image, label_map):
        if not os.path.isfile(path):
            raise ValueError(f'{path} does not exist')
        check_file_end(path)
    width, height = _upright_size(image)
    with _opened(label_map) as picture:
        try:
            labels = np.asarray(picture)
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f'label map {label_map} cannot be read: {error}') from error
    check_shape(labels, label_map, (height, width))
    _check_depth(labels, label_map)
    return labels.astype(np.uint8), (width, height)


def _upright_size(path: str) -> tuple[int, int]:
    """Width and height of an image, turned as its EXIF data say."""
    logger = logging.getLogger('PIL.TiffImagePlugin')
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # of many channels it would complain
    try:
        opened = _opened(path)
    except ValueError:
        size = size_of_array(path)  # what Pillow does not know
        if size is None:
            raise
        return size
    finally:
        logger.setLevel(level)
    with opened as picture:
        width, height = picture.size
        try:
            turned = picture.getexif().get(0x0112, 1) >= 5  # by a quarter
        except Exception:  # what damaged EXIF data can raise; decoders then ignore them
            turned = False
    return (height, width) if turned else (width, height)


def _opened(path: str) -> Image.Image:
    try:
        return Image.open(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'{path} cannot be read as an image: {error}') from error


def check_shape(labels: np.ndarray, path: str, shape: tuple[int, ...]) -> None:
    """Check that a label map has one channel and the size (H, W) of its image, if that is known.

    Raises:
        ValueError: It has not.
    """
    if labels.ndim != 2:
        colours = labels[..., :3] if labels.ndim == 3 and labels.shape[2] > 2 else labels[..., :1]
        if (colours == colours[..., :1]).all():
            hint = ', and all are the same: store one'
        else:
            number = len(np.unique(colours.reshape(-1, 3), axis=0))
            hint = (
                f': numbers of classes, no colours; convert the {number} colours ("From colours '
                'to numbers" in docs/getting_started.md)'
            )
        raise ValueError(
            f'label map {path} has the shape {labels.shape}; expected one channel{hint}'
        )
    if shape and labels.shape != shape:
        raise ValueError(
            f'label map {path} has {labels.shape[0]} x {labels.shape[1]} pixels (height x '
            f'width), the image {shape[0]} x {shape[1]}'
        )


def _check_file_depth(path: str) -> None:
    """Check that the values of a label map on the disk fit into the 8 bits that are kept."""
    try:
        with Image.open(path) as picture:  # reads the header only
            if picture.mode not in _EIGHT_BITS:
                _check_depth(np.asarray(picture), path)
    except OSError:  # another package reads what Pillow does not know
        return


def _check_depth(labels: np.ndarray, path: str) -> None:
    if labels.dtype in (np.bool_, np.uint8) or not labels.size:
        return
    if not np.isfinite(labels).all() or (labels != np.clip(labels, 0, 255).astype(np.uint8)).any():
        raise ValueError(
            f'label map {path} has {8 * labels.dtype.itemsize} bits per pixel and values from '
            f'{labels.min()} to {labels.max()}; MMSegmentation keeps 8 bits, which would change '
            'labels'
        )


class Colours:
    """Colours that the palettes of label maps give to labels.

    Programs that save coloured pictures with a palette number the colours by themselves, in each
    file anew.

    Attributes:
        problem: The first two label maps in which one colour has two labels, or None.
    """

    def __init__(self) -> None:
        self.problem: str | None = None
        self._first: dict[tuple[int, ...], tuple[int, str]] = {}

    def add(self, path: str) -> None:
        """Compare a label map with those before; one without palette is left alone."""
        try:
            with Image.open(path) as picture:
                if picture.mode != 'P' or not (palette := picture.getpalette()):
                    return
                used = np.flatnonzero(np.bincount(np.asarray(picture).ravel()))
        except (OSError, ValueError, SyntaxError):  # whoever reads the labels says so
            return
        colours = {tuple(palette[3 * label : 3 * label + 3]): int(label) for label in used}
        if len(colours) < len(used) or () in colours:  # they do not stand for the labels
            return
        for colour, label in colours.items():
            first, file = self._first.setdefault(colour, (label, path))
            if first != label and self.problem is None:
                self.problem = (
                    f'the palettes of label maps disagree: the colour {colour} is the label '
                    f'{first} in {file}, {label} in {path}. Trained are the numbers, not the '
                    'colours; save label maps from numbers of classes'
                )


class SampleCheck:
    """Transform after the loading ones: checks that image and annotations fit together.

    Args:
        num_classes: Number of classes of a semantic segmentation, else None.
        ignore_index: The label that is ignored, besides 255.
        warn_dark: Warn of images whose bits reading as 8 bits drops.
    """

    def __init__(
        self, num_classes: int | None = None, ignore_index: int = 255, warn_dark: bool = False
    ):
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.warn_dark = warn_dark

    def __call__(self, results: dict) -> dict:
        """Return the sample unchanged if it passes the checks.

        Raises:
            ValueError: The image is truncated; its size is not that of the annotations; a label
                map has several channels, values that 8 bits do not hold, another size or a label
                out of range.
        """
        path, shape = results.get('img_path'), tuple(results.get('ori_shape', ()))
        if path and os.path.isfile(path):
            check_file_end(path)
            if self.warn_dark:
                warn_of_dark(path)
        stated = (results.get('height'), results.get('width'))
        if shape and None not in stated and shape != stated:
            raise ValueError(
                f'the image has {shape[0]} x {shape[1]} pixels (height x width, turned upright as '
                f'its EXIF data say), the annotations are for {stated[0]} x {stated[1]}'
            )
        if self.num_classes is not None and results.get('gt_seg_map') is not None:
            self._check_labels(results, shape, self.num_classes)
        return results

    def _check_labels(self, results: dict, shape: tuple, num_classes: int) -> None:
        path, labels = results['seg_map_path'], results['gt_seg_map']
        if labels.dtype != np.uint8:  # a volume that another loader than MMSegmentation's read
            return
        check_shape(labels, path, shape)
        if os.path.isfile(path):
            check_file_end(path)
            _check_file_depth(path)
        counts = np.bincount(labels.ravel(), minlength=256)
        counts[[self.ignore_index, 255]] = 0
        wrong = np.flatnonzero(counts[num_classes:])
        if len(wrong):
            value = wrong[0] + num_classes
            raise ValueError(
                f'label map {path} has the label {value} (after '
                f'reduce_zero_label and label_map); expected 0..{num_classes - 1} and '
                f'{self.ignore_index} (ignored); if {value} marks pixels without a class, set '
                f'ignore_index={value} of data sets, heads and metrics, and seg_pad_val'
            )


def one_label(
    labels: set[int], ignored: int | None, classes: int, shifted: bool = False
) -> str | None:
    """What is wrong with label maps that hold one class of several, or None.

    Args:
        labels: Labels of all maps that are not ignored.
        ignored: Value that is ignored, if the maps have it.
        classes: Number of the classes.
        shifted: Whether these are the labels after ``reduce_zero_label``, which ignores 0.
    """
    if classes < 2 or len(labels) > 1:
        return None
    if shifted:
        hint = 'with reduce_zero_label=True, which ignores the label 0; set it to False if 0 counts'
    else:
        hint = f'{ignored} is ignored; if it is an object, write another label instead, such as 1'
    if not labels:
        return f'nothing but ignored pixels: {hint}'
    (label,) = labels
    if ignored is None:
        return f'the label {label} only, one of {classes} classes'
    return f'{label} and {ignored} only, so that one of {classes} classes would count: {hint}'
