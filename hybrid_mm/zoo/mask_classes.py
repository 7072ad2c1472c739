"""Classes of label maps: their names, and the label of pixels that do not count."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hybrid_mm.data.sample_check import one_label
from hybrid_mm.errors import UserError, printable, shorten, warn

IGNORED = 255
"""Label that is ignored where nothing says otherwise."""

# Words that say that pixels have no label. Others may be classes: background, other, unknown,
# clutter, misc.
_UNLABELLED = {
    *('unlabelled', 'unlabeled', 'unannotated', 'void', 'ignore', 'ignored', 'dontcare'),
    *('dont care', 'do not care', 'no label', 'nolabel', 'not labelled', 'not labeled'),
    *('un labelled', 'un labeled', 'not annotated'),
}
_FILLERS = {'class', 'classes', 'label', 'labels', 'pixel', 'pixels', 'region', 'regions', 'area'}


@dataclass
class MaskClasses:
    """Classes of label maps, and what is ignored.

    Attributes:
        names: Names of the classes that are trained, in the order of their numbers.
        ignore: Label that is left out of training and evaluation, as the data set is to be told.
        shifted: Whether label 0 is ignored, so that the label n + 1 is class n.
        note: What was decided about a label with a name, and how to change it; may be empty.
    """

    names: list[str]
    ignore: int = IGNORED
    shifted: bool = False
    note: str = ''


def is_unlabelled(name: str) -> bool:
    """Whether a name says that pixels have no label, as 'unlabelled', 'Void' or 'ignore_region'."""
    words = re.findall(r'[a-z]+', name.lower().replace("'", ''))
    kept = [word for word in words if word not in _FILLERS]
    return ' '.join(words) in _UNLABELLED or (bool(kept) and set(kept) <= _UNLABELLED)


def read_names(folder: Path) -> list[str] | None:
    """Names of the classes in ``classes.txt`` or ``labels.txt``, or None."""
    for file in (folder / 'classes.txt', folder / 'labels.txt'):
        if file.is_file():
            try:
                lines = [line.strip() for line in file.read_text('utf-8-sig').splitlines()]
            except UnicodeDecodeError as error:
                raise UserError(f'{file} is not UTF-8 text: {error}') from error
            names = [line for line in lines if line]
            if not names:
                raise UserError(f'{file} is empty; expected a class in each line')
            if len(names) == 1 and re.search('[,;]', names[0]):
                raise UserError(f'{file} has all classes in one line; expected a line for each')
            return names
    return None


def mask_classes(
    folder: Path, given: Sequence[str] | None, labels: dict[int, Path], ignore: int | None
) -> MaskClasses:
    """Find the classes of label maps, and the label to ignore.

    Args:
        folder: Folder of the data set.
        given: Names of the classes, or None to read them from ``classes.txt``.
        labels: Labels of the maps, each with a file that has it.
        ignore: Label to ignore; if None, the one whose name says so, else 255.

    Raises:
        UserError: Names are missing or listed twice, labels have no name, or none is left.
    """
    names = list(given) if given is not None else read_names(folder)
    if names is not None:
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice or '' in names:
            raise UserError(f'classes are listed twice or empty: {shorten(twice) or repr("")}')
    asked, ignore = ignore is not None, _ignored(folder, names, labels, ignore)
    # MMSegmentation leaves out label 0 and 255, or one value
    found = sorted(n for n in labels if n != ignore and (ignore != 0 or n != IGNORED))
    if not found:
        raise UserError(f'the label maps of {folder} hold nothing but {ignore}, which is ignored')
    if names is not None and ignore == 0 and asked and found[-1] == len(names):
        names = ['not named', *names]  # they are those of the labels from 1
    numbered = _numbered(folder, labels, found, ignore) if names is None else names
    decided = _decided(numbered, labels, ignore, asked)
    ignored = ignore if ignore in labels else None
    if ignored is not None:
        problem = one_label(set(found), ignored, len(names) if names else 2)
        if problem:
            raise UserError(f'the label maps of {folder} hold {problem} (e.g. {labels[ignored]})')
    if names is not None:
        _check_named(folder, names, labels, found, ignore)
    return decided


def _ignored(
    folder: Path, names: Sequence[str] | None, labels: dict[int, Path], ignore: int | None
) -> int:
    """The label to ignore: what the user asked for, what has such a name, or 255."""
    if ignore is not None:
        return ignore
    marked = [number for number, name in enumerate(names or ()) if is_unlabelled(name)]
    if not marked:
        return IGNORED
    shown = shorten([f'{number} ({names[number]})' for number in marked]) if names else ''
    if len(marked) > 1:
        raise UserError(
            f'the names of the labels {shown} say that they do not count, but only one label can '
            f'be ignored: write one number for all of them into the label maps, or name the one '
            f'to ignore with --ignore-index {marked[0]}, with which the others are trained'
        )
    (number,) = marked
    if IGNORED not in labels or number == 0:
        return number
    if number in labels:
        raise UserError(
            f'the label maps of {folder} hold {shown} and {IGNORED} (e.g. {labels[IGNORED]}), but '
            f'only one label can be ignored: write {IGNORED} instead of {number}, or train '
            f'{number} as a class with --ignore-index {IGNORED}'
        )
    return IGNORED


def _decided(names: list[str], labels: dict[int, Path], ignore: int, asked: bool) -> MaskClasses:
    """The classes without the ignored one, and what to say about it."""
    last = len(names) - 1
    if ignore > last:
        if not asked and last > 0 and is_unlabelled(names[last]) and last not in labels:
            return MaskClasses(names[:-1], ignore, note=f'No label map has {last} ({names[last]}).')
        return MaskClasses(names, ignore)
    name = names[ignore]
    kept = [other for other in names if other != name]
    why = '--ignore-index' if asked else f'by its name; --ignore-index {IGNORED} trains it'
    note = f'The label {ignore} ({name}) is ignored ({why}).'
    if len(kept) < 2:
        raise UserError(
            f'{note} Only {shorten(kept)} is left, which is nothing to tell apart; to tell it from '
            f'{name}, use --ignore-index {IGNORED}'
        )
    if ignore == last:
        return MaskClasses(kept, ignore, note=note)
    if ignore == 0:
        note += ' Class n is the label n + 1 of the maps (reduce_zero_label).'
        return MaskClasses(kept, IGNORED, True, note)
    note += ' It keeps its number and an output of the network, which nothing trains.'
    return MaskClasses(names, ignore, note=note)


def _check_named(
    folder: Path, names: Sequence[str], labels: dict[int, Path], found: list[int], ignore: int
) -> None:
    """Check that all labels have a name, and name the classes that no map has.

    Raises:
        UserError: A label has none.
    """
    wrong = [label for label in found if label >= len(names)]
    if not wrong:
        absent = [n for label, n in enumerate(names) if label not in (*found, ignore)]
        absent = [name for name in absent if not is_unlabelled(name)]
        if absent:
            warn(f'no label map has {shorten(absent, 12)}; nothing trains these classes')
        return
    first = wrong[0]
    name_them = f'name all {wrong[-1] + 1} labels in {folder / "classes.txt"} or with --classes'
    if len(wrong) > 1:
        remedy = name_them
    elif ignore in labels:
        remedy = f'if {first} does not count either, write {ignore} in its place; else {name_them}'
    else:
        remedy = f'if {first} does not count, add --ignore-index {first}; else {name_them}'
        if first == len(names):
            remedy += '; if 0 does not count and the names begin at 1, add --ignore-index 0'
    raise UserError(
        f'{labels[first]} has the label {first}; {len(names)} classes allow 0 to {len(names) - 1} '
        f'and {ignore} (--ignore-index); labels found: {_shown(found)}; {remedy}'
    )


def _numbered(folder: Path, labels: dict[int, Path], found: list[int], ignore: int) -> list[str]:
    """Names from numbers, if the labels are nearly without gaps.

    Raises:
        UserError: They are not.
    """
    file, last = folder / 'classes.txt', found[-1]
    gaps = [label for label in range(last) if label not in found and label != ignore]
    if gaps and len(gaps) > len(found):
        remedy = 'renumber them'
        if ignore not in labels and found[:-1] == list(range(last - len(gaps))):
            remedy = f'if {last} does not count, add --ignore-index {last}; else {remedy}'
        raise UserError(
            f'label maps of {folder} have the values {_shown(found)} (e.g. {labels[last]}); '
            f'expected 0, 1, 2, ... and {ignore} for ignored pixels: {remedy}, or name all classes '
            f'in {file}, one per line'
        )
    hint = ''
    if ignore not in labels:
        hint = f'; if one of 0 to {last} means unlabelled, add --ignore-index NUMBER'
    first = 1 if ignore == 0 else 0
    warn(printable(f'no class names in {file}, one per line: class_{first} to class_{last}{hint}'))
    return [f'class_{label}' for label in range(last + 1)]


def _shown(found: Sequence[int]) -> str:
    return shorten([str(label) for label in found], 12)
