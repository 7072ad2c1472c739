"""The reader of annotation files in COCO's format: checks and conversions in one pass.

What is written in another way than COCO's, but can mean one thing only, is converted, and reported
in one warning per kind. Everything else that MMDetection or pycocotools would misread, ignore, or
end a run for, is an error that names the entry.
"""

import functools
import json
import math
import mmap
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hybrid_mm.data.coco_masks import (
    FewPointsError,
    MaskError,
    are_plain,
    area_of,
    as_number,
    check_filled,
    plain_polygons,
    plain_run_lengths,
    reach,
    shown,
    totals,
)
from hybrid_mm.errors import UserError, shorten, warn

_LISTS = ('images', 'annotations', 'categories')
_MOST_PIXELS = 2**32 - 1  # of a mask in pycocotools
_FLAGS = {'0': 0, '1': 1, 'false': 0, 'true': 1, '': 0}
_TEXT_AT_ONCE = 1 << 20  # characters of compressed masks that are looked at together

Id = int | str


@dataclass(frozen=True)
class Use:
    """What a file is read for.

    Attributes:
        masks: '' to leave masks alone, 'given' to check those that there are, 'all' if every object
            needs one.
        polygons_only: Run-length masks of objects cannot be used.
        evaluated: By pycocotools, or the validation; else for training.
    """

    masks: str = ''
    polygons_only: bool = False
    evaluated: bool = False


@dataclass
class Findings:
    """What :func:`check_coco` found in a file.

    Attributes:
        images: Number of images that are listed.
        annotations: Number of annotations.
        broken: Problem of an image with invalid annotations, with the name of the image, by id.
        left_out: Ids of the annotations without effect, by reason.
        objects: Number of objects that can be trained, by the name of their category.
    """

    images: int = 0
    annotations: int = 0
    broken: dict[Id, str] = field(default_factory=dict)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    objects: Counter = field(default_factory=Counter)

    def __str__(self) -> str:
        parts = [f'{self.images} images']
        if self.broken:
            parts.append(f'{len(self.broken)} of them with broken annotations')
        parts.append(f'{self.annotations} annotations')
        parts += [f'{len(ids)} of them {reason}' for reason, ids in self.left_out.items()]
        counts = [f'{count} {name}' for name, count in self.objects.most_common() if count]
        return f'{", ".join(parts)}; objects: {shorten(counts) or "none"}'


@functools.cache
def _warn_once(message: str) -> None:
    """Warn; a file that data set and metric both read is reported once."""
    warn(message)


def load_coco(api: type, path: str, use: Use) -> tuple[Any, Findings]:
    """Read an annotation file with a class of pycocotools or MMDetection, and check it.

    Args:
        api: The class; it parses the file, then calls its ``createIndex``.
        path: The file.
        use: What it is read for.

    Returns:
        The object of the class, without images whose annotations are broken, and the findings.

    Raises:
        UserError: See :func:`check_coco`; the file cannot be read.
    """
    found = Findings()

    class Checked(api):  # type: ignore[misc, valid-type]
        def createIndex(self) -> None:
            nonlocal found
            found = check_coco(self.dataset, path, use)
            super().createIndex()

    with _reading(path):
        coco = Checked(path)
    coco.__class__ = api  # as if it had read the file itself; for pickling, too
    return coco, found


def read_coco_file(path: str, use: Use) -> tuple[dict, Findings]:
    """Read and check an annotation file without pycocotools; see :func:`load_coco`."""
    with _reading(path), open(path, encoding='utf-8') as file:
        content = json.load(file)
    return content, check_coco(content, path, use)


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise UserError(
            f'annotation file {path} is not in the format of COCO '
            f'({type(error).__name__}: {str(error) or "no message"})'
        ) from error
    except OSError as error:
        raise UserError(f'annotation file {path} cannot be read ({error})') from error


def check_coco(content: Any, path: str, use: Use) -> Findings:
    """Check the content of an annotation file, and convert it in place.

    Ids of images and categories are brought into one notation (all numbers, or all text), numbers
    and flags that are written as text are read, missing ``iscrowd``, ``area`` and ids of
    annotations are filled in. Of categories with one name, those without objects are taken out.
    Broken images, their annotations, and annotations of images that are not listed are taken out.

    Objects that MMDetection leaves out of training (boxes without area, smaller than a pixel, or
    outside of the image) or ignores (masks of fewer than three points) are not errors: they are
    counted in one warning per reason.

    Panoptic annotations (``segments_info``) are checked against their pictures when these are
    loaded, not here.

    Args:
        content: The parsed file.
        path: The file, for messages.
        use: What it is read for.

    Raises:
        UserError: A list is missing or no list; an image or category is not usable; two entries
            share an id; an annotation names no image; all annotations are of images that are not
            listed.
    """
    return _Check(content, path, use).run()


