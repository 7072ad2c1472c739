"""The data set of the demo: textured shapes that occlude each other, drawn from a seed.

Every scene has its own seed and is drawn once, as a picture and a map of instance numbers. Masks,
boxes, areas and the semantic map are all derived from that map, so they agree to the pixel. Needs
numpy, Pillow and pycocotools only.
"""

import colorsys
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ('disc', 'ring', 'square', 'triangle', 'star', 'cross', 'crescent', 'heart')
SEG_CLASSES = ('background', *CLASSES)
PALETTE = (
    (230, 60, 50),
    (245, 140, 30),
    (240, 225, 40),
    (70, 185, 75),
    (60, 200, 205),
    (70, 110, 235),
    (150, 80, 210),
    (240, 110, 180),
)
SEG_PALETTE = ((70, 70, 75), *PALETTE)
# Folder of each split (ADE20K's names) and its number of images.
SPLITS = {'training': 400, 'validation': 80}
VERSION = 1  # of the drawing: raise it with every change of the files that a seed gives

SIDES = (128, 144, 160)
RADII = ((12, 19), (20, 38), (62, 78))  # small, medium and large ones by COCO's areas
RADIUS_ODDS = (0.3, 0.48, 0.22)
TEXTURES = ('plain', 'gradient', 'stripes', 'checks', 'dots', 'speckle')
GROUNDS = ('cloud', 'stripes', 'checks', 'bricks', 'gradient')
OWN_COLOUR = 0.93  # share of the shapes in the colour of their class, not of another
MIN_VISIBLE, MIN_PIXELS = 0.7, 60  # smallest visible share of a shape, after all occlusions


@dataclass(frozen=True)
class Scene:
    """One picture with its instance map and classes.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        instances: (H, W) uint8; 0 is background, i + 1 a visible pixel of shape i.
        labels: Class of each shape, an index into :data:`CLASSES`.
    """

    image: np.ndarray
    instances: np.ndarray
    labels: tuple[int, ...]

    @property
    def semantic(self) -> np.ndarray:
        """(H, W) uint8; 0 is background, c + 1 a pixel of class c."""
        return np.array([0, *(c + 1 for c in self.labels)], np.uint8)[self.instances]


# ---------------------------------------------------------------------------------------------
# Outlines: signed distance (negative inside, exact only near the border) of a point (u, v) to a
# shape of circumscribed radius 1.


def _polygon(u, v, sides, apothem):
    turns = 2 * np.pi * np.arange(sides) / sides + np.pi / 2
    return np.max([u * np.cos(t) + v * np.sin(t) for t in turns], axis=0) - apothem


def _star(u, v, inner=0.56):
    sector = np.pi / 5
    angle = np.abs((np.arctan2(u, -v) + sector) % (2 * sector) - sector)
    x, y = np.hypot(u, v) * np.cos(angle), np.hypot(u, v) * np.sin(angle)
    dx, dy = inner * np.cos(sector) - 1, inner * np.sin(sector)
    return ((x - 1) * dy - y * dx) / np.hypot(dx, dy)


def _cross(u, v, arm=0.37, reach=0.94):
    a, b = np.abs(u), np.abs(v)
    return np.minimum(np.maximum(a - arm, b - reach), np.maximum(a - reach, b - arm))


def _heart(u, v, side=0.54):
    a, b = (u - v + 0.15) / np.sqrt(2), (-u - v + 0.15) / np.sqrt(2)
    body = np.maximum(np.abs(a), np.abs(b)) - side
    return np.minimum(body, np.minimum(np.hypot(a - side, b) - side, np.hypot(a, b - side) - side))


OUTLINES = dict(
    disc=lambda u, v: np.hypot(u, v) - 0.95,
    ring=lambda u, v: np.abs(np.hypot(u, v) - 0.72) - 0.26,
    square=lambda u, v: _polygon(u, v, 4, 0.76),
    triangle=lambda u, v: _polygon(u, v, 3, 0.5),
    star=_star,
    cross=_cross,
    crescent=lambda u, v: np.maximum(np.hypot(u, v) - 1, 0.74 - np.hypot(u - 0.56, v)),
    heart=_heart,
)


# ---------------------------------------------------------------------------------------------
# Colours and textures


def _hsv(rgb):
    return colorsys.rgb_to_hsv(*(c / 255 for c in rgb))


def _rgb(hue, saturation, value):
    rgb = colorsys.hsv_to_rgb(hue % 1, np.clip(saturation, 0, 1), np.clip(value, 0, 1))
    return 255 * np.array(rgb)


