"""Data sets of users in COCO's format: an annotation file per split, and folders of images."""

import mmap
import os
import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from hybrid_mm.data.class_order import spelling
from hybrid_mm.data.coco_check import read_coco_file
from hybrid_mm.data.coco_lists import LISTS, Use
from hybrid_mm.data.sample_check import is_hidden
from hybrid_mm.errors import UserError, printable, shorten, warn
from hybrid_mm.zoo.splits import (
    SPLITS,
    Split,
    UserData,
    check_splits,
    held_out,
    median_size,
    sampled_depth,
    split_of,
)
from hybrid_mm.zoo.user_channels import find_channels


def coco_files(root: Path) -> dict[str | None, list[Path]]:
    """COCO files by split; where names start with 'instances', only those."""
    found: dict[str | None, list[Path]] = {}
    for pattern in ('*.json', '*/*.json', '*/*/*.json'):
        for path in sorted(root.glob(pattern)):
            if not is_hidden(str(path.relative_to(root))) and _is_coco(path):
                found.setdefault(split_of(path), []).append(path)
    for split, paths in found.items():
        instances = [path for path in paths if path.stem.startswith('instances')]
        found[split] = instances or paths
    return found


def _is_coco(path: Path) -> bool:
    """Whether a file looks like annotations of objects, be they valid or not."""
    try:
        with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return all(data.find(b'"%s"' % name.encode()) >= 0 for name in LISTS)
    except (ValueError, OSError):  # empty, or not readable
        return False


def _load(path: Path) -> dict:
    """Read a file as the data set of a training would."""
    content, found = read_coco_file(str(path), Use(masks='given'))
    for key in LISTS:
        if not content[key] and not found.broken:
            raise UserError(f'{path}: the list {key!r} is empty')
    if any('segments_info' in entry for entry in content['annotations']):
        raise UserError(f'{path} has panoptic annotations; expected those of objects')
    if found.broken:
        raise UserError(
            f'{path}: {len(found.broken)} images have annotations that cannot be used: '
            f'{shorten(list(found.broken.values()), 3)}'
        )
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
    files = [image['file_name'] for image in content['images']]
    looked = [files[0], *random.Random(0).sample(files, min(20, len(files)))]
    folders = list(dict.fromkeys(path for path in tried if path.is_dir()))
    counts = [sum(os.path.isfile(folder / name) for name in looked) for folder in folders]
    if any(counts):
        return os.path.relpath(folders[counts.index(max(counts))], root)
    option = '--val' if split == 'val' else '--train'
    seen = shorten([os.path.relpath(path, root) for path in folders], 12)
    raise UserError(
        f'the images of {file} are not found (e.g. {files[0]!r}); looked in {seen} of {root}; name '
        f'their folder with {option} {os.path.relpath(file, root)} FOLDER'
    )


def _check_images(folder: Path, file: Path, content: dict) -> None:
    names = [image['file_name'] for image in content['images']]
    missing = [name for name in names if not os.path.isfile(folder / name)]
    if missing:
        raise UserError(
            f'{len(missing)} of the {len(names)} images of {file} are not in {folder}: '
            f'{printable(shorten(missing, 3))}'
        )


def read_coco(
    folder: Path,
    given: dict[str, Sequence[str]],
    holdout: float | None,
    names: Sequence[str] | None,
    empty_classes: str | None,
    channels: int | Sequence[int] | None = None,
) -> UserData:
    """Read a data set in COCO's format.

    Args:
        folder: Folder of the data set.
        given: (annotations, images), relative to it, of the splits that the user named.
        holdout: See :func:`~hybrid_mm.zoo.user_data.read_data`.
        names: Names of the classes to train, or None for all.
        empty_classes: See :func:`~hybrid_mm.zoo.user_data.read_data`.
        channels: See :func:`~hybrid_mm.zoo.user_data.read_data`.

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
        _check_images(folder / images, file, content)
        splits[split] = Split(images, os.path.relpath(file, folder), len(content['images']))
    share = check_splits(folder, splits, holdout)
    if not share:
        _check_overlap(folder, splits, contents)
    if share:
        contents['train'], contents['val'] = _divide(contents['train'], share)
        whole = splits['train']
        for split, content in contents.items():
            count = len(content['images'])
            splits[split] = Split(whole.images, whole.labels, count, content=content)
    train = contents['train']
    objects = [a for a in train['annotations'] if not a['iscrowd']]
    of_id = {category['id']: category['name'] for category in train['categories']}
    boxes = Counter(of_id[a['category_id']] for a in objects)
    classes = _classes(folder / splits['train'].labels, train, boxes, names, empty_classes)
    there = {category['name'] for category in contents['val']['categories']}
    absent = [name for name in classes if name not in there]
    if absent:
        raise UserError(
            f'{folder / splits["val"].labels} has no categories {shorten(absent)}, which the '
            f'training annotations have{spelling(absent[0], there)}; both files must have the same '
            'categories'
        )
    sizes = [(image['width'], image['height']) for image in train['images']]
    polygons = sum(bool(a.get('segmentation')) for a in objects) / max(1, len(objects))
    images = [folder / splits['train'].images / image['file_name'] for image in train['images']]
    found_channels = find_channels(images, channels)
    return UserData(
        folder.resolve(),
        'coco',
        classes,
        splits,
        median_size(sizes),
        boxes,
        polygons,
        depth=sampled_depth([] if found_channels else images),
        channels=found_channels,
    )


def _check_overlap(folder: Path, splits: dict[str, Split], contents: dict[str, dict]) -> None:
    """Warn of images that are both trained and validated."""
    train, val = (
        {os.path.normpath(folder / splits[key].images / i['file_name']) for i in content['images']}
        for key, content in (('train', contents['train']), ('val', contents['val']))
    )
    both = sorted(train & val)
    if both:
        warn(
            f'{len(both)} of the {len(val)} images of validation are trained as well '
            f'({printable(shorten(both, 3))}); metrics will be too good'
        )


def _classes(file: Path, content: dict, boxes: Counter, names, empty_classes) -> list[str]:
    there = [category['name'] for category in content['categories']]
    if names:
        absent = [name for name in names if name not in there]
        if absent:
            hint = spelling(absent[0], there)
            raise UserError(f'--classes: {file} has no category {absent[0]!r}{hint}')
        twice = [name for name, n in Counter(names).items() if n > 1]
        if twice:
            raise UserError(f'--classes: listed twice: {shorten(twice)}')
        return list(names)
    empty = [name for name in there if not boxes[name]]
    if empty and empty_classes is None:
        raise UserError(
            f'{file}: {len(empty)} of {len(there)} categories have no boxes: '
            f'{shorten(empty)}; leave them out with --empty-classes drop, or keep their outputs, '
            'which nothing trains, with --empty-classes keep'
        )
    dropped = empty if empty_classes == 'drop' else ()
    return [name for name in there if name not in dropped]


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
