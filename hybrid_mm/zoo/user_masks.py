"""Data sets of users with label maps: folders of images and of label maps, in known layouts."""

import os
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hybrid_mm.data.images import IMAGE_SUFFIXES
from hybrid_mm.errors import UserError, shorten, warn
from hybrid_mm.run.console import track
from hybrid_mm.zoo.splits import SPLITS, Split, UserData, check_splits, held_out, median_size

MASK_FOLDERS = ('annotations', 'masks', 'labels', 'segmentations', 'mask', 'label', 'annotation')
MASK_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff')
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


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes)


def read_masks(
    folder: Path,
    given: dict[str, Sequence[str]],
    holdout: float | None,
    names: Sequence[str] | None,
    ignore: int,
) -> UserData:
    """Read a data set of images with label maps.

    Args:
        folder: Folder of the data set.
        given: (label maps, images), relative to it, of the splits that the user named.
        holdout: See :func:`~hybrid_mm.zoo.user_data.read_data`.
        names: Names of the classes, or None to read them from ``classes.txt``.
        ignore: Label of pixels to leave out.

    Raises:
        UserError: A split is missing, or its label maps are not valid.
    """
    splits: dict[str, Split] = {}
    folders = {split: (folder / i, folder / m) for split, (m, i) in given.items()}
    for split, images, masks in _mask_folders(folder):
        split = 'train' if split == 'all' and 'train' not in folders else split
        if (
            split not in folders
            and images.is_dir()
            and masks.is_dir()
            and _files(images, IMAGE_SUFFIXES)
        ):
            folders[split] = images, masks
    folders = {split: folders[split] for split in ('train', 'val') if split in folders}
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
        stems = [image.name.removesuffix(suffix[0]) for image, _ in pairs['train']]
        random.Random(0).shuffle(stems)
        count, whole = held_out(len(stems), share), splits['train']
        for split, part in (('val', stems[:count]), ('train', stems[count:])):
            splits[split] = Split(whole.images, whole.labels, len(part), names=sorted(part))
    every = [pair for split in pairs.values() for pair in split]
    if len(every) > SAMPLE:
        warn(f'{len(every)} label maps; labels and sizes are those of {SAMPLE} of them')
        every = random.Random(0).sample(every, SAMPLE)
    labels, sizes = _labels(every)
    classes = _mask_classes(folder, names, labels, ignore)
    size = median_size(sizes)
    return UserData(
        folder.resolve(), 'masks', classes, splits, size, suffixes=suffix, ignore=ignore
    )


def _pair(images: Path, masks: Path) -> tuple[list[tuple[Path, Path]], tuple[str, str]]:
    """Pairs of images and label maps, and the suffixes of both."""
    files = _files(images, IMAGE_SUFFIXES)
    if not files:
        raise UserError(f'{images} holds no images ({", ".join(IMAGE_SUFFIXES)})')
    endings = sorted({path.suffix for path in files})
    if len(endings) > 1:
        raise UserError(
            f'{images} holds images of several endings ({", ".join(endings)}); MMSegmentation '
            'reads one; convert the others'
        )
    maps = {path.name: path for path in _files(masks, MASK_SUFFIXES)}
    if not maps:
        raise UserError(f'{masks} holds no label maps ({", ".join(MASK_SUFFIXES)})')
    first = files[0].stem
    tails = [name[len(first) :] for name in maps if name.startswith(first)]
    for tail in sorted(tails, key=len):
        if all(f'{path.stem}{tail}' in maps for path in files):
            return [(path, maps[f'{path.stem}{tail}']) for path in files], (endings[0], tail)
    tail = min(tails, key=len, default='.png')
    missing = [path.name for path in files if f'{path.stem}{tail}' not in maps]
    raise UserError(
        f'{len(missing)} of {len(files)} images in {images} have no label map in {masks}: '
        f'{shorten(missing, 3)}; expected {Path(missing[0]).stem}{tail} and so on'
    )


def _labels(pairs: Sequence[tuple[Path, Path]]) -> tuple[dict[int, Path], list[tuple[int, int]]]:
    """Labels, each with a file that has it, and sizes (width, height) of the images."""
    labels: dict[int, Path] = {}
    sizes: list[tuple[int, int]] = []
    for image, mask in track(pairs, 'reading label maps'):
        try:
            with Image.open(image) as picture:
                size = picture.size
            with Image.open(mask) as picture:
                array = np.asarray(picture)
        except (OSError, ValueError, SyntaxError) as error:
            raise UserError(f'{image} or {mask} cannot be read: {error}') from error
        if array.ndim != 2:
            raise UserError(
                f'{mask} is a colour image {array.shape}; expected a label map: one channel whose '
                'values are the numbers of the classes'
            )
        if array.shape != size[::-1]:
            raise UserError(
                f'{mask} is {array.shape[1]} x {array.shape[0]}, its image {size[0]} x {size[1]}; '
                'expected the same size'
            )
        sizes.append(size)
        for label in np.unique(array):
            labels.setdefault(int(label), mask)
    return labels, sizes


def _mask_classes(folder: Path, names, labels: dict[int, Path], ignore: int) -> list[str]:
    found = sorted(label for label in labels if label != ignore)
    shown = shorten([str(label) for label in found], 12)
    if not found:
        raise UserError(f'the label maps of {folder} hold nothing but {ignore}, which is ignored')
    if names is None:
        for file in (folder / 'classes.txt', folder / 'labels.txt'):
            if file.is_file():
                lines = [line.strip() for line in file.read_text().splitlines()]
                names = [line for line in lines if line]
                if not names:
                    raise UserError(f'{file} is empty; expected a class in each line')
                break
    if 255 in labels and found == [0]:
        raise UserError(
            f'the label maps of {folder} hold 0 and 255 only (e.g. {labels[255]}); 255 would be '
            'ignored. If it is an object, write 1 instead'
        )
    if names is not None:
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            raise UserError(f'classes are listed twice: {shorten(twice)}')
        wrong = [label for label in found if label >= len(names)]
        if wrong:
            raise UserError(
                f'{labels[wrong[0]]} has the label {wrong[0]}; {len(names)} classes allow 0 to '
                f'{len(names) - 1} and {ignore} (--ignore-index); labels found: {shown}'
            )
        return list(names)
    gaps = [label for label in range(found[-1]) if label not in found]
    if gaps and len(gaps) > len(found):
        raise UserError(
            f'label maps of {folder} have the values {shown} (e.g. {labels[found[-1]]}); expected '
            f'0, 1, 2, ... and {ignore} for ignored pixels: renumber them, or name all classes in '
            f'{folder / "classes.txt"}, one a line'
        )
    warn(
        f'no names of classes ({folder / "classes.txt"}, one a line): class_0 to class_{found[-1]}'
    )
    return [f'class_{label}' for label in range(found[-1] + 1)]
