"""Files of digests: written, read, compared.

A digest has sections (a config, a variant of a network), and a section has lines ``key: value``. A
section that resembles an earlier one says ``as NAME`` and has what differs; what it lacks is
``absent``. Within a section ``key: as OTHER`` stands for all lines below another key, except those
that follow (``without``: the line is missing here).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
COMMAND = 'python tools/dev/digests.py'
SHOWN = 60
"""Differences that a message tells."""
SHORT = 12
"""Lines up to which a section refers to no other."""
LOOSE, TOLERANCE = 'initial.', 2e-3
"""Keys whose numbers may differ, and by which part."""

Section = dict[str, str]
Digest = dict[str, Section]

TWINS = (
    ('backbone', 'model.backbone'),
    ('test_cfg', 'val_cfg'),
    ('test_dataloader', 'val_dataloader'),
    ('test_evaluator', 'val_evaluator'),
    ('test_pipeline', 'val_dataloader.dataset.pipeline'),
    ('train_pipeline', 'train_dataloader.dataset.pipeline'),
    ('train_pipeline', 'train_dataloader.dataset.dataset.pipeline'),
    ('vis_backends', 'visualizer.vis_backends'),
)
"""Keys of configs whose values are mostly those of others."""


def path_of(name: str) -> Path:
    """File of a digest such as ``configs/van``."""
    return HERE / f'{name}.txt'


def _below(section: Section, key: str) -> dict[str, str]:
    """Values below a key, by the rest of their keys."""
    n = len(key)
    return {k[n:]: v for k, v in section.items() if k.startswith(key) and k[n : n + 1] in '.['}


def _fold(section: Section) -> Section:
    """Leave out what a key has in common with its twin."""
    section = dict(section)
    for key, other in TWINS:
        mine, theirs = _below(section, key), _below(section, other)
        same = {rest for rest in mine if theirs.get(rest) == mine[rest]}
        if not same or len(same) < len(theirs) / 2:
            continue
        for rest in same:
            del section[key + rest]
        section.update({key + rest: 'without' for rest in theirs.keys() - mine.keys()})
        section[key] = f'as {other}'
    return section


def _unfold(section: Section) -> Section:
    section = dict(section)
    for key, other in TWINS:
        if section.get(key) == f'as {other}':
            del section[key]
            below = {key + rest: value for rest, value in _below(section, other).items()}
            section = below | section
    return {key: value for key, value in section.items() if value != 'without'}


def _change(old: Section, new: Section) -> Section:
    changed = {key: value for key, value in new.items() if old.get(key) != value}
    return changed | dict.fromkeys(old.keys() - new.keys(), 'absent')


def _natural(key: str) -> list:
    """Order of keys: numbers by value, an object's type before the rest."""
    parts = key.replace('[', '.[').split('.')
    return [
        (0, int(part[1:-1]), '')
        if part.startswith('[') and part[1:-1].isdigit()
        else (1, part != 'type', part)
        for part in parts
    ]


def encode(digest: Digest, title: str, before: str | None = None) -> str:
    """Text of a digest.

    Args:
        digest: What to write.
        title: What the file is about.
        before: Text of the file so far, whose choice of resembling sections is kept if it is good.
    """
    kept = _references(before or '')
    folded = {name: _fold(section) for name, section in digest.items()}
    lines = [f'# {title}', f'# Written by `{COMMAND}`; see docs/contributing.md.']
    earlier: list[str] = []
    for name, section in folded.items():
        changes = {other: _change(folded[other], section) for other in earlier}
        best = min(changes, key=lambda other: len(changes[other]), default=None)
        former = kept.get(name)
        if best and former in changes and len(changes[former]) <= len(changes[best]) + 8:
            best = former
        lines += ['', f'[{name}]']
        if best and len(section) > SHORT and len(changes[best]) < 0.6 * len(section):
            lines.append(f'as {best}')
            section = changes[best]
        lines += [f'{key}: {section[key]}' for key in sorted(section, key=_natural)]
        earlier.append(name)
    return '\n'.join(lines) + '\n'


def _sections(text: str) -> Iterator[tuple[str, list[str]]]:
    name, lines = None, []
    for line in text.splitlines():
        if line.startswith('[') and line.endswith(']'):
            if name is not None:
                yield name, lines
            name, lines = line[1:-1], []
        elif name is not None and line:
            lines.append(line)
    if name is not None:
        yield name, lines


def _references(text: str) -> dict[str, str]:
    return {
        name: lines[0][3:] for name, lines in _sections(text) if lines and lines[0][:3] == 'as '
    }


def decode(text: str) -> Digest:
    """Digest of a text."""
    folded: Digest = {}
    for name, lines in _sections(text):
        section: Section = {}
        if lines and lines[0].startswith('as '):
            section, lines = folded[lines[0][3:]], lines[1:]
        section = section | dict(line.split(': ', 1) for line in lines)
        folded[name] = {key: value for key, value in section.items() if value != 'absent'}
    return {name: _unfold(section) for name, section in folded.items()}


def _close(old: str, new: str) -> bool:
    """Whether two lines of numbers (and words, which must be equal) agree."""
    words = old.split(), new.split()
    if len(words[0]) != len(words[1]):
        return False
    for a, b in zip(*words, strict=True):
        if a != b:
            try:
                x, y = float(a), float(b)
            except ValueError:
                return False
            if abs(x - y) > TOLERANCE * max(abs(x), abs(y)):
                return False
    return True


def differences(stored: Digest, found: Digest) -> list[str]:
    """What differs, each change told once with the sections that have it.

    Args:
        stored: The digest of the file.
        found: The digest of the code.
    """
    changes: dict[tuple[str, str, str], list[str]] = {}
    lines = [f'{name}: gone' for name in stored if name not in found]
    lines += [f'{name}: new' for name in found if name not in stored]
    for name in (name for name in stored if name in found):
        old, new = stored[name], found[name]
        for key in sorted({key for key, _ in old.items() ^ new.items()}, key=_natural):
            a, b = old.get(key, 'absent'), new.get(key, 'absent')
            if not (key.startswith(LOOSE) and _close(a, b)):
                changes.setdefault((key, a, b), []).append(name)
    for (key, a, b), names in changes.items():
        more = f' and {len(names) - 3} more' if len(names) > 4 else ''
        names = ', '.join(names[:3] if more else names)
        lines += [f'{names}{more}', f'    {key}', f'        - {a}', f'        + {b}']
    return lines


def read(name: str) -> Digest:
    path = path_of(name)
    return decode(path.read_text()) if path.exists() else {}


def report(name: str, found: Digest) -> str:
    """Message about the differences from the stored file; empty if there are none."""
    lines = differences(read(name), found)
    if not lines:
        return ''
    if len(lines) > 4 * SHOWN:
        lines[4 * SHOWN :] = [f'... and {len(lines) - 4 * SHOWN} lines more']
    first = f'tests/digests/{name}.txt (-) and the code (+) differ:'
    last = f'If it is meant, write the file with `{COMMAND} {name}`.'
    return '\n'.join([first, *lines, last])


def compare(name: str, found: Digest) -> None:
    """Fail with the differences, if there are any."""
    message = report(name, found)
    if message:
        pytest.fail(message, pytrace=False)


def write(name: str, found: Digest, title: str) -> None:
    """Write the file of a digest."""
    path = path_of(name)
    before = path.read_text() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(encode(found, title, before))


def names() -> set[str]:
    """Digests that have a file."""
    return {path.relative_to(HERE).with_suffix('').as_posix() for path in HERE.glob('*/*.txt')}
