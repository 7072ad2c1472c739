"""Data sets of users with label maps: folders of images and of label maps, in known layouts."""

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hybrid_mm.data.channel_files import ARRAY
from hybrid_mm.data.images import IMAGE_SUFFIXES
from hybrid_mm.data.sample_check import PICTURES, Colours, files_below, read_pair
from hybrid_mm.errors import UserError, printable, shorten, warn
from hybrid_mm.run.console import track
from hybrid_mm.zoo.mask_classes import mask_classes
from hybrid_mm.zoo.splits import (
    SPLITS,
    Split,
    UserData,
    check_splits,
    held_out,
    median_size,
    sampled_depth,
)
from hybrid_mm.zoo.user_channels import find_channels

MASK_FOLDERS = ('annotations', 'masks', 'labels', 'segmentations', 'mask', 'label', 'annotation')
MASK_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff')
SUFFIXES = (*IMAGE_SUFFIXES, ARRAY)
SAMPLE = 1000
"""Largest number of label maps and images that are read."""


def _mask_folders(root: Path) -> Iterator[tuple[str, Path, Path]]:
    """Candidates (split, images, label maps) of the known layouts; 'all' if there are no splits."""
    for split, names in SPLITS.items():
        for name in names:
            for masks in MASK_FOLDERS:
                yield split, root / 'images' / name, root / masks / name
                yield split, root / name / 'images', root / name / masks
    for masks in MASK_FOLDERS:
        yield 'all', root / 'images', root / masks


def _files(folder: Path, suffixes: Sequence[str]) -> list[str]:
    """Files in a folder and its subfolders, relative to it, without hidden ones."""
    return sorted(
        name for name in files_below(folder) if os.path.splitext(name)[1].lower() in suffixes
    )


def read_masks(
    folder: Path,
    given: dict[str, Sequence[str]],
    holdout: float | None,
    classes: Sequence[str] | None,
    ignore: int | None,
    channels: int | Sequence[int] | None = None,
) -> UserData:
    """Read a data set of images with label maps.

    Args:
        folder: Folder of the data set.
        given: (label maps, images), relative to it, of the splits that the user named.
        holdout: See :func:`~hybrid_mm.zoo.user_data.read_data`.
        classes: Names of the classes, or None to read them from ``classes.txt``.
        ignore: Label of pixels to leave out; see :func:`~hybrid_mm.zoo.mask_classes.mask_classes`.
        channels: See :func:`~hybrid_mm.zoo.user_data.read_data`.

    Raises:
        UserError: A split is missing, or its label maps are not valid.
    """
    splits: dict[str, Split] = {}
    folders = {split: (folder / i, folder / m) for split, (m, i) in given.items()}
    for path in (path for pair in folders.values() for path in pair):
        if not path.is_dir():
            raise UserError(f'{path} is not a folder; label maps and images lie in one each')
    for split, images, masks in _mask_folders(folder):
        if split == 'all':
            if folders.keys() - given.keys():
                continue  # the folder of all images holds those of a split
            split = 'train'
        if split not in folders and images.is_dir() and masks.is_dir() and _files(images, SUFFIXES):
            folders[split] = images, masks
    folders = {split: folders[split] for split in ('train', 'val') if split in folders}
    _check_apart([images for images, _ in folders.values()])
    pairs, suffixes = {}, set()
    for split, (images, masks) in folders.items():
        pairs[split], found = _pair(images, masks)
        suffixes.add(found)
        splits[split] = Split(
            os.path.relpath(images, folder), os.path.relpath(masks, folder), len(pairs[split])
        )
    share = check_splits(folder, splits, holdout)
    if len(suffixes) > 1:
        raise UserError(
            f'files of training and validation end differently: {sorted(suffixes)}; expected one '
            'ending of all images and one of all label maps'
        )
    suffix = suffixes.pop()
    if share:
        root = folders['train'][0]
        names = [image.relative_to(root).as_posix() for image, _ in pairs['train']]
        stems = [name.removesuffix(suffix[0]) for name in names]
        _check_listable(root, stems)
        random.Random(0).shuffle(stems)
        count, whole = held_out(len(stems), share), splits['train']
        for split, part in (('val', stems[:count]), ('train', stems[count:])):
            splits[split] = Split(whole.images, whole.labels, len(part), names=sorted(part))
    every = [pair for split in pairs.values() for pair in split]
    if len(every) > SAMPLE:
        warn(f'{len(every)} label maps; labels and sizes are those of {SAMPLE} of them')
        every = random.Random(0).sample(every, SAMPLE)
    labels, sizes = _labels(every)
    found_classes = mask_classes(folder, classes, labels, ignore)
    images = [image for image, _ in pairs['train']]
    found_channels = find_channels(images, channels)
    return UserData(
        folder.resolve(),
        'masks',
        found_classes.names,
        splits,
        median_size(sizes),
        suffixes=suffix,
        ignore=found_classes.ignore,
        shifted=found_classes.shifted,
        note=found_classes.note,
        depth=sampled_depth([] if found_channels else images),
        channels=found_channels,
    )


