"""Images whose shape and texture are of different classes: read, pair and generate them.

The layout is that of the official set of "ImageNet-trained CNNs are biased towards texture" (ICLR
2019): a folder per class of the shape with images ``<shape><i>-<texture><j>.png``, where i and j
are the numbers of the images that the shape and the texture are from.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hybrid_mm.analysis.networks import cropped
from hybrid_mm.data.images import find_images
from hybrid_mm.errors import UserError

_NAME = re.compile(r'([a-z_ ]+?)(\d+)-([a-z_ ]+?)(\d+)', re.IGNORECASE)
FACTORS = ('shape', 'texture')


class ConflictImage(NamedTuple):
    """An image with the class and number of its shape and of its texture."""

    path: Path
    shape: tuple[str, int]
    texture: tuple[str, int]


def read_set(root: str | Path) -> tuple[list[ConflictImage], int]:
    """List the images of a set whose two classes differ.

    Returns:
        These images, and the number of the others.

    Raises:
        UserError: The folder does not exist, holds no images, or one with another name pattern.
    """
    images, without = [], 0
    for path in find_images(root):
        match = _NAME.fullmatch(path.stem)
        if not match:
            raise UserError(
                f'{path}: expected a name <shape><number>-<texture><number>, e.g. cat1-clock3.png'
            )
        image = ConflictImage(path, (match[1], int(match[2])), (match[3], int(match[4])))
        if match[1] == match[3]:
            without += 1
        else:
            images.append(image)
    if len(images) < 2:
        raise UserError(
            f'{root} holds {len(images)} images with shape and texture of different classes; '
            'pairs need several'
        )
    return images, without


def make_pairs(images: Sequence[ConflictImage], seed: int) -> dict[str, list[tuple[int, int]]]:
    """Pair every image with one that shares its shape, and with one that shares its texture.

    The images of a shape pair have the same ``<shape><i>`` and textures of different classes. Those
    of a texture pair have shapes of different classes and the same ``<texture><j>`` if there is
    such an image, else the same class of texture. Images without a partner are left out of a
    factor.

    Args:
        images: Images of a set.
        seed: Seed of the choice among several partners.

    Returns:
        Pairs of indices for 'shape' and 'texture'.

    Raises:
        UserError: A factor has fewer than two pairs.
    """
    rng = np.random.default_rng(seed)
    groups: dict[tuple, list[int]] = defaultdict(list)
    for i, image in enumerate(images):
        for key in (('shape', image.shape), ('exact', image.texture), ('class', image.texture[0])):
            groups[key].append(i)
    pairs: dict[str, list[tuple[int, int]]] = {name: [] for name in FACTORS}
    for i, image in enumerate(images):

        def others(key: tuple, image=image) -> list[int]:
            side = 1 if key[0] == 'shape' else 0
            return [j for j in groups[key] if images[j][1 + side][0] != image[1 + side][0]]

        same_texture = others(('exact', image.texture)) or others(('class', image.texture[0]))
        for name, found in (('shape', others(('shape', image.shape))), ('texture', same_texture)):
            if found:
                pairs[name].append((i, int(rng.choice(found))))
    for name, found in pairs.items():
        if len(found) < 2:
            other = FACTORS[1 - FACTORS.index(name)]
            raise UserError(
                f'{len(found)} of the {len(images)} images have a partner of the same {name} with '
                f'another {other}; the set needs every {name} with several classes of {other}'
            )
    return pairs


def read_sources(root: str | Path, limit: int | None = None) -> dict[tuple[str, int], Path]:
    """List source images: from a folder per class, or from a flat folder, each its own class.

    Args:
        root: Folder of folders, or of images.
        limit: Largest number of images per class.

    Returns:
        Files by class and number, from 1.

    Raises:
        UserError: The folder does not exist or holds no images.
    """
    classes: dict[str, list[Path]] = defaultdict(list)
    for path in find_images(root):
        parts = path.relative_to(root).parts if path != Path(root) else (path.name,)
        name = parts[0] if len(parts) > 1 else f'image {path.stem}'
        classes[_letters(name)].append(path)
    found = {}
    for name, files in classes.items():
        for i, path in enumerate(files[:limit], 1):
            found[name, i] = path
    return found


def _letters(name: str) -> str:
    """Name of a class in letters only: digits become letters."""
    return re.sub(
        r'[^a-z_]+', '_', name.lower().translate(str.maketrans('0123456789', 'abcdefghij'))
    )


def _luminance(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _matched(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Match the histogram of values to that of a reference."""
    order = np.argsort(np.argsort(values, axis=None, kind='stable'), kind='stable')
    target = np.sort(reference, axis=None)
    at = order * (target.size - 1) // max(values.size - 1, 1)
    return target[at].reshape(values.shape).astype(np.float32)


def _cut(error: np.ndarray) -> np.ndarray:
    """Mask of the new block in an overlap (rows, columns): right of the cheapest path down."""
    cost = error.copy()
    for i in range(1, len(cost)):
        above = np.pad(cost[i - 1], 1, constant_values=np.inf)
        cost[i] += np.minimum(np.minimum(above[:-2], above[1:-1]), above[2:])
    path = np.empty(len(cost), int)
    path[-1] = cost[-1].argmin()
    for i in range(len(cost) - 2, -1, -1):
        low = max(path[i + 1] - 1, 0)
        path[i] = low + cost[i, low : path[i + 1] + 2].argmin()
    return np.arange(error.shape[1]) >= path[:, None]


