"""The splits of a user's data set: their names, checks and sizes."""

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from hybrid_mm.data.deep_images import Depth, depth_of
from hybrid_mm.errors import UserError
from hybrid_mm.zoo.user_channels import Channels

SPLITS = {
    'train': ('train', 'training'),
    'val': ('val', 'valid', 'validation'),
    'test': ('test', 'testing'),
}
DEPTH_SAMPLE = 50
"""Images whose values are looked at."""


@dataclass
class Split:
    """One split of a data set; paths are relative to its root.

    Attributes:
        images: Folder of the images.
        labels: COCO file, or folder of label maps.
        count: Number of images.
        names: Stems of the images, if the split is a part of an unsplit folder of label maps.
        content: Annotations to write, if the split is a part of an unsplit COCO file.
    """

    images: str
    labels: str
    count: int
    names: list[str] | None = None
    content: dict | None = None


@dataclass
class UserData:
    """A data set of a user.

    Attributes:
        root: Folder of the data set, absolute.
        layout: 'coco' or 'masks'.
        classes: Names of the classes, in the order of the labels.
        splits: The splits 'train' and 'val'.
        size: (width, height), medians over the images.
        boxes: Objects per class in the training annotations (COCO).
        polygons: Share of the objects that have a mask (COCO).
        suffixes: Suffixes of the files of images and of label maps (masks).
        ignore: Label that is left out of training and evaluation (masks).
        shifted: Whether it is label 0, so that the label n + 1 is class n (masks).
        note: What was decided about a label; may be empty.
        depth: Bits, values and channels of the images.
        channels: How they are loaded if they have other channels, or others were asked for.
    """

    root: Path
    layout: str
    classes: list[str]
    splits: dict[str, Split]
    size: tuple[int, int]
    boxes: Counter = field(default_factory=Counter)
    polygons: float = 1.0
    suffixes: tuple[str, str] = ('', '')
    ignore: int = 255
    shifted: bool = False
    note: str = ''
    depth: Depth = field(default_factory=Depth)
    channels: Channels | None = None


def split_of(path: Path) -> str | None:
    """Split that is named in the stem of a file, or else in the name of its folder."""
    for text in (path.stem, path.parent.name):
        words = set(re.split(r'[^a-z]+', text.lower()))
        for split, names in SPLITS.items():
            if words & set(names):
                return split
    return None


def held_out(count: int, holdout: float) -> int:
    """Number of images, at least one, to hold out of ``count`` for a share ``holdout``.

    Raises:
        UserError: There is only one image.
    """
    if count < 2:
        raise UserError('one image cannot be divided into training and validation')
    return min(count - 1, max(1, round(count * holdout)))


def check_splits(folder: Path, splits: dict[str, Split], holdout: float | None) -> float:
    """Check that there are a training split, and a validation split or a share to hold out.

    Returns:
        The share; 0 if there is a validation split.

    Raises:
        UserError: One is missing, or there are both a validation split and ``holdout``.
    """
    if 'train' not in splits:
        raise UserError(
            f'{folder} has no training annotations; expected a COCO file whose name or folder '
            'says "train", or images/train with annotations/train (or masks/train); name others '
            'with --train ANNOTATIONS IMAGES'
        )
    if 'val' in splits and holdout:
        raise UserError(f'{folder} has a validation split ({splits["val"].labels}): no --holdout')
    if 'val' not in splits and not holdout:
        raise UserError(
            f'{folder} has no validation split; name it with --val ANNOTATIONS IMAGES, or hold out '
            'a fifth of the training images with --holdout 0.2'
        )
    return holdout or 0.0


def sampled_depth(paths: Sequence[Path]) -> Depth:
    """Bits, values and channels of a sample of images.

    Raises:
        UserError: One cannot be decoded.
    """
    chosen = random.Random(0).sample(paths, min(len(paths), DEPTH_SAMPLE))
    try:
        return depth_of([str(path) for path in chosen])
    except ValueError as error:
        raise UserError(str(error)) from error


def median_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Median width and median height of (width, height) pairs."""
    widths, heights = zip(*sizes, strict=True)
    return int(median(widths)), int(median(heights))