def _check_apart(folders: Sequence[Path]) -> None:
    """Check that no folder of images holds another: its subfolders are read as well."""
    found = [folder.resolve() for folder in folders]
    for inner, outer in ((0, 1), (1, 0)):
        if len(found) == 2 and found[inner].is_relative_to(found[outer]):
            raise UserError(
                f'images of training and validation must lie in folders of their own; '
                f'{folders[inner]} is in {folders[outer]}, which is read with its subfolders'
            )


def _check_listable(folder: Path, stems: Sequence[str]) -> None:
    """Check that names can be written to a list, one a line, and are read back as they are."""
    for stem in stems:
        if stem != stem.strip() or '\n' in stem or '\r' in stem or not _is_utf8(stem):
            raise UserError(
                f'{printable(str(folder / stem))}: a name with line breaks, spaces at its ends or '
                'bytes that are not UTF-8 cannot be listed; rename it, or divide the images into '
                'folders of your own instead of --holdout'
            )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _pair(images: Path, masks: Path) -> tuple[list[tuple[Path, Path]], tuple[str, str]]:
    """Pairs of images and label maps, and the suffixes of both."""
    files = _files(images, SUFFIXES)
    if not files:
        raise UserError(f'{images} holds no images ({", ".join(SUFFIXES)})')
    maps = set(_files(masks, MASK_SUFFIXES))
    if images == masks:  # label maps beside their images
        files = [name for name in files if name not in maps] or files
    endings = sorted({Path(name).suffix for name in files})
    if len(endings) > 1:
        raise UserError(
            f'{images} holds images of several endings ({", ".join(endings)}); MMSegmentation '
            'reads one; convert the others'
        )
    if not maps:
        lossy = '; JPEG changes labels, store PNG' if _files(masks, ('.jpg', '.jpeg')) else ''
        raise UserError(f'{masks} holds no label maps ({", ".join(MASK_SUFFIXES)}){lossy}')
    stems = [name.removesuffix(endings[0]) for name in files]
    tails = [name[len(stems[0]) :] for name in sorted(maps) if name.startswith(stems[0])]
    fitting = [tail for tail in tails if all(f'{stem}{tail}' in maps for stem in stems)]
    if not fitting:
        tail = min(tails, key=len, default='.png')
        missing = [name for name, stem in zip(files, stems, strict=True) if stem + tail not in maps]
        raise UserError(
            f'{len(missing)} of {len(files)} images in {images} have no label map in {masks}: '
            f'{shorten(missing, 3)}; expected {missing[0].removesuffix(endings[0])}{tail} and so on'
        )
    tail = min(fitting, key=len)
    unused = maps - {f'{stem}{tail}' for stem in stems}
    if unused:
        warn(f'{masks} has label maps of no image: {shorten(sorted(unused), 3)}')
    others = _files(images, [end for end in PICTURES if end not in SUFFIXES])
    if others:
        warn(f'{len(others)} files in {images} are not read: {shorten(others, 3)}')
    pairs = [(images / n, masks / f'{s}{tail}') for n, s in zip(files, stems, strict=True)]
    return pairs, (endings[0], tail)


def _labels(pairs: Sequence[tuple[Path, Path]]) -> tuple[dict[int, Path], list[tuple[int, int]]]:
    """Labels, each with a file that has it, and sizes (width, height) of the images."""
    labels: dict[int, Path] = {}
    sizes: list[tuple[int, int]] = []
    colours = Colours()
    for image, mask in track(pairs, 'reading label maps'):
        colours.add(str(mask))
        try:
            array, size = read_pair(str(image), str(mask))
        except ValueError as error:
            raise UserError(str(error)) from error
        sizes.append(size)
        for label in np.flatnonzero(np.bincount(array.ravel())):
            labels.setdefault(int(label), mask)
    if colours.problem:
        warn(colours.problem)
    return labels, sizes
