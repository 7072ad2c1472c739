"""Class names and the labels that they stand for: comparison of two lists of names."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from hybrid_mm.errors import UserError, nearest, shorten, warn


def moved(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Names of ``first`` that stand at another position in ``second``: no renaming does that."""
    counts = Counter(first) + Counter(second)
    place = {name: i for i, name in enumerate(second)}
    return [
        name
        for i, name in enumerate(first)
        if place.get(name, i) != i and counts[name] == 2  # a name that is listed twice says nothing
    ]


def check_same_labels(
    first: tuple[str, Sequence[str]],
    second: tuple[str, Sequence[str]],
    remedy: str = '',
    strict: bool = True,
) -> None:
    """Check that labels stand for the same classes in two places.

    Classes that have other names at the same positions may have been renamed: that is a warning.

    Args:
        first: A place, for messages, and its class names in the order of the labels.
        second: Another one.
        remedy: What to do, for the message.
        strict: Whether other labels of one class, or another number of classes, are an error;
            otherwise they are a warning.

    Raises:
        UserError: A class has different labels, or the numbers of classes differ.
    """
    (here, ours), (there, theirs) = first, second
    ours, theirs = list(ours), list(theirs)
    if ours == theirs:
        return
    both = f'{here} has the classes {shorten(ours)}; {there}: {shorten(theirs)}'
    wrong = moved(ours, theirs)
    if wrong:
        name = wrong[0]
        text = (
            f'{here} and {there} give other labels to the same classes: {name!r} is '
            f'{ours.index(name)} in the first and {theirs.index(name)} in the second'
        )
    elif len(ours) != len(theirs):
        absent = [name for name in (*ours, *theirs) if name not in ours or name not in theirs]
        text = (
            f'{here} has {len(ours)} classes, {there} has {len(theirs)}; only in one of them: '
            f'{shorten(absent)}'
        )
    else:
        number = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        warn(
            f'label {number} is {ours[number]!r} in {here} and {theirs[number]!r} in {there}: fine '
            'if the class was only renamed'
        )
        return
    text = f'{text}. {both}{"; " if remedy else ""}{remedy}'
    if strict:
        raise UserError(text)
    warn(text)


def spelling(name: str, names: Iterable[str]) -> str:
    """Hint at the names that a name was meant for, by upper case, spaces or letters; or ''."""

    def plain(text: str) -> str:
        return ' '.join(text.lower().replace('_', ' ').replace('-', ' ').split())

    names = list(names)
    same = [other for other in names if plain(other) == plain(name)]
    return f'; {name!r} is spelled {same[0]!r} there' if same else nearest(name, names)


def classes_of_checkpoint(checkpoint: dict[str, Any]) -> list[str] | None:
    """Class names that a checkpoint of any version of the OpenMMLab packages carries, or None."""
    names = meta_of_checkpoint(checkpoint).get('classes')
    return list(names) if isinstance(names, list | tuple) and names else None


def meta_of_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Class names and palette that a checkpoint carries, by lower-case keys."""
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    found = meta.get('dataset_meta')
    if isinstance(found, list | tuple) and found:  # of joined data sets
        found = found[0]
    if not isinstance(found, dict):  # MMDetection 2, MMSegmentation 0 and MMClassification 0
        found = {key: meta[key] for key in ('CLASSES', 'PALETTE') if meta.get(key)}
    return {str(key).lower(): value for key, value in found.items()}
