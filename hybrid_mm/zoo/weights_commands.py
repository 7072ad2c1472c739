"""``python -m hybrid_mm weights get`` and ``check``: files of published weights."""

import argparse
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
from hybrid_mm.weights import SCHEME, PublishedFile, all_weights, find_weights
from hybrid_mm.weights.finding import weights_file
from hybrid_mm.weights.identify import describe
from hybrid_mm.zoo.weights_list import plain

WILDCARDS = frozenset('*?[')
_SUFFIXES = ('.safetensors', '.npz')  # kept; all other files are found as .pth


def weights_command(args: argparse.Namespace) -> int:
    """Run ``get`` or ``check``; its exit status."""
    if args.action == 'get':
        return get_weights(args.names, args.to, args.auto)
    return check_files(args.files)


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
            print(f'error: {plain(error)}', file=sys.stderr)
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
            print(f'error: {plain(error)}', file=sys.stderr)
    return int(failed > 0)
