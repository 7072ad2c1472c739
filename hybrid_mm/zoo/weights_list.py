"""``python -m hybrid_mm weights list`` and ``path``: published weights, and where they are."""

import json
import os
import sys
from pathlib import Path

from hybrid_mm.checkpoint_files import CheckpointError
from hybrid_mm.errors import UserError, nearest
from hybrid_mm.weights import PublishedFile, Weights, all_weights, find_weights
from hybrid_mm.weights.finding import WeightsError, weights_file
from hybrid_mm.zoo.listing import matches, show, shown_path


def place_of(weights: Weights) -> Path | None:
    """File of weights on this machine, or None. Nothing is downloaded."""
    try:
        return weights_file(weights.name, download=False)[0]
    except CheckpointError:
        return None


def row_of(weights: Weights) -> dict:
    """What is known of weights, as a row of the table and of the JSON output.

    Size and licence are those of the file that would be taken, the first of the list.
    """
    first = weights.files[0] if weights.files else None
    place = place_of(weights)
    return dict(
        name=weights.name,
        tree=weights.tree,
        case=weights.case,
        size=first and first.size,
        metrics=dict(weights.metrics),
        licence=(first and first.licence) or None,
        trained_by=weights.trained_by or None,
        unpublished=weights.unpublished or None,
        files=[_file_row(file) for file in weights.files],
        here=None if place is None else str(place),
    )


def _file_row(file: PublishedFile) -> dict:
    return dict(
        name=file.name or None,
        addresses=list(file.urls),
        page=file.page or None,
        layout=file.layout,
        source=file.source,
    )


def list_weights(pattern: str, as_json: bool) -> None:
    """Print the weights that match a pattern.

    Args:
        pattern: Words, each of which has to be in the name, the tree, the case or the licence.
        as_json: Print JSON instead of a table.

    Raises:
        UserError: Nothing matches.
    """
    known = all_weights()
    found = [
        weights
        for weights in known.values()
        if matches(pattern, weights.name, weights.tree, weights.case, *_licences(weights))
    ]
    if not found:
        hint = nearest(pattern, {*known, *(weights.tree for weights in known.values())})
        raise UserError(f'no published weights match {pattern!r}{hint}')
    rows = [row_of(weights) for weights in found]
    if as_json:
        print(json.dumps(dict(weights=rows), indent=1))
        return
    lines = [
        (
            row['name'],
            row['case'],
            megabytes(row['size'] if row['here'] is None else Path(row['here']).stat().st_size),
            accuracy(row['metrics']),
            row['licence'] or '',
            '' if row['here'] is None else shown_path(row['here']),
        )
        for row in rows
    ]
    note = (
        'automatic: downloaded when first needed. manual: to be downloaded by hand. ours to train: '
        'not published; one of our configs trains them. unpublished: neither. Accuracies as '
        'reported.'
    )
    head = ('weights', 'case', 'MB', 'accuracy', 'licence', 'here')
    show(f'{len(rows)} weights', head, lines, note)


def _licences(weights: Weights) -> list[str]:
    return [file.licence for file in weights.files if file.licence]


def megabytes(size: int | None) -> str:
    """Text of a number of bytes in megabytes; empty if it is not known."""
    return '' if size is None else f'{size / 1e6:.1f}'


def accuracy(metrics: dict[str, float]) -> str:
    """Text of reported accuracies; halves are rounded up, as papers do: 79.55 is 79.6."""
    return ', '.join(f'{name} {value + 1e-6:.1f}' for name, value in metrics.items())


def print_path(name: str) -> int:
    """Print where the file of weights is on this machine; status 1 if it is not.

    Raises:
        UserError: There are no weights of this name.
    """
    weights = find_weights(name)
    try:
        print(os.path.abspath(weights_file(weights.name, download=False)[0]))
    except CheckpointError as error:
        print(f'error: {plain(error)}', file=sys.stderr)
        return 1
    return 0


def plain(error: CheckpointError) -> str:
    """Text of an error without options of a config, which there is none of."""
    return error.plain if isinstance(error, WeightsError) else str(error)