def transfer_texture(
    shape: np.ndarray,
    texture: np.ndarray,
    blocks: Sequence[int] = (28, 16),
    weight: float = 0.6,
    seed: int = 0,
) -> np.ndarray:
    """Render an image with pieces of another: the lightness of the first, the second's texture.

    Source: "Image Quilting for Texture Synthesis and Transfer" (SIGGRAPH 2001), section 4: blocks
    of the texture are placed side by side, each chosen to match its neighbours and the lightness of
    the image, and joined along the cheapest cut. Every pass starts from the result of the last.

    Args:
        shape: (H, W, 3), uint8, RGB.
        texture: (h, w, 3), uint8, RGB, at least as large as the largest block.
        blocks: Sides of the blocks of the passes, from large to small.
        weight: From 0 (texture only) to 1 (lightness only).
        seed: Seed of the choice among blocks that are nearly as good as the best.

    Returns:
        (H, W, 3), uint8.

    Raises:
        ValueError: The texture is smaller than a block, or ``weight`` out of range.
    """
    if not 0 <= weight <= 1:
        raise ValueError(f'weight must lie between 0 and 1, got {weight}')
    if min(texture.shape[:2]) < max(blocks):
        raise ValueError(
            f'a texture of {texture.shape[0]} x {texture.shape[1]} is smaller than blocks of '
            f'{max(blocks)}'
        )
    rng = np.random.default_rng(seed)
    texture = texture.astype(np.float32)
    light = _luminance(texture)
    wanted = _matched(_luminance(shape), light)
    result = None
    for block in blocks:
        result = _pass(wanted, texture, light, block, weight, result, rng)
    return np.clip(result, 0, 255).astype(np.uint8)


def _pass(wanted, texture, light, block, weight, previous, rng) -> np.ndarray:
    """One pass of :func:`transfer_texture`; ``wanted`` is the lightness (H, W).

    Every third position of the texture is a candidate; squared differences are computed by matrix
    products.
    """
    height, width = wanted.shape
    overlap = max(2, block // 4)
    step = block - overlap
    rows, columns = (-(-(n - overlap) // step) for n in (height, width))
    size = rows * step + overlap, columns * step + overlap
    pad = [(0, size[0] - height), (0, size[1] - width)]
    wanted = np.pad(wanted, pad, mode='edge')
    before = None if previous is None else np.pad(previous, [*pad, (0, 0)], mode='edge')
    view = np.lib.stride_tricks.sliding_window_view
    patches = view(texture, (block, block), (0, 1))[::3, ::3].transpose(0, 1, 3, 4, 2)
    patches = patches.reshape(-1, block, block, 3)
    flat = patches.reshape(len(patches), -1)
    squares = flat**2
    totals = squares.sum(1)
    lights = view(light, (block, block))[::3, ::3].reshape(len(patches), -1)
    light_squares = (lights**2).sum(1)
    canvas = np.zeros((*size, 3), np.float32)
    for i in range(rows):
        for j in range(columns):
            here = np.s_[i * step : i * step + block, j * step : j * step + block]
            goal = wanted[here].ravel()
            error = weight * (light_squares - 2 * lights @ goal + goal @ goal) / block**2
            if i or j:
                mask = np.zeros((block, block, 3), np.float32)
                mask[:overlap] = i > 0
                mask[:, :overlap] = np.maximum(mask[:, :overlap], j > 0)
                mask, old = mask.ravel(), canvas[here].ravel()
                known = squares @ mask - 2 * flat @ (mask * old) + mask @ old**2
                error += (1 - weight) * known / mask.sum()
            if before is not None:
                old = before[here].ravel()
                known = totals - 2 * flat @ old + old @ old
                error += (1 - weight) * known / old.size
            choices = np.flatnonzero(error <= error.min() * 1.05 + 1e-3)
            new = patches[rng.choice(choices)]
            difference = ((new - canvas[here]) ** 2).sum(2)
            use = np.ones((block, block), bool)
            if j:
                use[:, :overlap] &= _cut(difference[:, :overlap])
            if i:
                use[:overlap] &= _cut(difference[:overlap].T).T
            canvas[here][use] = new[use]
    return canvas[:height, :width]


def make_set(
    shapes: dict[tuple[str, int], Path],
    textures: dict[tuple[str, int], Path],
    out: str | Path,
    size: int = 224,
    weight: float = 0.6,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> int:
    """Write an image for every shape and texture of different classes.

    Args:
        shapes: Files by class and number; see :func:`read_sources`.
        textures: Files of the textures, likewise.
        out: Folder of the set.
        size: Side of the images; sources are cropped to their centre.
        weight: See :func:`transfer_texture`.
        seed: Seed of all random choices.
        tick: Called after every image, including those that exist already.

    Returns:
        Number of images.

    Raises:
        UserError: Too few classes for pairs, or a source that is not an image.
    """
    from PIL import Image

    classes = dict(shapes={key[0] for key in shapes}, textures={key[0] for key in textures})
    for name, other in (('shapes', 'textures'), ('textures', 'shapes')):
        for label in sorted(classes[other]):
            if len(classes[name] - {label}) < 2:
                raise UserError(
                    f'{name}: pairs need two classes besides {label!r} of the {other}, got '
                    f'{len(classes[name] - {label})}; a class is a folder, or an image of a flat '
                    'folder'
                )
    loaded = {key: cropped(path, size, size) for key, path in textures.items()}
    count = 0
    for (shape, i), path in shapes.items():
        image = cropped(path, size, size)
        for (texture, j), pixels in loaded.items():
            if shape == texture:
                continue
            file = Path(out) / shape / f'{shape}{i}-{texture}{j}.png'
            count += 1
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                painted = transfer_texture(image, pixels, weight=weight, seed=seed)
                Image.fromarray(painted).save(file)
            tick()
    return count