def _noise(rng, height, width, cell):
    """Smooth noise in [0, 1]: a random grid, one value each ``cell`` pixels, interpolated."""
    grid = rng.random((height // cell + 2, width // cell + 2))
    y, x = np.arange(height) / cell, np.arange(width) / cell
    i, j = y.astype(int), x.astype(int)
    fy, fx = (y - i)[:, None], (x - j)[None]
    rows = grid[i] * (1 - fy) + grid[i + 1] * fy
    return rows[:, j] * (1 - fx) + rows[:, j + 1] * fx


def _pattern(name, u, v, rng, pitch):
    """Weight in [0, 1] of the second colour of a texture at the points (u, v), in pixels."""
    if name == 'plain':
        return np.zeros_like(u)
    if name == 'gradient':
        return (v - v.min()) / max(np.ptp(v), 1)
    if name == 'stripes':
        return np.clip(0.5 + 2 * np.sin(2 * np.pi * u / pitch), 0, 1)
    if name == 'checks':
        waves = np.sin(np.pi * u / pitch) * np.sin(np.pi * v / pitch)
        return np.clip(0.5 + 4 * waves, 0, 1)
    if name == 'dots':
        cu, cv = (u / pitch) % 1 - 0.5, (v / pitch) % 1 - 0.5
        return np.clip((0.3 - np.hypot(cu, cv)) * pitch + 0.5, 0, 1)
    if name == 'bricks':
        row = np.floor(v / pitch)
        return ((v / pitch % 1 < 0.14) | ((u / (2 * pitch) + row / 2) % 1 < 0.07)).astype(float)
    if name == 'speckle':
        return (rng.random(u.shape) < 0.3).astype(float)
    height, width = u.shape  # 'cloud'
    return 0.6 * _noise(rng, height, width, 24) + 0.4 * _noise(rng, height, width, 7)


def _blend(first, second, weight):
    return first + (second - first) * weight[..., None]


def _background(rng, height, width):
    hue, saturation, value = rng.random(), rng.uniform(0.05, 0.28), rng.uniform(0.3, 0.75)
    contrast = rng.uniform(0.12, 0.25) * rng.choice([-1, 1])
    first = _rgb(hue, saturation, value)
    second = _rgb(hue + rng.uniform(-0.1, 0.1), saturation, value + contrast)
    y, x = np.mgrid[:height, :width].astype(float)
    u, v = _rotate(x, y, rng.uniform(-np.pi, np.pi))
    weight = _pattern(str(rng.choice(GROUNDS)), u, v, rng, rng.uniform(9, 22))
    return _blend(first, second, weight) + rng.normal(0, 5, (height, width, 1))


def _rotate(x, y, angle):
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _draw(rng, image, label, x, y, radius):
    """Draw one shape over the image, in place.

    Returns:
        (H, W) bool: the pixels whose centres the shape covers.
    """
    height, width = image.shape[:2]
    top, left = max(int(y - radius) - 2, 0), max(int(x - radius) - 2, 0)
    bottom, right = min(int(y + radius) + 3, height), min(int(x + radius) + 3, width)
    window = slice(top, bottom), slice(left, right)
    py, px = np.mgrid[window].astype(float)
    u, v = _rotate(px - x, py - y, rng.uniform(-0.45, 0.45))
    distance = radius * OUTLINES[CLASSES[label]](u / radius, v / radius)

    others = [c for c in range(len(CLASSES)) if c != label]
    dress = label if rng.random() < OWN_COLOUR else int(rng.choice(others))
    hue, saturation, value = _hsv(PALETTE[dress])
    hue += rng.uniform(-0.015, 0.015)
    value += rng.uniform(-0.12, 0.05)
    first = _rgb(hue, saturation, value)
    second = _rgb(hue, saturation * 0.85, value - rng.uniform(0.15, 0.3))
    pitch = max(5.0, radius * rng.uniform(0.3, 0.6))
    weight = _pattern(str(rng.choice(TEXTURES)), u, v, rng, pitch)
    paint = _blend(first, second, weight)
    rim = np.clip(distance + 2.0, 0, 1) * 0.45  # a darker rim, two pixels wide
    paint = paint * (1 - rim[..., None])
    image[window] = _blend(image[window], paint, np.clip(0.5 - distance, 0, 1))

    covered = np.zeros((height, width), bool)
    covered[window] = distance <= 0
    return covered


def _inside(rng, side, margin):
    margin = min(margin, 0.48 * side)
    return rng.uniform(margin, side - margin)


def draw_scene(seed) -> Scene:
    """Sample and draw one scene.

    Args:
        seed: Seed for ``numpy.random.default_rng``; it determines the scene.
    """
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.choice(SIDES, 2))
    image = _background(rng, height, width)
    instances = np.zeros((height, width), np.uint8)
    labels: list[int] = []
    areas: list[int] = []
    ranges = rng.choice(len(RADII), rng.integers(3, 7), p=RADIUS_ODDS)
    for radius in sorted((rng.uniform(*RADII[r]) for r in ranges), reverse=True):
        label = int(rng.integers(len(CLASSES)))
        for _ in range(20):  # attempts to find a place that does not hide too much of others
            x, y = (_inside(rng, side, 0.9 * radius) for side in (width, height))
            canvas = image.copy()
            covered = _draw(rng, canvas, label, x, y, radius)
            left = np.bincount(instances[~covered], minlength=len(areas) + 1)[1:]
            area = int(covered.sum())
            visible = zip((*left, area), (*areas, area), strict=True)
            if all(n >= max(MIN_VISIBLE * a, MIN_PIXELS) for n, a in visible):
                image = canvas
                labels.append(label)
                areas.append(area)
                instances[covered] = len(labels)
                break
    image = image + rng.normal(0, 3, image.shape)
    return Scene(np.clip(np.rint(image), 0, 255).astype(np.uint8), instances, tuple(labels))


# ---------------------------------------------------------------------------------------------
# Files


def coco_annotations(scene: Scene) -> list[dict]:
    """Describe the shapes of a scene in COCO's format, without ids.

    Returns:
        One dict per shape with category_id (class + 1), bbox (x, y, w, h of the visible pixels),
        area (their number), segmentation (their compressed RLE) and iscrowd.
    """
    from pycocotools import mask as rle

    found = []
    for number, label in enumerate(scene.labels, start=1):
        mask = scene.instances == number
        code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        found.append(
            dict(
                category_id=label + 1,
                bbox=[x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
                area=int(mask.sum()),
                segmentation=dict(size=list(mask.shape), counts=code['counts'].decode()),
                iscrowd=0,
            )
        )
    return found


def _save_png(array, path, palette=None):
    from PIL import Image

    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette([c for rgb in palette for c in rgb])
    image.save(path, compress_level=4)


def _write_split(root, split, count, seed):
    images, labels = root / 'images' / split, root / 'annotations' / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    coco: dict[str, Any] = dict(
        info=dict(description='hybrid_mm shapes', version=str(VERSION), seed=seed),
        categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)],
        images=[],
        annotations=[],
    )
    # 0 is 'unlabelled' in ADE20K's files: the classes start at 1.
    palette = ((0, 0, 0), *SEG_PALETTE)
    for number in range(1, count + 1):
        scene = draw_scene([seed, list(SPLITS).index(split), number])
        name = f'{number:04d}.png'
        _save_png(scene.image, images / name)
        _save_png(scene.semantic + 1, labels / name, palette)
        height, width = scene.semantic.shape
        coco['images'].append(dict(id=number, file_name=name, height=height, width=width))
        for annotation in coco_annotations(scene):
            identity = dict(id=len(coco['annotations']) + 1, image_id=number)
            coco['annotations'].append(identity | annotation)
        yield number
    with open(root / 'annotations' / f'instances_{split}.json', 'w') as file:
        json.dump(coco, file)