class _Check:
    """State of one pass over a file."""

    def __init__(self, content: Any, path: str, use: Use):
        self.content, self.path, self.use = content, path, use
        self.found = Findings()
        self.converted: dict[str, list[str]] = {}  # names of the entries by what was converted
        self.texts: list[tuple[dict, dict, str]] = []  # annotations with compressed masks
        self.beyond = 0  # boxes that reach out of their image

    def run(self) -> Findings:
        content, found = self.content, self.found
        if not isinstance(content, dict):
            raise UserError(
                f'annotation file {self.path} is not in the format of COCO: it is a '
                f'{type(content).__name__}, expected an object with the lists {", ".join(_LISTS)}'
            )
        if self.use.evaluated and 'annotations' not in content:
            content['annotations'] = []  # the images of a test set whose annotations are secret
        for name in _LISTS:
            self._check_list(name)
        self.images = self._by_id('images')
        for image in self.images.values():
            self._check_image(image)
        self._check_annotations()
        for reason, ids in self.converted.items():
            _warn_once(f'{self.path}: {len(ids)} {reason} (first: {ids[0]})')
        for reason, ids in found.left_out.items():
            effect = 'take no part in training'
            if self.use.evaluated:
                effect = 'count as missed' if 'box' in reason else 'take no part in the evaluation'
            _warn_once(
                f'{self.path}: {len(ids)} annotations {reason} {effect} (ids {shorten(ids)})'
            )
        if self.beyond > max(8, found.annotations // 4):
            _warn_once(
                f'{self.path}: {self.beyond} of {found.annotations} boxes reach out of their '
                'image; COCO files have [x, y, width, height], not two corners'
            )
        return found

    # ---- lists and ids

    def _check_list(self, name: str) -> None:
        if name not in self.content:
            raise UserError(
                f'annotation file {self.path} has no list {name!r}; expected a COCO file'
            )
        entries = self.content[name]
        if not isinstance(entries, list):
            raise UserError(
                f'{self.path}: {name} is a {type(entries).__name__}; expected a list as in COCO'
            )
        for i, entry in enumerate(entries):
            if type(entry) is not dict:
                raise UserError(
                    f'{self.path}: {name}[{i}] is {shown(entry)}; expected an object with the key '
                    "'id' and others"
                )

    def _note(self, kind: str, entry: str) -> None:
        self.converted.setdefault(kind, []).append(entry)

    def _by_id(self, name: str) -> dict[Id, dict]:
        """Entries by their ids, which are brought into one notation: all numbers, or all text."""
        entries = self.content[name]
        ids = [entry.get('id') for entry in entries]
        if not all(type(number) is int and abs(number) < 2**63 for number in ids):
            for i, number in enumerate(ids):
                if not _is_id(number):
                    raise UserError(
                        f'{self.path}: {name}[{i}] has the id {shown(number)}; expected a number '
                        'or text'
                    )
            numbers: list[Any] = [_whole(number) for number in ids]
            given = {i if isinstance(i, str) else n for i, n in zip(ids, numbers, strict=True)}
            if None in numbers or len(set(numbers)) < len(given):  # words, or '07' beside '7'
                numbers = [
                    i if isinstance(i, str) else str(n) for i, n in zip(ids, numbers, strict=True)
                ]
            kind = 'text' if isinstance(numbers[0], str) else 'whole numbers'
            for entry, number in zip(entries, numbers, strict=True):
                if type(entry['id']) is not type(number):
                    self._note(f'{name} with another kind of id; read as {kind}', str(entry['id']))
                entry['id'] = number
        found = {entry['id']: entry for entry in entries}
        if len(found) < len(entries):
            self._refuse_ids(name)
        return found

    def _refuse_ids(self, name: str) -> None:
        counts = Counter(entry['id'] for entry in self.content[name])
        twice = [str(number) for number, count in counts.items() if count > 1]
        raise UserError(
            f'{self.path}: ids of {name} must be unique; used more than once: {shorten(twice)}'
        )

    # ---- images and categories

    def _check_image(self, image: dict) -> None:
        for key in ('file_name', 'height', 'width'):
            if image.get(key) is None:
                raise UserError(f'{self.path}: image {image["id"]} has no {key!r}')
        name = image['file_name']
        if not isinstance(name, str) or not _is_name(name):
            raise UserError(
                f'{self.path}: image {image["id"]} has the file_name {shown(name)}; expected the '
                'name of a file as text'
            )
        for key in ('height', 'width'):
            value = image[key]
            if type(value) is not int:
                number = _whole(value)
                if number is None:
                    self._refuse_size(image, key)
                if isinstance(value, str):
                    self._note('images with a size as text; read as numbers', str(image['id']))
                image[key] = number
            if image[key] < 1:
                self._refuse_size(image, key)
        if image['height'] * image['width'] > _MOST_PIXELS:
            self._refuse_size(image, 'height' if image['height'] > image['width'] else 'width')

    def _refuse_size(self, image: dict, key: str) -> None:
        raise UserError(
            f'{self.path}: image {image["id"]} ({image["file_name"]}) has the {key} '
            f'{shown(image[key])}; expected a number of pixels'
        )

    def _categories(self) -> dict[Id, str]:
        """Names of the categories by id; of several with one name, the one with objects."""
        categories = self._by_id('categories')
        by_name: dict[str, list[Id]] = {}
        for number, category in categories.items():
            name = category.get('name')
            if isinstance(name, int | float) and as_number(name) is not None:
                self._note('categories with a number as name; read as text', str(name))
                name = category['name'] = str(name)
            if not isinstance(name, str) or not name:
                raise UserError(
                    f'{self.path}: category {number} has the name {shown(name)}; expected text'
                )
            by_name.setdefault(name, []).append(number)
        if len(by_name) == len(categories):
            return {number: category['name'] for number, category in categories.items()}
        used = {_find(a.get('category_id'), categories) for a in self.content['annotations']}
        for name, numbers in by_name.items():
            filled = [number for number in numbers if number in used]
            if len(filled) > 1:
                raise UserError(
                    f'{self.path}: the categories {shorten([str(n) for n in filled])} are all '
                    f'named {name!r}, and have objects; give them different names, or one id'
                )
            for number in numbers:
                if number != (filled or numbers)[0]:
                    self._note(
                        'categories without objects, with the name of another; left out',
                        f'{number} ({name})',
                    )
                    del categories[number]
        self.content['categories'] = list(categories.values())
        return {number: category['name'] for number, category in categories.items()}

    # ---- annotations

    def _check_annotations(self) -> None:
        content, found, images = self.content, self.found, self.images
        entries = content['annotations']
        found.images, found.annotations = len(images), len(entries)
        if any('segments_info' in entry for entry in entries):
            self._by_id('categories')
            return
        self.categories = categories = self._categories()
        self._number_annotations()
        objects = dict.fromkeys(categories, 0)
        unlisted = []
        for entry in entries:
            image = images.get(self._image_of(entry))
            if image is None:
                unlisted.append(entry)
            elif self._check_annotation(entry, image):
                objects[entry['category_id']] += 1
        self._check_texts()
        for number, count in objects.items():
            found.objects[categories[number]] += count
        if unlisted:
            ids = [str(entry['id']) for entry in unlisted]
            if images and len(unlisted) == len(entries):
                raise UserError(
                    f'{self.path}: all {len(entries)} annotations are of images that are not '
                    f'listed; their image_id is {shown(unlisted[0]["image_id"])}, ..., the ids of '
                    f'the {len(images)} images are {shorten([repr(i) for i in images], 3)}'
                )
            found.left_out['of images that are not listed'] = ids
        if unlisted or found.broken:
            for number in found.broken:
                del images[number]
            content['images'] = list(images.values())
            content['annotations'] = [entry for entry in entries if entry['image_id'] in images]

    def _number_annotations(self) -> None:
        """Give numbers to annotations whose id is missing or none; nothing refers to them."""
        entries = self.content['annotations']
        new = []
        for entry in entries:
            number = entry.get('id')
            if type(number) is not int or not -(2**63) < number < 2**63:
                number = _whole(number)
                if number is None or not -(2**63) < number < 2**63:
                    self._note(
                        'annotations whose id is no number; numbered', shown(entry.get('id'))
                    )
                    new.append(entry)
                    continue
                if isinstance(entry['id'], str):
                    self._note('annotations with text as id; read as numbers', str(number))
                entry['id'] = number
            if number == 0 and self.use.evaluated:
                self._note(
                    'annotations with the id 0, by which pycocotools marks what is missed; given '
                    'another one',
                    '0',
                )
                new.append(entry)
        if new:
            chosen = {id(entry) for entry in new}
            last = max((e['id'] for e in entries if id(e) not in chosen), default=0)
            for i, entry in enumerate(new):
                entry['id'] = max(last, 0) + 1 + i
        if len({entry['id'] for entry in entries}) < len(entries):
            self._refuse_ids('annotations')

    def _image_of(self, entry: dict) -> Id:
        """Id of the image of an annotation, in the notation of the images."""
        number = entry.get('image_id')
        if type(number) is int and number in self.images:
            return number
        if not _is_id(number):
            raise UserError(
                f'{self.path}: annotation {entry["id"]} has the image_id {shown(number)}; expected '
                'the id of an image'
            )
        found = _find(number, self.images)
        if found is not None:
            if type(found) is not type(number):
                self._note(
                    'annotations whose image_id is of another kind than the id of the image; '
                    'converted',
                    str(entry['id']),
                )
            entry['image_id'] = found
        return entry['image_id']

    def _check_annotation(self, entry: dict, image: dict) -> bool:
        """Check one annotation; return whether it is an object that is trained."""
        box, area, crowd = entry.get('bbox'), entry.get('area'), entry.get('iscrowd')
        category = entry.get('category_id')
        plain_flags = type(crowd) is int and 0 <= crowd <= 1 and 'ignore' not in entry
        if not plain_flags and not self._read_flags(entry):
            return False
        known = type(category) is int and category in self.categories
        if not known and not self._read_category(entry):
            return False
        if not _is_box(box):
            box = self._read_box(entry)
            if box is None:
                return False
        x, y, w, h = box
        height, width = image['height'], image['width']
        right, bottom = x + w, y + h
        # as MMDetection does it; see CocoDataset.parse_data_info
        inside = x < width and y < height and right > 0 and bottom > 0 and w >= 1 and h >= 1
        if not inside:
            reason = 'with a box of no area inside its image'
            self.found.left_out.setdefault(reason, []).append(str(entry['id']))
            if not _is_area(area):
                entry['area'] = max(0, w * h)
        else:
            self.beyond += right > width + 1 or bottom > height + 1
            if not _is_area(area):
                self._read_area(entry, image)
        if self.use.masks and (inside or self.use.evaluated):
            inside = self._check_mask(entry, image) and inside
        return inside and not entry['iscrowd'] and not entry.get('ignore')

    def _break(self, entry: dict, problem: str) -> bool:
        name = self.images[entry['image_id']]['file_name']
        self.found.broken.setdefault(
            entry['image_id'], f'{name}: annotation {entry["id"]} {problem}'
        )
        return False

    def _read_flags(self, entry: dict) -> bool:
        name = str(entry['id'])
        for key in ('iscrowd', 'ignore'):
            value = entry.get(key)
            if value is None:
                if key == 'iscrowd':
                    self._note('annotations without iscrowd; taken as 0', name)
                flag = 0
            elif isinstance(value, bool | int | float) and value in (0, 1):
                flag = int(value)
            elif isinstance(value, str) and value.strip().lower() in _FLAGS:
                flag = _FLAGS[value.strip().lower()]
                self._note(f'annotations with {key} as text; read as numbers', name)
            else:
                return self._break(entry, f'has {key} {shown(value)}; expected 0 or 1')
            if key == 'iscrowd' or key in entry:
                entry[key] = flag
        return True

    def _read_category(self, entry: dict) -> bool:
        value = entry.get('category_id')
        found = _find(value, self.categories)
        if found is None:
            known = [str(number) for number in self.categories]
            return self._break(
                entry, f'has the category {shown(value)}; the file has {shorten(known)}'
            )
        if type(found) is not type(value):
            self._note(
                'annotations whose category_id is of another kind than the id of the category; '
                'converted',
                str(entry['id']),
            )
        entry['category_id'] = found
        return True

    def _read_box(self, entry: dict) -> list | None:
        box = _parsed(entry.get('bbox'))
        numbers = [as_number(value) for value in box] if isinstance(box, list) else []
        if len(numbers) != 4 or not _is_box(numbers):
            self._break(
                entry,
                f'has the box {shown(entry.get("bbox"))}; expected four finite numbers x, y, '
                'width, height',
            )
            return None
        self._note('annotations with a box as text; read as numbers', str(entry['id']))
        entry['bbox'] = numbers
        return numbers

    def _read_area(self, entry: dict, image: dict) -> None:
        area = as_number(entry.get('area'))
        if area is not None and _is_area(area):
            kind = 'annotations with an area as text; read as a number'
        else:
            kind = 'annotations without a positive area; computed from their mask or box'
            w, h = entry['bbox'][2:]
            mask = _parsed(entry.get('segmentation'))
            area = area_of(mask, image['height'], image['width']) or w * h
        self._note(kind, str(entry['id']))
        entry['area'] = area

    # ---- masks

    def _check_mask(self, entry: dict, image: dict) -> bool:
        """Check a mask; return whether it is one that is trained."""
        mask = entry.get('segmentation')
        height, width = image['height'], image['width']
        limit = reach(height, width)
        if type(mask) is list and are_plain(mask, limit):
            return True
        mask = _parsed(mask)
        if isinstance(mask, list) and len(mask) == 1 and isinstance(mask[0], dict):
            mask = mask[0]
        if not mask:
            if self.use.masks == 'given':
                return True
            needed = 'masks are evaluated' if self.use.evaluated else 'the pipeline loads masks'
            return self._break(entry, f'has no segmentation, and {needed}')
        try:
            if isinstance(mask, list):
                mask, notes = plain_polygons(mask, limit)
            elif isinstance(mask, dict):
                mask, notes = plain_run_lengths(mask, height, width)
            else:
                raise MaskError(f'the segmentation {shown(mask)}; expected polygons or run lengths')
        except FewPointsError as error:
            if self.use.evaluated:
                return self._break(entry, f'has {error}; masks cannot be compared with it')
            reason = 'whose mask has fewer than three points'
            self.found.left_out.setdefault(reason, []).append(str(entry['id']))
            # MMDetection ignores the object, and looks at the lengths of the polygons
            entry['segmentation'] = mask if isinstance(mask[0], list) else [mask]
            return False
        except MaskError as error:
            return self._break(entry, f'has {error}')
        for note in notes:
            self._note(f'annotations {note}', str(entry['id']))
        entry['segmentation'] = mask
        if isinstance(mask, dict):
            if self.use.polygons_only and not entry['iscrowd']:
                return self._break(
                    entry,
                    'has a run-length mask, which MMDetection ignores with poly2mask=False; '
                    'set poly2mask=True of LoadAnnotations',
                )
            if isinstance(mask['counts'], list):
                return True
            self.texts.append((entry, image, mask['counts']))
            if len(self.texts) * 256 > _TEXT_AT_ONCE:
                self._check_texts()
        return True

    def _check_texts(self) -> None:
        """Check the compressed masks that were collected, all at once."""
        sums, _ = totals([text for _, _, text in self.texts])
        for (entry, image, _), total in zip(self.texts, sums.tolist(), strict=True):
            try:
                check_filled(total, image['height'], image['width'])
            except MaskError as error:
                self._break(entry, f'has {error}')
        self.texts.clear()


def _is_name(name: str) -> bool:
    """Whether an operating system can have a file of that name."""
    if not name.strip() or '\0' in name:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:  # half of a character
        return False
    return True


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return _whole(value) is not None and abs(value) < 2**63


def _whole(value: Any) -> int | None:
    """Whole number of a JSON value; see :func:`as_number`."""
    if type(value) is int:
        return value
    number = as_number(value)
    return int(number) if number is not None and number % 1 == 0 else None


def _find(value: Any, table: dict[Id, Any]) -> Id | None:
    """The key that a value stands for, if need be in another notation."""
    if not _is_id(value):
        return None
    whole = _whole(value)
    for key in (value, whole, str(whole)):
        if key is not None and key in table:
            return int(key) if isinstance(key, float) else key
    return None


def _is_box(box: Any) -> bool:
    if type(box) is not list or len(box) != 4:
        return False
    for value in box:
        # a loop: all() is twice as slow, and there may be a million boxes
        if (type(value) is not float and type(value) is not int) or not -1e9 < value < 1e9:
            return False
    return True


def _is_area(area: Any) -> bool:
    return type(area) in (int, float) and 0 < area < math.inf


def _parsed(value: Any) -> Any:
    """A list or object that was written as text."""
    if isinstance(value, str) and value[:1] in ('[', '{'):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    return value


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
                    except (ValueError, RecursionError):
                        continue
                    if all(isinstance(item, dict) and 'name' in item for item in found):
                        return [str(item['name']) for item in found]
    return None
