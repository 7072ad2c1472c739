"""Lists of an annotation file in COCO's format: their ids, images and categories."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, NoReturn

from hybrid_mm.data.coco_values import (
    Id,
    as_number,
    as_whole,
    find,
    is_id,
    is_name,
    kind,
    shown,
)
from hybrid_mm.errors import UserError, shorten

LISTS = ('images', 'annotations', 'categories')
_MOST_PIXELS = 2**32 - 1  # of a mask in pycocotools
_LARGEST = 2**63  # of an id in numpy


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


class CocoFile:
    """The content of a file, what was found and what was converted in it.

    Args:
        content: The parsed file; changed in place.
        path: The file, for messages.
        use: What it is read for.

    Attributes:
        images: Images by id, after :meth:`read_images`.
        categories: Names of the categories by id, after :meth:`read_categories`.
        found: What is reported.
        converted: Number of the entries, and the first one, by what was converted in them.

    Raises:
        UserError: The content has not the three lists of objects.
    """

    def __init__(self, content: Any, path: str, use: Use):
        self.content, self.path, self.use = content, path, use
        self.found = Findings()
        self.converted: dict[str, tuple[int, str]] = {}
        self.images: dict[Id, dict] = {}
        self.categories: dict[Id, str] = {}
        if not isinstance(content, dict):
            raise UserError(
                f'annotation file {path} is not in the format of COCO: it is {kind(content)}, '
                f'expected an object with the lists {", ".join(LISTS)}'
            )
        if use.evaluated and 'annotations' not in content:
            content['annotations'] = []  # the images of a test set whose annotations are secret
        for name in LISTS:
            self._check_list(name)
        self.found.annotations = len(content['annotations'])

    def refuse(self, text: str) -> NoReturn:
        """Raise an error that begins with the file."""
        raise UserError(f'{self.path}: {text}')

    def note(self, what: str, entry: str) -> None:
        """Note that something was converted."""
        count, first = self.converted.get(what, (0, entry))
        self.converted[what] = (count + 1, first)

    def _check_list(self, name: str) -> None:
        if name not in self.content:
            raise UserError(
                f'annotation file {self.path} has no list {name!r}; expected a COCO file'
            )
        entries = self.content[name]
        if not isinstance(entries, list):
            self.refuse(f'{name} is {kind(entries)}; expected a list as in COCO')
        for i, entry in enumerate(entries):
            if type(entry) is not dict:
                self.refuse(
                    f'{name}[{i}] is {shown(entry)}; expected an object with the key '
                    "'id' and others"
                )

    def by_id(self, name: str) -> dict[Id, dict]:
        """Entries by their ids, which are brought into one notation: all numbers, or all text.

        Raises:
            UserError: An id is neither a number nor text, or not unique.
        """
        entries = self.content[name]
        ids = [entry.get('id') for entry in entries]
        if not all(type(number) is int and abs(number) < _LARGEST for number in ids):
            for i, number in enumerate(ids):
                if not is_id(number):
                    self.refuse(
                        f'{name}[{i}] has the id {shown(number)}; expected a whole number of at '
                        'most 63 bits, or text'
                    )
            numbers: list[Any] = [as_whole(number) for number in ids]
            given = {i if isinstance(i, str) else n for i, n in zip(ids, numbers, strict=True)}
            if None in numbers or len(set(numbers)) < len(given):  # words, or '07' beside '7'
                numbers = [
                    i if isinstance(i, str) else str(n) for i, n in zip(ids, numbers, strict=True)
                ]
            notation = 'text' if isinstance(numbers[0], str) else 'whole numbers'
            for entry, number in zip(entries, numbers, strict=True):
                if type(entry['id']) is not type(number):
                    self.note(
                        f'{name} with another kind of id; read as {notation}', str(entry['id'])
                    )
                entry['id'] = number
        found = {entry['id']: entry for entry in entries}
        if len(found) < len(entries):
            self._refuse_ids(name)
        return found

    def _refuse_ids(self, name: str) -> None:
        counts = Counter(entry['id'] for entry in self.content[name])
        twice = [str(number) for number, count in counts.items() if count > 1]
        self.refuse(f'ids of {name} must be unique; used more than once: {shorten(twice)}')

    def read_images(self) -> None:
        """Check the images.

        Raises:
            UserError: Two share an id; one has no id, file name or size.
        """
        self.images = self.by_id('images')
        self.found.images = len(self.images)
        names: dict[str, Id] = {}
        for number, image in self.images.items():
            self._check_image(image)
            first = names.setdefault(image['file_name'], number)
            if first != number:
                self.note(
                    'images that have the file of another one, so that each trains without the '
                    'objects of the other',
                    f'{number}, {image["file_name"]} of {first}',
                )

    def _check_image(self, image: dict) -> None:
        for key in ('file_name', 'height', 'width'):
            if image.get(key) is None:
                self.refuse(f'image {image["id"]} has no {key!r}')
        name = image['file_name']
        if not isinstance(name, str) or not is_name(name):
            self.refuse(
                f'image {image["id"]} has the file_name {shown(name)}; expected the '
                'name of a file as text'
            )
        for key in ('height', 'width'):
            value = image[key]
            if type(value) is not int:
                number = as_whole(value)
                if number is None:
                    self._refuse_size(image, key)
                if isinstance(value, str):
                    self.note('images with a size as text; read as numbers', str(image['id']))
                image[key] = number
            if image[key] < 1:
                self._refuse_size(image, key)
        if image['height'] * image['width'] > _MOST_PIXELS:
            self._refuse_size(image, 'height' if image['height'] > image['width'] else 'width')

    def _refuse_size(self, image: dict, key: str) -> None:
        self.refuse(
            f'image {image["id"]} ({image["file_name"]}) has the {key} '
            f'{shown(image[key])}; expected a number of pixels'
        )

    def read_categories(self) -> None:
        """Check the categories; of several with one name, the one with objects stays.

        Raises:
            UserError: Two share an id, or have objects and one name; one has no id or name.
        """
        categories = self.by_id('categories')
        by_name: dict[str, list[Id]] = {}
        for number, category in categories.items():
            name = category.get('name')
            if isinstance(name, int | float) and as_number(name) is not None:
                self.note('categories with a number as name; read as text', str(name))
                name = category['name'] = str(name)
            if not isinstance(name, str) or not name:
                self.refuse(f'category {number} has the name {shown(name)}; expected text')
            by_name.setdefault(name, []).append(number)
        if len(by_name) < len(categories):
            self._merge(categories, by_name)
            self.content['categories'] = list(categories.values())
        self.categories = {number: category['name'] for number, category in categories.items()}

    def _merge(self, categories: dict[Id, dict], by_name: dict[str, list[Id]]) -> None:
        """Take out the categories without objects that have the name of another."""
        used = {find(a.get('category_id'), categories) for a in self.content['annotations']}
        for name, numbers in by_name.items():
            filled = [number for number in numbers if number in used]
            if len(filled) > 1:
                self.refuse(
                    f'the categories {shorten([str(n) for n in filled])} are all '
                    f'named {name!r}, and have objects; give them different names, or one id'
                )
            for number in numbers:
                if number != (filled or numbers)[0]:
                    self.note(
                        'categories without objects, with the name of another; left out',
                        f'{number} ({name})',
                    )
                    del categories[number]

    def number_annotations(self) -> None:
        """Give numbers to annotations whose id is missing or none; nothing refers to them.

        Raises:
            UserError: An id is not unique.
        """
        entries = self.content['annotations']
        new = []
        for entry in entries:
            number = entry.get('id')
            if type(number) is not int or not -_LARGEST < number < _LARGEST:
                number = as_whole(number)
                if number is None or not -_LARGEST < number < _LARGEST:
                    self.note(
                        'annotations whose id is not a number; renumbered', shown(entry.get('id'))
                    )
                    new.append(entry)
                    continue
                if isinstance(entry['id'], str):
                    self.note('annotations with text as id; read as numbers', str(number))
                entry['id'] = number
            if number == 0 and self.use.evaluated:
                self.note(
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
