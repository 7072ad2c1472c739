"""Classification by the nearest neighbours in feature space, and the folders of DTD.

Source: "Describing Textures in the Wild" (CVPR 2014) for the data set.
"""

from pathlib import Path

import numpy as np

from hybrid_mm.errors import UserError

METRICS = ('l2', 'cosine')


def accuracy(
    reference: np.ndarray,
    reference_labels: np.ndarray,
    queries: np.ndarray,
    labels: np.ndarray,
    k: int = 1,
    metric: str = 'l2',
) -> float:
    """Accuracy in per cent of the most frequent label among the k nearest references.

    Ties are resolved for the label of the nearest reference.

    Args:
        reference: Features (n, N).
        reference_labels: Their labels (n,).
        queries: Features (m, N).
        labels: Their labels (m,).
        k: Number of neighbours, at most n.
        metric: 'l2' for the Euclidean distance, or 'cosine'.

    Raises:
        ValueError: ``k`` is out of range, or ``metric`` unknown.
    """
    if metric not in METRICS:
        raise ValueError(f'metric must be one of {", ".join(METRICS)}, got {metric!r}')
    if not 1 <= k <= len(reference):
        raise ValueError(f'k must be 1 to {len(reference)}, the number of references, got {k}')
    reference, queries = (np.asarray(x, np.float64) for x in (reference, queries))
    if metric == 'cosine':
        reference, queries = (
            x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
            for x in (reference, queries)
        )
    squares = (reference**2).sum(1)
    right = 0
    for start in range(0, len(queries), 512):
        part = queries[start : start + 512]
        distance = squares - 2 * part @ reference.T
        nearest = np.argsort(distance, axis=1, kind='stable')[:, :k]
        for row, label in zip(np.asarray(reference_labels)[nearest], labels[start:], strict=False):
            values, first, counts = np.unique(row, return_index=True, return_counts=True)
            best = min(range(len(values)), key=lambda i: (-counts[i], first[i]))
            right += values[best] == label
    return 100 * float(right) / len(queries)


def read_split(root: str | Path, part: str, number: int) -> tuple[list[Path], list[str]]:
    """Read a split of DTD: ``images/<class>/*`` listed in ``labels/<part><number>.txt``.

    Args:
        root: Folder of the data set.
        part: 'train', 'val' or 'test'.
        number: 1 to 10.

    Raises:
        UserError: The list or an image of it does not exist, or the list is empty.
    """
    listing = Path(root) / 'labels' / f'{part}{number}.txt'
    if not listing.is_file():
        raise UserError(
            f'{listing} does not exist; expected the layout of DTD: images/<class>/*.jpg and '
            'labels/{train,val,test}{1..10}.txt'
        )
    names = listing.read_text(encoding='utf-8', errors='replace').split()
    files = [Path(root) / 'images' / name for name in names]
    if not files:
        raise UserError(f'{listing} is empty; expected lines <class>/<image>')
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UserError(f'{missing[0]} of {listing} does not exist ({len(missing)} do not)')
    return files, [name.split('/')[0] for name in names]
