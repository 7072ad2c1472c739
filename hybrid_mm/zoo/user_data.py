"""Read a data set of a user: a COCO file with images, or images and label maps."""

from collections.abc import Sequence
from pathlib import Path

from hybrid_mm.data.class_order import moved
from hybrid_mm.errors import UserError, nearest, shorten
from hybrid_mm.zoo.splits import UserData
from hybrid_mm.zoo.user_coco import coco_files, read_coco
from hybrid_mm.zoo.user_masks import read_masks


def read_data(
    root: str | Path,
    train: Sequence[str] | None = None,
    val: Sequence[str] | None = None,
    holdout: float | None = None,
    classes: Sequence[str] | None = None,
    ignore: int | None = None,
    empty_classes: str | None = None,
    channels: int | Sequence[int] | None = None,
) -> UserData:
    """Find the splits, classes and image sizes of a data set in a known layout.

    Args:
        root: Folder of the data set.
        train: (annotations, images) of the training split, relative to ``root``; searched for if
            None.
        val: The same of the validation split.
        holdout: Share of the training images to validate on, if there is no validation split.
        classes: Names of the classes; read from the annotations or ``classes.txt`` if None.
        ignore: Label of pixels to leave out (label maps); if None the one whose name says so, as
            'unlabelled', else 255.
        empty_classes: 'drop' or 'keep' categories without a box in training; an error if None.
        channels: Number of channels that all images must have, or a list of those to take; found
            from the images if None.

    Raises:
        UserError: The folder does not exist or has no known layout, there is no validation split,
            or the annotations are not valid.
    """
    folder = Path(root)
    if not folder.is_dir():
        siblings = folder.parent.iterdir() if folder.parent.is_dir() else ()
        names = [path.name for path in siblings if path.is_dir()]
        raise UserError(f'--data {root} is not a folder{nearest(folder.name, names)}')
    given = {key: value for key, value in (('train', train), ('val', val)) if value}
    for key, (labels, images) in given.items():
        for path in (labels, images):
            if not (folder / path).exists():
                raise UserError(f'--{key}: {folder / path} does not exist')
    files = [labels.endswith('.json') for labels, _ in given.values()]
    if any(files) and not all(files):
        raise UserError('--train and --val must both name COCO files, or both folders')
    coco = all(files) if files else bool(coco_files(folder))
    if coco:
        return read_coco(folder, given, holdout, classes, empty_classes, channels)
    for name in ('classes.txt', 'labels.txt') if classes else ():
        file = folder / name
        listed = file.read_text().splitlines() if file.is_file() else []
        if moved(classes or (), [line.strip() for line in listed]):
            raise UserError(
                f'--classes {shorten(list(classes or ()))} has names of {file} in another order; '
                'they are those of the labels 0, 1, 2, ... in the label maps'
            )
    return read_masks(folder, given, holdout, classes, ignore, channels)
