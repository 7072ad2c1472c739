"""Checks of annotation files in COCO's format, in one pass over the file."""

import json
import math
import mmap
import os
import re
from collections import Counter
from typing import Any

from hybrid_mm.errors import UserError, shorten, warn

_IMAGE_KEYS = ('id', 'file_name', 'height', 'width')


def load_coco(api: type, path: str) -> Any:
    """Read an annotation file and check it as a whole.

    Args:
        api: Class of MMDetection that reads such files.
        path: The file.

    Raises:
        UserError: The file is empty, not JSON, or not in COCO's format; an image lacks
            ``file_name``, ``height`` or ``width``; two images, objects or categories share an id.
    """
    try:
        coco = api(path)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f'annotation file {path} is not in the format of COCO '
            f'({type(error).__name__}: {str(error) or "no message"})'
        ) from error
    absent = [key for key in ('images', 'annotations', 'categories') if key not in coco.dataset]
    if absent:
        raise UserError(f'annotation file {path} has no list {absent[0]!r}; expected a COCO file')
    for image in coco.dataset['images']:
        lacking = [key for key in _IMAGE_KEYS if image.get(key) is None]
        if lacking:
            raise UserError(f'{path}: image {image.get("id")} has no {lacking[0]!r}')
    for name in ('images', 'annotations', 'categories'):
        entries = coco.dataset[name]
        if len({entry['id'] for entry in entries}) < len(entries):
            numbers = Counter(entry['id'] for entry in entries)
            twice = [str(number) for number, count in numbers.items() if count > 1]
            raise UserError(
                f'{path}: ids of {name} must be unique; used more than once: {shorten(twice)}'
            )
    return coco


def broken_images(coco: Any, path: str, masks: bool) -> dict[int, str]:
    """Find images with invalid annotations.

    Objects that MMDetection itself leaves out of training (boxes without area, smaller than a
    pixel, or outside the image; annotations of images that are not listed) or ignores (masks of
    fewer than three points) are not errors: they are counted in one warning per reason.

    Args:
        coco: Result of :func:`load_coco`.
        path: The file, for messages.
        masks: Whether the pipeline loads instance masks.

    Returns:
        The problem (a box that is not four finite numbers, a category that does not exist, no
        mask, a run-length mask of another size than the image) by image id.
    """
    broken: dict[int, str] = {}
    odd: dict[str, list[str]] = {}
    for entry in coco.dataset['annotations']:
        if 'segments_info' in entry:  # panoptic: checked against its picture when it is loaded
            continue
        number, image = entry['id'], coco.imgs.get(entry['image_id'])
        if image is None:
            odd.setdefault('of images that are not listed', []).append(str(number))
            continue
        problem = _problem(entry, coco.cats)
        if problem is None and _left_out(entry, image):
            odd.setdefault('with a box of no area inside its image', []).append(str(number))
            continue
        problem = problem or (_mask_problem(entry, image) if masks else None)
        if problem:
            broken.setdefault(entry['image_id'], f'annotation {number} {problem}')
        elif _few_points(entry):
            odd.setdefault('whose mask has fewer than three points', []).append(str(number))
    for reason, numbers in odd.items():
        warn(
            f'{path}: {len(numbers)} annotations {reason} take no part in training '
            f'(ids {shorten(numbers)})'
        )
    return broken


def _problem(entry: dict, categories: dict) -> str | None:
    box: Any = entry.get('bbox')
    four = isinstance(box, list) and len(box) == 4
    if not four or not all(isinstance(v, int | float) and math.isfinite(v) for v in box):
        return f'has the box {box}; expected four finite numbers x, y, width, height'
    if entry['category_id'] not in categories:
        known = [str(number) for number in categories]
        return f'has the category {entry["category_id"]}; the file has {shorten(known)}'
    if not isinstance(entry.get('area'), int | float):
        return f'has the area {entry.get("area")}; expected a number'
    return None


def _left_out(entry: dict, image: dict) -> bool:
    """Whether MMDetection leaves the object out; see ``CocoDataset.parse_data_info``."""
    x, y, w, h = entry['bbox']
    inside = min(x + w, image['width']) > max(x, 0) and min(y + h, image['height']) > max(y, 0)
    return not inside or entry['area'] <= 0 or w < 1 or h < 1


def _mask_problem(entry: dict, image: dict) -> str | None:
    mask = entry.get('segmentation')
    if not mask:
        return 'has no segmentation, and the pipeline loads masks'
    size = [image['height'], image['width']]
    if isinstance(mask, dict) and list(mask.get('size') or ()) != size:
        return f'has a mask of the size {mask.get("size")}; its image has {size} (height, width)'
    return None


def _few_points(entry: dict) -> bool:
    """Whether a mask consists of polygons that all have fewer than three points."""
    polygons = entry.get('segmentation')
    return bool(
        isinstance(polygons, list)
        and polygons
        and all(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons)
    )


def coco_categories(path: str) -> list[str] | None:
    """Names of the categories of a COCO file without parsing its (large) other parts."""
    with open(path, 'rb') as file:
        if not os.fstat(file.fileno()).st_size:
            raise UserError(f'annotation file {path} is empty')
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for match in re.finditer(rb'"categories"\s*:\s*\[', data):
                start = match.end() - 1
                for size in (1 << 16, len(data)):
                    try:
                        text = data[start : start + size].decode('utf-8', 'ignore')
                        found, _ = json.JSONDecoder().raw_decode(text)
                    except ValueError:
                        continue
                    if all(isinstance(item, dict) and 'name' in item for item in found):
                        return [item['name'] for item in found]
    return None
