"""What a data set of one's own holds: a COCO file with images, or images and label maps."""

import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from hybrid_mm.data.coco_check import coco_categories
from hybrid_mm.data.images import IMAGE_SUFFIXES
from hybrid_mm.errors import UserError, nearest, shorten, warn
from hybrid_mm.run.console import track

SPLITS = {
    'train': ('train', 'training'),
    'val': ('val', 'valid', 'validation'),
    'test': ('test', 'testing'),
}
MASK_FOLDERS = ('annotations', 'masks', 'labels', 'segmentations', 'mask', 'label', 'annotation')
MASK_SUFFIXES = ('.png', '.bmp', '.tif', '.tiff')
SAMPLE = 1000
"""Label maps and images that are looked at, at most."""


@dataclass
class Split:
    """One split of a data set; paths are relative to its root.

    Attributes:
        images: Folder of the images.
        labels: COCO file, or folder of label maps.
        count: Number of images.
        names: Of a part of an unsplit folder of label maps: the stems of its images.
        content: Of a part of an unsplit COCO file: what to write.
    """

    images: str
    labels: str
    count: int
    names: list[str] | None = None
    content: dict | None = None


@dataclass
class UserData:
    """A data set.

    Attributes:
        root: Its folder, absolute.
        kind: 'coco' or 'masks'.
        classes: Their names, in the order of the labels.
        splits: 'train' and 'val'.
        size: (width, height), medians over the images.
        boxes: Objects per class in the training annotations (COCO).
        polygons: Share of the objects that have a mask (COCO).
        suffixes: Of images and label maps (masks).
        ignore: Label that is left out of training and evaluation (masks).
    """

    root: Path
    kind: str
    classes: list[str]
    splits: dict[str, Split]
    size: tuple[int, int]
    boxes: Counter = field(default_factory=Counter)
    polygons: float = 1.0
    suffixes: tuple[str, str] = ('', '')
    ignore: int = 255


def _split_of(path: Path) -> str | None:
    """Split that a path names, in its file name or else in the folder that it stands in."""
    for text in (path.stem, path.parent.name):
        words = set(re.split(r'[^a-z]+', text.lower()))
        for split, names in SPLITS.items():
            if words & set(names):
                return split
    return None


def read_data(
    root: str | Path,
    train: Sequence[str] | None = None,
    val: Sequence[str] | None = None,
    holdout: float | None = None,
    classes: Sequence[str] | None = None,
    ignore: int = 255,
    empty_classes: str | None = None,
) -> UserData:
    """Find out what a folder holds.

    Args:
        root: The folder.
        train: (annotations, images) of the training split, relative to it; found by itself if None.
        val: The same of the validation split.
        holdout: Share of the training images to validate on, if there is no validation split.
        classes: Names of the classes; read from the annotations or ``classes.txt`` if None.
        ignore: Label of pixels to leave out (label maps).
        empty_classes: 'drop' or 'keep' categories without a box in training; an error if None.

    Raises:
        UserError: No such folder, nothing in it that is known, no validation split, or annotations
            that cannot be meant so.
    """
    folder = Path(root)
    if not folder.is_dir():
        beside = folder.parent.iterdir() if folder.parent.is_dir() else ()
        names = [path.name for path in beside if path.is_dir()]
        raise UserError(f'--data {root} is no folder{nearest(folder.name, names)}')
    given = {key: value for key, value in (('train', train), ('val', val)) if value}
    for key, (labels, images) in given.items():
        for path in (labels, images):
            if not (folder / path).exists():
                raise UserError(f'--{key}: {folder / path} does not exist')
    files = [labels.endswith('.json') for labels, _ in given.values()]
    if any(files) and not all(files):
        raise UserError('--train and --val must both name COCO files, or both folders')
    coco = all(files) if files else bool(_coco_files(folder))
    if coco:
        return _read_coco(folder, given, holdout, classes, empty_classes)
    return _read_masks(folder, given, holdout, classes, ignore)


# ---- COCO


def _coco_files(root: Path) -> dict[str | None, list[Path]]:
    """COCO files by split: those that start with 'instances' where there are such."""
    found: dict[str | None, list[Path]] = {}
    for pattern in ('*.json', '*/*.json', '*/*/*.json'):
        for path in sorted(root.glob(pattern)):
            if _is_coco(path):
                found.setdefault(_split_of(path), []).append(path)
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
    split, parent = _split_of(file), file.parent
    names = [re.sub(r'^(instances|annotations?)_', '', file.stem), *SPLITS.get(split, ())]
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


def _read_coco(folder, given, holdout, names, empty_classes) -> UserData:
    contents, splits = {}, {}
    found = _coco_files(folder) if len(given) < 2 else {}
    if 'train' not in given and 'train' not in found and set(found) == {None}:
        found['train'] = found[None]  # one file, no word of a split
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
    _need(folder, splits, holdout)
    if 'val' not in splits:
        contents['train'], contents['val'] = _divide(contents['train'], holdout)
        file, images = splits['train'].labels, splits['train'].images
        for split, content in contents.items():
            count = len(content['images'])
            splits[split] = Split(images, file, count, content=content)
    train = contents['train']
    classes, boxes = _classes(folder / splits['train'].labels, train, names, empty_classes)
    there = {category['name'] for category in contents['val']['categories']}
    absent = [name for name in classes if name not in there]
    if absent:
        raise UserError(
            f'{folder / splits["val"].labels} has no categories {shorten(absent)}, which the '
            'training annotations have; both files must have the same categories'
        )
    sizes = [(i['width'], i['height']) for i in train['images'] if i.get('width')]
    if len(sizes) < len(train['images']):
        raise UserError(
            f'{folder / splits["train"].labels}: an image has no width and height; COCO files need '
            'them'
        )
    objects = [a for a in train['annotations'] if not a.get('iscrowd')]
    polygons = sum(bool(a.get('segmentation')) for a in objects) / max(1, len(objects))
    return UserData(folder.resolve(), 'coco', classes, splits, _median(sizes), boxes, polygons)


