"""The label that does not count: found by its name, asked for, and what is said about it."""

from pathlib import Path

import pytest

from hybrid_mm.errors import UserError
from hybrid_mm.zoo.mask_classes import is_unlabelled, mask_classes

CAMVID = ['sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car']
CAMVID += ['pedestrian', 'bicyclist', 'unlabelled']


def classes(labels, names=None, ignore=None, folder=Path('/data')):
    return mask_classes(folder, names, {n: Path(f'/data/{n}.png') for n in labels}, ignore)


def test_names():
    for name in (
        *('unlabelled', 'Unlabeled', 'VOID', 'ignore', 'void class', 'ignore_region', "don't care"),
        *('no label', 'Void/Unlabelled', 'not labelled', 'dontcare', 'unlabelled pixels'),
        *('un-labelled', 'Un_labeled', 'not annotated'),
    ):
        assert is_unlabelled(name), name
    for name in (
        *('background', 'other', 'unknown', 'clutter', 'misc', 'label', 'area', 'avoid', ''),
        *('background/void', 'void deck', 'traffic sign', 'sky', 'class_11', '255'),
    ):
        assert not is_unlabelled(name), name


def test_the_last_class_is_left_out():
    """CamVid: 0 to 10 are classes and 11 is not."""
    found = classes(range(12), CAMVID)
    assert (found.names, found.ignore, found.shifted) == (CAMVID[:11], 11, False)
    assert found.note == (
        'The label 11 (unlabelled) is ignored (by its name; --ignore-index 255 trains it).'
    )
    found = classes(range(12), CAMVID, 255)  # the user knows better
    assert (found.names, found.ignore, found.note) == (CAMVID, 255, '')
    found = classes(range(12), CAMVID[:11], 11)
    assert (found.names, found.ignore, found.note) == (CAMVID[:11], 11, '')
    # 255 is what the maps have in its place
    found = classes([*range(11), 255], CAMVID)
    assert (found.names, found.ignore) == (CAMVID[:11], 255)
    assert 'No label map has 11 (unlabelled)' in found.note
    found = classes([0, 1, 2], ['a', 'b', 'other'], 2)
    assert (found.names, found.ignore) == (['a', 'b'], 2)
    assert found.note == 'The label 2 (other) is ignored (--ignore-index).'


def test_the_first_class_is_left_out():
    """The others move down by one, as ADE20K's do; 255 is ignored as well."""
    for labels in (range(4), [0, 1, 2, 3, 255]):
        found = classes(labels, ['Void', 'a', 'b', 'c'])
        assert (found.names, found.ignore, found.shifted) == (['a', 'b', 'c'], 255, True)
        assert 'The label 0 (Void) is ignored' in found.note and 'n + 1' in found.note
    found = classes(range(4), None, 0)
    assert (found.names, found.shifted) == (['class_1', 'class_2', 'class_3'], True)
    found = classes(range(4), ['background', 'a', 'b', 'c'])
    assert (len(found.names), found.ignore, found.shifted) == (4, 255, False)


def test_names_that_begin_at_label_1():
    with pytest.raises(UserError, match='names begin at 1, add --ignore-index 0'):
        classes(range(12), CAMVID[:11])
    found = classes(range(12), CAMVID[:11], 0)
    assert (found.names, found.ignore, found.shifted) == (CAMVID[:11], 255, True)
    assert 'Class n is the label n + 1' in found.note
    with pytest.raises(UserError, match='11 classes allow 0 to 10'):
        classes(range(13), CAMVID[:11], 0)


def test_classes_in_one_line(tmp_path):
    (tmp_path / 'classes.txt').write_text('sky, road, car\n')
    with pytest.raises(UserError, match='all classes in one line; expected a line for each'):
        classes(range(3), folder=tmp_path)


def test_a_class_in_the_middle_keeps_its_number(capsys):
    found = classes(range(4), ['a', 'b', 'void', 'c'])
    assert (found.names, found.ignore, found.shifted) == (['a', 'b', 'void', 'c'], 2, False)
    assert 'keeps its number' in found.note
    assert not capsys.readouterr().err  # nothing trains it, as was asked for


@pytest.mark.parametrize(('labels', 'names', 'ignore', 'message'), [
    (range(12), CAMVID[:11], None, r'has the label 11; 11 classes allow 0 to 10 and 255 .*; if 11 '
     r'does not count, add --ignore-index 11; else name all 12 labels in /data/classes.txt'),
    ([*range(12), 255], CAMVID[:11], None, 'if 11 does not count either, write 255 in its place'),
    (range(13), CAMVID[:11], None, 'labels found: .*; name all 13 labels in'),
    (range(4), ['void', 'a', 'b', 'unlabelled'], None, r'0 \(void\), 3 \(unlabelled\) say .* but '
     'only one label can be .* --ignore-index 0, with which'),
    ([*range(12), 255], CAMVID, None, r'hold 11 \(unlabelled\) and 255 .* write 255 instead of 11, '
     'or train 11 as a class with --ignore-index 255'),
    ([0, 1], ['road', 'void'], None, 'Only road is left, .* use --ignore-index 255'),
    ([0, 255], ['a', 'b', 'c'], None, 'hold 0 and 255 only, so that one of 3 classes'),
    ([0, 50, 100], None, None, '0, 50, 100 .*: renumber them'),
    ([0, 1, 100], None, None, 'if 100 does not count, add --ignore-index 100; else renumber'),
])  # fmt: skip
def test_questions(labels, names, ignore, message):
    with pytest.raises(UserError, match=message):
        classes(labels, names, ignore)


def test_what_has_no_names_is_asked(capsys):
    """Nothing says that 11 is CamVid's unlabelled one."""
    assert len(classes(range(12)).names) == 12
    err = capsys.readouterr().err
    assert 'if one of 0 to 11 means unlabelled, add --ignore-index NUMBER' in err
    classes([*range(12), 255])
    assert '--ignore-index' not in capsys.readouterr().err
