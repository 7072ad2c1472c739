"""Loading of weights by name, for MMEngine's loaders of checkpoints."""

import shlex
from typing import Any

from mmengine.logging import print_log

from hybrid_mm.checkpoint_files import CheckpointError, load_from_local
from hybrid_mm.convert import convert, detect
from hybrid_mm.convert.core import StateDict
from hybrid_mm.errors import plain_text
from hybrid_mm.weights.contents import weights_of
from hybrid_mm.weights.finding import download_again, weights_file
from hybrid_mm.weights.registry import OURS, SCHEME, PublishedFile, find_weights


def load_by_name(filename: str, map_location: Any = None, **unused: Any) -> dict[str, Any]:
    """Load published weights in our layout, ``hybrid_mm://NAME``; the log says from which file.

    Args:
        filename: ``hybrid_mm://NAME``.
        map_location: Device of the tensors, as of ``torch.load``.
        **unused: What MMEngine's loaders hand over as well.

    Returns:
        A checkpoint with ``state_dict`` and ``meta``; the head of a classifier is called ``head.``.

    Raises:
        UserError: There are no weights of this name.
        CheckpointError: The file cannot be had, or is not what it should be.
    """
    name = filename.removeprefix(SCHEME)
    path, published = weights_file(name)
    try:
        loaded = load_from_local(str(path), map_location)
    except CheckpointError:
        if published is None or not download_again(path, published):
            raise
        loaded = load_from_local(str(path), map_location)
    state = weights_of(loaded, str(path), published.key if published else None)
    try:
        state, source = _convert(state, name, published)
    except ValueError as error:
        raise CheckpointError(
            str(path),
            f'cannot be used for {SCHEME}{name}: {plain_text(error)}. '
            f'`python -m hybrid_mm weights check {shlex.quote(str(path))}` says what it is',
        ) from error
    print_log(f'{SCHEME}{name}: read from {path}, {_origin(published, source)}', 'current')
    own = loaded.get('meta') if isinstance(loaded.get('meta'), dict) else {}  # its classes
    meta = dict(own, weights=name, file=str(path), source=published.layout if published else source)
    return dict(state_dict=state, meta=meta)


def _convert(
    state: StateDict, name: str, published: PublishedFile | None
) -> tuple[StateDict, str | None]:
    """The weights of a file in our layout, and the layout of the file, if it is another one."""
    if published is not None:
        source = None if published.layout == OURS else published.layout
    else:
        # a file of which only the name is known
        layouts = {file.layout for file in find_weights(name).files}
        source = None if layouts == {OURS} else detect(state)  # a network that is not ours stays
        # MMDetection's own ResNets have torchvision's names as well, and keep them
        if source == 'torchvision-resnet' and source not in layouts:
            source = None
    return (state if source is None else convert(state, source)), source


def _origin(published: PublishedFile | None, source: str | None) -> str:
    """Words for where a file comes from."""
    layout = '' if source is None else f', layout {source}'
    if published is None:
        return f'your own file{layout}'
    return f'published at {(published.urls or (published.page,))[0]}{layout}'


load_by_name.__name__ = 'load_from_hybrid_mm'  # MMEngine's log has what follows `load_from_`
