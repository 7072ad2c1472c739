"""Checks of the masks in annotation files of COCO's format, before pycocotools draws them.

Its C code does not check what it is given: coordinates far outside of an image end in a
segmentation fault or hang, and run lengths that do not fill their image leave memory as it was.
"""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from hybrid_mm.data.coco_values import as_number, shown
from hybrid_mm.errors import shorten

Polygons = list[list[float]]

_NUMBERS = frozenset((int, float))
_LONGEST = 7  # characters of a run length of 32 bits


class MaskError(ValueError):
    """A mask cannot be used. The text continues "annotation 7 has ..."."""


class FewPointsError(MaskError):
    """No polygon of a mask has three points."""


def reach(height: int, width: int) -> int:
    """How far from the origin the coordinates of polygons may lie.

    Polygons may stick out of their image: pycocotools cuts them off, in a time that grows with
    their length. Ten sides and 1000 pixels are more than any annotation tool writes.
    """
    return 1000 + 10 * max(height, width)


def are_plain(polygons: list, limit: int) -> bool:
    """Whether a list is what it should be: polygons of three or more points within the limit."""
    for polygon in polygons:
        if type(polygon) is not list or len(polygon) < 6 or len(polygon) % 2:
            return False
        if not _NUMBERS.issuperset(map(type, polygon)):
            return False
        if min(polygon) < -limit or max(polygon) > limit:
            return False
        if math.isnan(sum(polygon)):  # which comparisons do not see
            return False
    return bool(polygons)


def plain_polygons(mask: list, limit: int) -> tuple[Polygons, list[str]]:
    """Polygons of a mask in the form of COCO.

    Args:
        mask: Polygons [x1, y1, x2, y2, ...] or lists of points [[x1, y1], [x2, y2], ...]; one of
            these alone is read, too.
        limit: Result of :func:`reach`.

    Returns:
        Polygons of three or more points, and what had to be converted.

    Raises:
        FewPointsError: No polygon has three points.
        MaskError: Something is not a finite number within the limit.
    """
    notes = set()
    if not any(isinstance(part, list) for part in mask):
        notes.add('with a polygon that is not in a list of polygons; read as one polygon')
        mask = [mask]
    elif len(mask) > 2 and all(_is_point(part) for part in mask):
        notes.add('with a polygon as a list of points; read as [[x1, y1, x2, y2, ...]]')
        mask = [list(chain.from_iterable(mask))]
    polygons = []
    for part in mask:
        if isinstance(part, list) and len(part) > 2 and all(_is_point(point) for point in part):
            notes.add('with a polygon as a list of points; read as [[x1, y1, x2, y2, ...]]')
            part = list(chain.from_iterable(part))
        if not isinstance(part, list):
            raise MaskError(f'the polygon {shown(part)}; expected a list [x1, y1, x2, y2, ...]')
        polygon = []
        for value in part:
            coordinate = as_number(value)
            if coordinate is None or abs(coordinate) > limit:
                raise MaskError(
                    f'a polygon with the coordinate {shown(value)}; expected numbers from '
                    f'{-limit} to {limit} for an image of its size'
                )
            if isinstance(value, str):
                notes.add('with coordinates as text; read as numbers')
            polygon.append(coordinate)
        polygons.append(polygon)
    good = [polygon for polygon in polygons if len(polygon) > 5 and len(polygon) % 2 == 0]
    if not good:
        raise FewPointsError('a mask whose polygons have fewer than three points')
    if len(good) < len(polygons):
        notes.add('with further polygons of one or two points; only those are left out')
    return good, sorted(notes)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def plain_run_lengths(mask: dict, height: int, width: int) -> tuple[dict, list[str]]:
    """Run-length mask in the form of COCO; its compressed text is not looked into.

    Returns:
        The mask, and what had to be converted.

    Raises:
        MaskError: The size is not that of the image, or the counts cannot be those of a mask.
    """
    notes = []
    size, counts = mask.get('size'), mask.get('counts')
    if size is None:
        notes.append('with a run-length mask without size; taken as that of the image')
        size = [height, width]
    sides = [as_number(side) for side in size] if isinstance(size, list) else None
    if sides != [height, width]:
        raise MaskError(
            f'a mask of the size {shown(size)}; its image has {[height, width]} (height, width)'
        )
    if isinstance(counts, list):
        numbers = [as_number(count) for count in counts]
        if any(isinstance(count, str) for count in counts):
            notes.append('with run lengths as text; read as numbers')
        wrong = [
            shown(count)
            for count, number in zip(counts, numbers, strict=True)
            if number is None or number < 0 or number % 1
        ]
        if wrong:
            raise MaskError(f'run lengths that are not counts of pixels: {shorten(wrong)}')
        counts = [int(number) for number in numbers if number is not None]
        check_filled(sum(counts), height, width)
    elif not isinstance(counts, str):
        raise MaskError(
            f'a run-length mask with the counts {shown(counts)}; expected a list of numbers, or '
            'the text of pycocotools'
        )
    return dict(mask, size=[height, width], counts=counts), notes