def _classes(file: Path, content: dict, names, empty_classes) -> tuple[list[str], Counter]:
    categories = {category['id']: category['name'] for category in content['categories']}
    twice = [name for name, n in Counter(categories.values()).items() if n > 1]
    if twice or len(categories) < len(content['categories']):
        raise UserError(f'{file}: categories stand there twice: {shorten(twice) or "same ids"}')
    boxes = Counter(categories.get(a['category_id']) for a in content['annotations'])
    if boxes.pop(None, 0):
        unknown = {a['category_id'] for a in content['annotations']} - set(categories)
        raise UserError(f'{file}: annotations of category {min(unknown)}, which is not listed')
    if names:
        absent = [name for name in names if name not in categories.values()]
        if absent:
            hint = nearest(absent[0], categories.values())
            raise UserError(f'--classes: {file} has no category {absent[0]!r}{hint}')
        return list(names), boxes
    empty = [name for name in categories.values() if not boxes[name]]
    if empty and empty_classes is None:
        raise UserError(
            f'{file}: {len(empty)} of {len(categories)} categories have no boxes: '
            f'{shorten(empty)}; '
            'leave them out with --empty-classes drop, or keep their outputs, which nothing '
            'trains, with --empty-classes keep'
        )
    dropped = empty if empty_classes == 'drop' else ()
    return [name for name in categories.values() if name not in dropped], boxes


def _divide(content: dict, holdout: float) -> tuple[dict, dict]:
    """Divide a COCO file at random, the same way each time."""
    ids = sorted(image['id'] for image in content['images'])
    random.Random(0).shuffle(ids)
    chosen = set(ids[: _held(len(ids), holdout)])
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


def _held(count: int, holdout: float) -> int:
    if count < 2:
        raise UserError('one image cannot be divided into training and validation')
    return min(count - 1, max(1, round(count * holdout)))


def _need(folder: Path, splits: dict, holdout: float | None) -> None:
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


def _median(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    widths, heights = zip(*sizes, strict=True)
    return int(median(widths)), int(median(heights))


# ---- label maps


def _mask_folders(root: Path) -> Iterator[tuple[str, Path, Path]]:
    """(split, images, label maps) of the known layouts; split is 'all' without one."""
    for split, names in SPLITS.items():
        for name in names:
            for masks in MASK_FOLDERS:
                yield split, root / 'images' / name, root / masks / name
                yield split, root / name / 'images', root / name / masks
    for masks in MASK_FOLDERS:
        yield 'all', root / 'images', root / masks


def _files(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes)


def _read_masks(folder, given, holdout, names, ignore) -> UserData:
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
        paths = [os.path.relpath(path, folder) for path in (images, masks)]
        splits[split] = Split(*paths, len(pairs[split]))
    _need(folder, splits, holdout)
    if len(suffixes) > 1:
        raise UserError(
            f'files of training and validation end differently: {sorted(suffixes)}; expected one '
            'ending of all images and one of all label maps'
        )
    suffix = suffixes.pop()
    if 'val' not in splits:
        stems = [image.name.removesuffix(suffix[0]) for image, _ in pairs['train']]
        random.Random(0).shuffle(stems)
        count, whole = _held(len(stems), holdout), splits['train']
        for split, part in (('val', stems[:count]), ('train', stems[count:])):
            splits[split] = Split(whole.images, whole.labels, len(part), names=sorted(part))
    every = [pair for split in pairs.values() for pair in split]
    if len(every) > SAMPLE:
        warn(f'{len(every)} label maps; labels and sizes are those of {SAMPLE} of them')
        every = random.Random(0).sample(every, SAMPLE)
    labels, sizes = _labels(every)
    classes = _mask_classes(folder, names, labels, ignore)
    return UserData(
        folder.resolve(), 'masks', classes, splits, _median(sizes), suffixes=suffix, ignore=ignore
    )


def _pair(images: Path, masks: Path) -> tuple[list[tuple[Path, Path]], tuple[str, str]]:
    """Images with their label maps, and the endings of both names."""
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
    """Labels with a file that each stands in, and sizes (width, height) of the images."""
    import numpy as np
    from PIL import Image

    labels, sizes = {}, []
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
            raise UserError(f'classes stand there twice: {shorten(twice)}')
        wrong = [label for label in found if label >= len(names)]
        if wrong:
            raise UserError(
                f'{labels[wrong[0]]} has the label {wrong[0]}; {len(names)} classes allow 0 to '
                f'{len(names) - 1} and {ignore} (--ignore-index); found in all: {shown}'
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
