"""Checks of the labels of classification data sets: class folders and lists of labels."""

import os
from typing import Any

from hybrid_mm.data.class_order import check_same_labels, moved
from hybrid_mm.data.sample_check import is_hidden
from hybrid_mm.errors import UserError, shorten, warn
from hybrid_mm.run.checks.datasets import (
    class_folders,
    class_index_file,
    named_classes,
    openmmlab_file,
    paths_of,
)


def check_class_labels(
    dataset: dict[str, Any], number: int | None, loader: str, training: bool = False
) -> None:
    """Check that class folders fit the names of the classes, and that labels are in range.

    Args:
        dataset: Config of the data set.
        number: Number of classes, if it is known.
        loader: Its place in the config, for messages.
        training: Whether to name the classes that no image has.

    Raises:
        UserError: A class folder is hidden; class folders have another number or order than
            ``metainfo.classes``; a line has no label, or one out of range.
    """
    folders, names = class_folders(dataset), named_classes(dataset)
    if folders is not None:
        root = next(iter(paths_of(dataset).values()))
        if not folders:
            raise UserError(f'{loader}: {root} has no class folders')
        hidden = [name for name in folders if is_hidden(name)]
        if hidden:
            raise UserError(
                f'{loader}: {dataset["type"]} reads every folder in {root} as a class, also '
                f'{shorten(hidden)}; delete it'
            )
        if training:
            empty = [name for name in folders if _is_empty(os.path.join(root, name))]
            _warn_untrained(empty, folders, loader)
        if names and (len(folders) != len(names) or moved(names, folders)):
            check_same_labels(
                (f'{loader}.dataset.metainfo', names),
                (f'the class folders in {root}', folders),
                'labels are the positions of the sorted folders: name them in this order',
            )
        return
    if number is None:
        return
    path, file = class_index_file(dataset), openmmlab_file(dataset)
    if file is not None:
        for label, position in file.labels.items():
            _check_label(label, number, f'{file.path}, data_list[{position}]')
    elif path is not None and os.path.isfile(path):
        found = _check_lines(path, number)
        if training:
            names = names or [str(label) for label in range(number)]
            _warn_untrained([n for i, n in enumerate(names) if i not in found], names, loader)


def _is_empty(folder: str) -> bool:
    return all(is_hidden(entry.name) for entry in os.scandir(folder))


def _warn_untrained(absent: list[str], names: list[str], loader: str) -> None:
    if absent:
        warn(
            f'{loader}: {len(absent)} of {len(names)} classes have no image: {shorten(absent)}; '
            'nothing trains them'
        )


def _check_lines(path: str, number: int) -> set[int]:
    """Check the lines ``FILE LABEL`` of a list; return the labels in it."""
    found = set()
    try:
        with open(path) as file:
            for i, line in enumerate(file, 1):
                label = line.strip().rpartition(' ')[2]
                if not label.isdecimal():
                    raise UserError(
                        f'{path}, line {i}: {shorten([line.strip()])!r} does not end with a label; '
                        'expected FILE LABEL'
                    )
                _check_label(int(label), number, f'{path}, line {i}')
                found.add(int(label))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read as a list of files and labels: {error}') from error
    return found


def _check_label(label: int, number: int, place: str) -> None:
    if not 0 <= label < number:
        hint = '; labels start at 0' if label == number else ''
        raise UserError(f'{place}: label {label} is not in 0..{number - 1}{hint}')