def check_filled(total: int, height: int, width: int) -> None:
    """Check the sum of run lengths; a negative one stands for text that is not theirs.

    Raises:
        MaskError: The sum is not the number of pixels of the image.
    """
    if total < 0:
        raise MaskError('a run-length mask whose counts are not the text that pycocotools writes')
    if total != height * width:
        raise MaskError(
            f'a run-length mask whose counts add up to {total}; its image of {height} x {width} '
            f'has {height * width} pixels'
        )


def totals(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the run lengths in the compressed texts of pycocotools, of many masks at once.

    A number is written in characters of five bits each, the lowest ones first, with the offset 48;
    the sixth bit says that another one follows, and the sign is in the last one. From the fourth
    number on, differences to the last but one are written.

    Returns:
        Pixels of the images, and those inside of the masks, of every text; -1 where a text is not
        that of run lengths.
    """
    lengths = np.array([len(text) for text in texts], np.int64)
    ascii_only = [text if text.isascii() else '~' * len(text) for text in texts]
    code = np.frombuffer(''.join(ascii_only).encode(), np.uint8).astype(np.int64) - 48
    owner = np.repeat(np.arange(len(texts)), lengths)
    wrong = np.zeros(len(texts), bool)
    wrong[owner[(code < 0) | (code > 63)]] = True
    last = (code & 32) == 0
    ends = np.cumsum(lengths)[lengths > 0] - 1
    wrong[owner[ends[~last[ends]]]] = True
    last[ends] = True
    if not len(code):
        return np.full(len(texts), -1), np.full(len(texts), -1)

    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    digits = np.diff(np.append(starts, len(code)))
    owner = owner[starts]
    wrong[owner[digits > _LONGEST]] = True
    place = np.arange(len(code)) - np.repeat(starts, digits)
    values = np.add.reduceat((code & 31) << 5 * np.minimum(place, _LONGEST), starts)
    negative = (code[starts + digits - 1] & 16) > 0
    values -= np.where(negative, 1 << 5 * np.minimum(digits, _LONGEST), 0)

    first = np.flatnonzero(np.diff(owner, prepend=-1))  # the first number of every text
    rank = np.arange(len(values)) - np.repeat(first, np.diff(np.append(first, len(values))))
    inside = rank % 2 == 1
    for chosen in (inside, ~inside & (rank > 0)):
        places = np.flatnonzero(chosen)
        sums = np.cumsum(values[places])
        new = np.flatnonzero(np.diff(owner[places], prepend=-1))
        before = np.concatenate([[0], sums])[new]
        values[places] = sums - np.repeat(before, np.diff(np.append(new, len(places))))
    wrong[owner[(values < 0) | (values >= 1 << 32)]] = True
    values = np.where(wrong[owner], 0, values)
    filled = np.bincount(owner, values, len(texts)).astype(np.int64)
    covered = np.bincount(owner, values * inside, len(texts)).astype(np.int64)
    wrong |= lengths == 0
    return np.where(wrong, -1, filled), np.where(wrong, -1, covered)


def area_of(mask: Any, height: int, width: int) -> float:
    """Pixels of a mask, of polygons by the shoelace formula; 0 for what is not a mask."""
    try:
        if isinstance(mask, list):
            limit = reach(height, width)
            polygons = mask if are_plain(mask, limit) else plain_polygons(mask, limit)[0]
            return sum(map(_shoelace, polygons))
        if isinstance(mask, dict):
            mask, _ = plain_run_lengths(mask, height, width)
            if isinstance(mask['counts'], list):
                return float(sum(mask['counts'][1::2]))
            return max(0.0, float(totals([mask['counts']])[1][0]))
    except MaskError:
        pass
    return 0.0


def _shoelace(polygon: list[float]) -> float:
    x, y = polygon[::2], polygon[1::2]
    following = zip(x, y, x[1:] + x[:1], y[1:] + y[:1], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in following)) / 2
