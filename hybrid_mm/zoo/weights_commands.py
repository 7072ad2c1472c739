"""``python -m hybrid_mm weights``: published weights, and their files on this machine."""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from hybrid_mm.checkpoint_files import CheckpointError
from hybrid_mm.checkpoints import read_checkpoint
from hybrid_mm.errors import UserError, nearest, warn
from hybrid_mm.run.config import load_config
from hybrid_mm.run.outputs import check_output_folder, replacing
from hybrid_mm.run.published import needed_weights, published_weights
from hybrid_mm.weights import SCHEME, PublishedFile, Weights, all_weights, find_weights
from hybrid_mm.weights.finding import WeightsError, weights_file
from hybrid_mm.weights.identify import describe
from hybrid_mm.zoo.listing import matches, show, shown_path

WILDCARDS = frozenset('*?[')
_SUFFIXES = ('.safetensors', '.npz')  # kept; all other files are found as .pth


def weights_command(args: argparse.Namespace) -> int:
    """Run a command of ``weights``; its exit status."""
    if args.action == 'get':
        return get_weights(args.names, args.to, args.auto)
    if args.action == 'path':
        return print_path(args.name)
    if args.action == 'check':
        return check_files(args.files)
    list_weights(' '.join(args.pattern), args.json)
    return 0


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


def names_of(arguments: Sequence[str], whole: bool = False) -> Iterator[str]:
    """Names and addresses that arguments of ``weights get`` stand for.

    Args:
        arguments: Names, with or without ``hybrid_mm://``; patterns of names, of which those match
            that can be downloaded; config files, which stand for what their training starts from.
        whole: Config files stand for their own published weights as well.

    Yields:
        Names without ``hybrid_mm://``, and addresses of other weights.

    Raises:
        UserError: There are no such weights, or no such config.
    """
    known = all_weights()
    for argument in arguments:
        if argument.endswith('.py'):
            for address in needed_weights(load_config(argument)):
                yield address.removeprefix(SCHEME)
            own = published_weights(Path(argument).stem) if whole else None
            if own is not None:
                yield own.name
            continue
        name = argument.removeprefix(SCHEME)
        if not WILDCARDS.intersection(name):
            yield find_weights(name).name
            continue
        matching = [known[other] for other in known if fnmatchcase(other, name)]
        if not matching:
            raise UserError(f'no weights are called {argument}{nearest(name, known)}')
        found = [weights.name for weights in matching if weights.case == 'automatic']
        if not found:
            cases = ', '.join(f'{w.name} ({w.case})' for w in matching[:3])
            raise UserError(f'{argument}: none of these weights can be downloaded: {cases}')
        left = len(matching) - len(found)
        if left:
            warn(f'{argument}: {left} of {len(matching)} cannot be downloaded')
        yield from found


def get_weights(arguments: Sequence[str], to: str | None, whole: bool = False) -> int:
    """Download weights that are not on this machine, and print where each of them is.

    What cannot be had is reported, and the others go on.

    Args:
        arguments: See :func:`names_of`.
        to: Folder to copy the files to, for ``HYBRID_MM_WEIGHTS`` of another machine.
        whole: See :func:`names_of`.

    Returns:
        Exit status: 1 if something could not be had.
    """
    names = list(dict.fromkeys(names_of(arguments, whole)))
    folder = None if to is None else check_output_folder(to, '--to')
    if not names:
        print('these configs start from no weights')
    failed = 0
    for name in names:
        try:
            print(f'{name}: {_fetched(name, folder)}', flush=True)
        except CheckpointError as error:
            failed += 1
            print(f'error: {_plain(error)}', file=sys.stderr)
    if failed:
        print(f'{failed} of {len(names)} could not be obtained', file=sys.stderr)
    return int(failed > 0)


def _fetched(name: str, folder: Path | None) -> str:
    """Download weights and copy them to a folder, if there is one; say where they are."""
    if name not in all_weights():  # an address, or a file of the user's
        read_checkpoint(name)
        if '://' not in name:
            return 'your own file'
        kept = "in torch's cache (TORCH_HOME)"
        return kept if folder is None else f'{kept}, not in {folder}: copy that as well'
    path, published = weights_file(name)
    if folder is None:
        return str(path)
    target = folder / _name_in_folder(name, path, published)
    if not (target.is_file() and target.samefile(path)):
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
    return str(target)


def _name_in_folder(name: str, path: Path, published: PublishedFile | None) -> str:
    """Name under which a file is found in a folder of weights: its own, if no other has it."""
    if published is not None and published.name:
        files = ((w.name, file.name) for w in all_weights().values() for file in w.files)
        if {owner for owner, file in files if file == published.name} == {name}:
            return published.name
    return f'{name}{path.suffix if path.suffix in _SUFFIXES else ".pth"}'


def print_path(name: str) -> int:
    """Print where the file of weights is on this machine; status 1 if it is not.

    Raises:
        UserError: There are no weights of this name.
    """
    weights = find_weights(name)
    try:
        print(os.path.abspath(weights_file(weights.name, download=False)[0]))
    except CheckpointError as error:
        print(f'error: {_plain(error)}', file=sys.stderr)
        return 1
    return 0


def check_files(files: Sequence[str]) -> int:
    """Print of which network and in which layout files are.

    Args:
        files: Files, or names of weights that are on this machine.

    Returns:
        Exit status: 1 if one of them cannot be read.
    """
    failed = 0
    for file in files:
        try:
            path = weights_file(file, download=False)[0] if file.startswith(SCHEME) else file
            print(describe(path))
        except CheckpointError as error:
            failed += 1
            print(f'error: {_plain(error)}', file=sys.stderr)
    return int(failed > 0)


def _plain(error: CheckpointError) -> str:
    """Text of an error without options of a config, which there is none of."""
    return error.plain if isinstance(error, WeightsError) else str(error)
