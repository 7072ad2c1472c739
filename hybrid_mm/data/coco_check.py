"""The reader of annotation files in COCO's format: checks and conversions in one pass.

What is written in another way than COCO's, but can mean one thing only, is converted, and reported
in one warning per kind. Everything else that MMDetection or pycocotools would misread, ignore, or
end a run for, is an error that names the entry.
"""

import functools
import json
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hybrid_mm.data.coco_annotations import AnnotationCheck
from hybrid_mm.data.coco_lists import CocoFile, Findings, Use
from hybrid_mm.errors import UserError, shorten, warn

_NO_JSON = {
    b'\xef\xbb\xbf': 'it begins with a byte order mark; save it as UTF-8 without one',
    b'\xff\xfe': 'it is UTF-16; save it as UTF-8',
    b'\xfe\xff': 'it is UTF-16; save it as UTF-8',
    b'\x1f\x8b': 'it is compressed; unpack it with gunzip',
    b'PK\x03\x04': 'it is a ZIP archive; unpack it',
    b'<': 'it is XML or HTML',
}


@functools.cache
def _warn_once(message: str) -> None:
    """Warn; a file that data set and metric both read is reported once."""
    warn(message)


def load_coco(api: type, path: str, use: Use, name: str | None = None) -> tuple[Any, Findings]:
    """Read an annotation file with a class of pycocotools or MMDetection, and check it.

    Args:
        api: The class; it parses the file, then calls its ``createIndex``.
        path: The file.
        use: What it is read for.
        name: The file in messages, if ``path`` is a copy of it.

    Returns:
        The object of the class, without images whose annotations are broken, and the findings.

    Raises:
        UserError: See :func:`check_coco`; the file cannot be read.
    """
    found = Findings()

    class Checked(api):  # type: ignore[misc, valid-type]
        def createIndex(self) -> None:
            nonlocal found
            found = check_coco(self.dataset, name or path, use)
            super().createIndex()

    with _reading(name or path):
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
        reason = _encoding(path) or f'{type(error).__name__}: {str(error) or "no message"}'
        raise UserError(
            f'annotation file {path} is not in the format of COCO ({reason})'
        ) from error
    except OSError as error:
        raise UserError(f'annotation file {path} cannot be read ({error})') from error


def _encoding(path: str) -> str | None:
    """What a file is that is no JSON in UTF-8, by its first bytes."""
    try:
        with open(path, 'rb') as file:
            first = file.read(8)
    except OSError:
        return None
    for start, text in _NO_JSON.items():
        if first.startswith(start):
            return text
    return None


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
    file = CocoFile(content, path, use)
    file.read_images()
    if any('segments_info' in entry for entry in content['annotations']):
        file.by_id('categories')
        beyond = 0
    else:
        file.read_categories()
        annotations = AnnotationCheck(file)
        annotations.run()
        beyond = annotations.beyond
    _report(file, beyond)
    return file.found


def _report(file: CocoFile, beyond: int) -> None:
    """Print a warning for every kind of conversion and for every reason to leave objects out."""
    path, found = file.path, file.found
    for what, (count, first) in file.converted.items():
        _warn_once(f'{path}: {count} {what} (first: {first})')
    for reason, ids in found.left_out.items():
        effect = 'take no part in training'
        if file.use.evaluated:
            effect = 'take no part in the evaluation'
            if 'box' in reason:  # pycocotools looks for them
                effect = 'are evaluated, though hardly a detection finds them'
        _warn_once(f'{path}: {len(ids)} annotations {reason} {effect} (ids {shorten(ids)})')
    if beyond > max(8, found.annotations // 4):
        _warn_once(
            f'{path}: {beyond} of {found.annotations} boxes reach out of their image; COCO files '
            'have [x, y, width, height], not two corners'
        )


def coco_categories(path: str) -> list[str]:
    """Names of the categories of a COCO file; see :func:`coco_category_entries`."""
    return [str(entry['name']) for entry in coco_category_entries(path)]


def coco_category_entries(path: str) -> list[dict[str, Any]]:
    """The categories of a COCO file without parsing its (large) other parts.

    Raises:
        UserError: There are none.
    """
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
                        return found
    read_coco_file(path, Use())  # which says what is wrong
    raise UserError(f'annotation file {path} has no list "categories"; expected a COCO file')
