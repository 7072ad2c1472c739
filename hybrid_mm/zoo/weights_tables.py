"""Published weights as Markdown: for the READMEs of the trees and for docs/weights.md."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from hybrid_mm.convert import SOURCES
from hybrid_mm.weights import Weights
from hybrid_mm.zoo.recipe_tables import table
from hybrid_mm.zoo.weights_list import accuracy, megabytes

CASES = {
    'automatic': 'downloaded when first needed',
    'manual': 'published, but has to be downloaded by hand to `checkpoints/NAME.pth`',
    'ours to train': 'not published; one of our configs trains them',
    'unpublished': 'not published, and none of our configs trains them',
}

Link = Callable[[str], str]
"""Gives the Markdown link of a config by its name."""


def file_link(weights: Weights) -> str:
    """Link to the file that is taken, or to the page on which it is; empty if there is none."""
    if not weights.files:
        return ''
    first = next((file for file in weights.files if file.urls), weights.files[0])
    return f'[{_cell(first.name or "page")}]({first.urls[0] if first.urls else first.page})'


def of_tree(weights: Iterable[Weights], users: Mapping[str, int], link: Link) -> str:
    """Table of the weights that the configs of a tree start from.

    Args:
        weights: The weights.
        users: Number of configs that start from them, by name.
        link: Link to the config that trains weights.
    """
    head = ['hybrid_mm://', 'Case', *_DETAILS, 'Used by', 'Trained by']
    rows = [
        [
            f'`{w.name}`',
            w.case,
            *_details(w),
            f'{users[w.name]} config{"s" * (users[w.name] != 1)}' if users.get(w.name) else '',
            link(w.trained_by) if w.trained_by else '',
        ]
        for w in weights
    ]
    return _filled(head, rows)


def of_page(weights: Iterable[Weights], link: Callable[[str, str], str]) -> str:
    """For the page of a paper: a table of the files, and what nobody published.

    Args:
        weights: The weights.
        link: Link to the config that trains weights, with the text that is given.
    """
    rows, absent = [], []
    for w in weights:
        file, size, checksum, _, licence = _details(w)
        name = f'`{w.name}`'
        if file:
            by_hand = ', download it yourself' * (w.case == 'manual')
            rows.append([name, file + by_hand, size, checksum, licence])
        else:
            absent.append(link(w.trained_by, name) if w.trained_by else name)
    head = ['Weights', 'File', 'MB', 'SHA-256', 'Licence']
    text = _filled(head, rows) if rows else ''
    if absent:
        text += '\n' * bool(rows) + 'Not published, with the configs that train them: '
        text += ', '.join(absent) + '.\n'
    return text


def _filled(head: list[str], rows: list[list[str]]) -> str:
    """A table of the columns in which something stands."""
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    return table([head[i] for i in kept], [[row[i] for i in kept] for row in rows])


_DETAILS = ('File', 'MB', 'SHA-256', 'Accuracy', 'Licence')


def _details(weights: Weights) -> list[str]:
    """Cells of file, size, beginning of the checksum, accuracy and licence."""
    first = weights.files[0] if weights.files else None
    return [
        file_link(weights),
        megabytes(first.size) if first else '',
        f'`{first.sha256[:8]}`' if first and first.sha256 else '',
        accuracy(weights.metrics),
        _cell(first.licence) if first else '',
    ]


def overview(known: Mapping[str, Weights], link: Link, tree: Link) -> str:
    """All weights: how many there are of each case, and a table of each kind.

    Args:
        known: The registry.
        link: Link to a config.
        tree: Link to the README of a tree.
    """
    kinds = (
        ('Backbones and classifiers', [w for w in known.values() if w.of_backbone]),
        ('Detectors and segmenters', [w for w in known.values() if not w.of_backbone]),
    )
    counts = [Counter(w.case for w in found) for _, found in kinds]
    parts = [
        table(
            ['Case', '', *(title for title, _ in kinds)],
            [[case, text, *(count[case] for count in counts)] for case, text in CASES.items()],
        )
    ]
    head = ['hybrid_mm://', 'Tree', 'Case', *_DETAILS]
    for title, found in kinds:
        rows = [[f'`{w.name}`', tree(w.tree), w.case, *_details(w)] for w in found]
        parts.append(f'### {title}\n\n' + _filled(head, rows))
    absent = [w for w in known.values() if not w.files]
    parts.append(
        '### What is not published\n\n'
        + table(
            ['hybrid_mm://', 'Evidence', 'Trained by'],
            [
                [f'`{w.name}`', _cell(w.unpublished), link(w.trained_by) if w.trained_by else '']
                for w in absent
            ],
        )
    )
    return '\n'.join(parts)


def layouts() -> str:
    """Table of the layouts that are read."""
    return table(
        ['Layout', 'Files'],
        [[f'`{name}`', _cell(source.description)] for name, source in sorted(SOURCES.items())],
    )


def _cell(text: str) -> str:
    return ' '.join(text.split()).replace('|', '\\|').replace('<', '&lt;')
