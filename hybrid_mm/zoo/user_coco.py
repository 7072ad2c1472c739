"""Data sets of users in COCO's format: an annotation file per split, and folders of images."""

import json
import os
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hybrid_mm.data.class_order import spelling
from hybrid_mm.data.coco_check import coco_categories
from hybrid_mm.errors import UserError, shorten
from hybrid_mm.zoo.splits import (
    SPLITS,
    Split,
    UserData,
    check_splits,
    held_out,
    median_size,
    split_of,
)


def coco_files(root: Path) -> dict[str | None, list[Path]]:
    """COCO files by split; where names start with 'instances', only those."""
    found: dict[str | None, list[Path]] = {}
    for pattern in ('*.json', '*/*.json', '*/*/*.json'):
        for path in sorted(root.glob(pattern)):
            if _is_coco(path):
                found.setdefault(split_of(path), []).append(path)
    for split, paths in found.items():
        instances = [path for path in paths if path.stem.startswith('instances')]
        found[split] = instances or paths
    return found


def _is_coco(path: Path) -> bool:
    """Whether a file looks like annotations of objects, without parsing all of it."""
    try:
        return coco_categories(str(path)) is not None
    except (UserError, OSError):
        return False


def _load(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read as JSON ({error})') from error
    for key in ('images', 'annotations', 'categories'):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f'{path} has no list {key!r}; expected a COCO file')
        if not content[key]:
            raise UserError(f'{path}: the list {key!r} is empty')
    return content


def _image_folder(root: Path, file: Path, content: dict) -> str:
    """Folder in which the images of a COCO file lie."""
    split, parent = split_of(file), file.parent
    names = [
        re.sub(r'^(instances|annotations?)_', '', file.stem),
        *(SPLITS[split] if split else ()),
    ]
    tried = [parent]
    for base in (root, root / 'images', parent, parent.parent):
        tried += [base / name for name in names] + [base / name / 'images' for name in names]
    tried += [root / 'images', root / 'JPEGImages', parent / 'images', root]
    files = [image.get('file_name', '') for image in content['images']]
    looked = [files[0], *random.Random(0).sample(files, min(20, len(files)))]
    folders = list(dict.fromkeys(path for path in tried if path.is_dir()))
    for folder in folders:
        if all((folder / name).is_file() for name in looked):
            return os.path.relpath(folder, root)
    option = '--val' if split == 'val' else '--train'
    seen = shorten([os.path.relpath(path, root) for path in folders], 12)
    raise UserError(
        f'the images of {file} are not found (e.g. {files[0]!r}); looked in {seen} of {root}; name '
        f'their folder with {option} {os.path.relpath(file, root)} FOLDER'
    )


def read_coco(
    folder: Path,
    given: dict[str, Sequence[str]],
    holdout: float | None,
    names: Sequence[str] | None,
    empty_classes: str | None,
) -> UserData:
    """Read a data set in COCO's format.

    Args:
        folder: Folder of the data set.
        given: (annotations, images), relative to it, of the splits that the user named.
        holdout: See :func:`~hybrid_mm.zoo.user_data.read_data`.
        names: Names of the classes to train, or None for all.
        empty_classes: See :func:`~hybrid_mm.zoo.user_data.read_data`.

    Raises:
        UserError: A split is missing or ambiguous, or its annotations are not valid.
    """
    contents, splits = {}, {}
    found = coco_files(folder) if len(given) < 2 else {}
    if 'train' not in given and 'train' not in found and set(found) == {None}:
        found['train'] = found[None]  # one file, whose name has no split
    for split in ('train', 'val'):
        if split in given:
            file, images = folder / given[split][0], given[split][1]
        else:
            files = found.get(split, [])
            if len(files) > 1:
                listed = shorten([os.path.relpath(path, folder) for path in files])
                raise UserError(
                    f'{folder} has several annotation files of the split {split}: {listed}; name '
                    f'one with --{split} FILE IMAGES'
                )
            if not files:
                continue
            file, images = files[0], None
        contents[split] = content = _load(file)
        if images is None:
            images = _image_folder(folder, file, content)
        splits[split] = Split(images, os.path.relpath(file, folder), len(content['images']))
    share = check_splits(folder, splits, holdout)
    if share:
        contents['train'], contents['val'] = _divide(contents['train'], share)
        whole = splits['train']
        for split, content in contents.items():
            count = len(content['images'])
            splits[split] = Split(whole.images, whole.labels, count, content=content)
    train = contents['train']
    classes, boxes = _classes(folder / splits['train'].labels, train, names, empty_classes)
    there = {category['name'] for category in contents['val']['categories']}
    absent = [name for name in classes if name not in there]
    if absent:
        raise UserError(
            f'{folder / splits["val"].labels} has no categories {shorten(absent)}, which the '
            f'training annotations have{spelling(absent[0], there)}; both files must have the same '
            'categories'
        )
    sizes = [(i['width'], i['height']) for i in train['images'] if i.get('width')]
    if len(sizes) < len(train['images']):
        raise UserError(
            f'{folder / splits["train"].labels}: an image has no width and height; COCO files need '
            'them'
        )
    objects = [a for a in train['annotations'] if not a.get('iscrowd')]
    polygons = sum(bool(a.get('segmentation')) for a in objects) / max(1, len(objects))
    return UserData(folder.resolve(), 'coco', classes, splits, median_size(sizes), boxes, polygons)


def _classes(file: Path, content: dict, names, empty_classes) -> tuple[list[str], Counter]:
    categories = {category['id']: category['name'] for category in content['categories']}
    twice = [name for name, n in Counter(categories.values()).items() if n > 1]
    if twice or len(categories) < len(content['categories']):
        raise UserError(f'{file}: categories are listed twice: {shorten(twice) or "same ids"}')
    boxes = Counter(categories.get(a['category_id']) for a in content['annotations'])
    if boxes.pop(None, 0):
        unknown = {a['category_id'] for a in content['annotations']} - set(categories)
        raise UserError(f'{file}: annotations of category {min(unknown)}, which is not listed')
    if names:
        absent = [name for name in names if name not in categories.values()]
        if absent:
            hint = spelling(absent[0], categories.values())
            raise UserError(f'--classes: {file} has no category {absent[0]!r}{hint}')
        twice = [name for name, n in Counter(names).items() if n > 1]
        if twice:
            raise UserError(f'--classes: listed twice: {shorten(twice)}')
        return list(names), boxes
    empty = [name for name in categories.values() if not boxes[name]]
    if empty and empty_classes is None:
        raise UserError(
            f'{file}: {len(empty)} of {len(categories)} categories have no boxes: '
            f'{shorten(empty)}; leave them out with --empty-classes drop, or keep their outputs, '
            'which nothing trains, with --empty-classes keep'
        )
    dropped = empty if empty_classes == 'drop' else ()
    return [name for name in categories.values() if name not in dropped], boxes


def _divide(content: dict, holdout: float) -> tuple[dict, dict]:
    """Divide a COCO file at random into training and validation, with a fixed seed."""
    ids = sorted(image['id'] for image in content['images'])
    random.Random(0).shuffle(ids)
    chosen = set(ids[: held_out(len(ids), holdout)])
    parts = []
    for inside in (False, True):
        part = {
            key: value for key, value in content.items() if key not in ('images', 'annotations')
        }
        part['images'] = [i for i in content['images'] if (i['id'] in chosen) == inside]
        part['annotations'] = [
            a for a in content['annotations'] if (a['image_id'] in chosen) == inside
        ]
        parts.append(part)
    return parts[0], parts[1]