def write_dataset(root, seed: int = 0, splits: dict | None = None, progress=None) -> bool:
    """Write the data set, unless it exists already.

    Files are images/SPLIT/*.png, annotations/SPLIT/*.png (ADE20K's layout; 0 is unlabelled, 1 is
    background, c + 2 is class c, so readers set ``reduce_zero_label=True``), and
    annotations/instances_SPLIT.json (COCO). The same arguments give the same bytes.

    Args:
        root: Folder of the data set. An older version of it there is replaced.
        seed: Seed of all scenes.
        splits: Number of images by split; by default :data:`SPLITS`.
        progress: Called as ``progress(done, total)`` after every image.

    Returns:
        Whether anything was written; False if the folder held exactly this data set.

    Raises:
        FileExistsError: The folder holds other files.
        ValueError: Unknown split.
    """
    root = Path(root)
    splits = dict(SPLITS if splits is None else splits)
    if unknown := sorted(set(splits) - set(SPLITS)):
        raise ValueError(f'unknown splits {unknown}: choose from {list(SPLITS)}')
    about = dict(name='hybrid_mm shapes', version=VERSION, seed=seed, splits=splits)
    stamp = root / 'dataset.json'  # written last: it marks the data set as complete
    if stamp.is_file():
        old = json.loads(stamp.read_text())
        if old == about:
            return False
        if old.get('name') != about['name']:
            raise FileExistsError(f'{root} holds another data set: choose another folder')
    elif root.is_dir() and any(root.iterdir()):
        raise FileExistsError(f'{root} is not empty and is not our data set: choose another folder')

    partial = root.with_name(f'{root.name}.partial-{os.getpid()}')
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        done, total = 0, sum(splits.values())
        for split, count in splits.items():
            for _ in _write_split(partial, split, count, seed):
                done += 1
                if progress:
                    progress(done, total)
        (partial / stamp.name).write_text(json.dumps(about))
        if root.is_dir():
            shutil.rmtree(root)
        partial.rename(root)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True
