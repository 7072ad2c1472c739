"""The one reader of checkpoints: files, the weights in them, and whether they fit a model.

``--resume``, ``load_from``, ``init_cfg=dict(type='Pretrained')`` and every tool that takes a
checkpoint read it here, so that all of them know the same containers and raise the same errors.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, cast

from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from hybrid_mm import checkpoint_files
from hybrid_mm.checkpoint_files import CheckpointError, file_of_address
from hybrid_mm.convert import as_classifier, convert, detect, differences
from hybrid_mm.convert.core import misfit
from hybrid_mm.errors import UserError, plain_text
from hybrid_mm.ops.fitted_weights import fitted_weights
from hybrid_mm.weights import SCHEME, load_by_name, weights_file
from hybrid_mm.weights.contents import weights_of

__all__ = [
    'check_exists',
    'check_weights',
    'inner_model',
    'load_weights',
    'not_converted',
    'read_checkpoint',
    'readings',
    'source_of',
    'weights_of',
]


def check_exists(path: str) -> None:
    """Check that a checkpoint is there and can be one; download it if it has to be.

    Args:
        path: File, address, or ``hybrid_mm://NAME``. Of other schemes nothing is known.

    Raises:
        MissingCheckpointError: A file does not exist.
        CheckpointError: It is no checkpoint, cannot be downloaded, or nothing loads such a scheme.
        UserError: There are no weights of this name.
    """
    if path.startswith(SCHEME):
        weights_file(path)
    elif path.startswith(('http://', 'https://')):
        file_of_address(path)
    elif '://' in path:
        if CheckpointLoader._get_checkpoint_loader(path) is CheckpointLoader._schemes['']:
            raise CheckpointError(
                path,
                'is neither a file nor of a scheme that can be loaded, such as '
                f'{SCHEME}NAME or https://',
            )
    else:
        checkpoint_files.check_exists(path)


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint (a file, an address, ``hybrid_mm://NAME``) onto the CPU.

    The content of a file tells its format, see :func:`.checkpoint_files.load_from_local`.

    Args:
        path: A file, an http address, or ``hybrid_mm://NAME``.

    Raises:
        MissingCheckpointError: It does not exist.
        CheckpointError: It is truncated, damaged, not a checkpoint, or could run code.
    """
    if not path:
        raise CheckpointError("''", 'has no name; is a variable empty?')
    check_exists(path)
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except UserError:
        raise
    except Exception as error:  # of a download, or of a file that was downloaded
        first = plain_text(error).strip().split('\n')[0] or type(error).__name__
        raise CheckpointError(path, f'cannot be read ({first})') from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            path, f'holds a {type(checkpoint).__name__}; expected a dict of weights'
        )
    return checkpoint


def inner_model(model: nn.Module) -> nn.Module:
    """Model without wrappers such as DDP or test-time augmentation.

    Args:
        model: A model, wrapped or not.
    """
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = cast(nn.Module, model.module)
    return model


def source_of(checkpoint: dict[str, Any]) -> str | None:
    """Layout of the file of weights that were loaded by name, in our layout now; or None.

    Args:
        checkpoint: What :func:`read_checkpoint` returned.
    """
    meta = checkpoint.get('meta')
    return meta.get('source') if isinstance(meta, dict) else None


def readings(
    weights: dict[str, Tensor], own: dict[str, Tensor]
) -> Iterator[tuple[dict[str, Tensor], str]]:
    """A file under the names of a model, in every way that is tried, with words for it.

    Args:
        weights: Content of the file.
        own: Tensors of the model; those of a backbone have the prefix ``backbone.``.
    """
    states = [(_without_wrapper(weights), '')]
    with suppress(ValueError):  # of several layouts, or with keys that none of them has
        states += _converted(weights)
    for state, how in states:
        yield state, how
        if any(key.startswith('backbone.') for key in own):
            inner = {f'backbone.{key}': value for key, value in state.items()}
            yield inner, f'{how} (the backbone alone)'
            yield as_classifier(state), f'{how} (classifier)'


def _without_wrapper(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    # MMEngine removes the prefix of every key, not of all or none
    return {key.removeprefix('module.'): value for key, value in weights.items()}


def _converted(weights: dict[str, Tensor]) -> list[tuple[dict[str, Tensor], str]]:
    """A file of an official layout in ours, with words for it; an empty list for other files."""
    plain = _without_wrapper(weights)
    source = detect(plain)
    return [(convert(plain, source), f' (layout {source})')] if source else []


def not_converted(weights: dict[str, Tensor]) -> str:
    """Why a file of an official layout cannot be brought to ours; empty if it can, or is none.

    Args:
        weights: Weights by key, as in the file.
    """
    try:
        _converted(weights)
    except ValueError as error:
        return plain_text(error)
    return ''


def check_weights(
    model: nn.Module, checkpoint: dict[str, Any], path: str, same_size: bool = False
) -> dict[str, Tensor]:
    """Check that the keys and shapes of a checkpoint are those of a model (wrappers aside).

    Published files are taken in their own layout too: a whole classifier, detector or segmenter,
    or the backbone that the model is; see :func:`readings`.

    Args:
        model: The model.
        checkpoint: Content of the file.
        path: The file, for messages.
        same_size: Take it as it is. By default weights that were made for another size of the image
            are resized, see :mod:`hybrid_mm.ops.fitted_weights`; the state of an optimizer is not.

    Returns:
        The weights under the names of the model.

    Raises:
        CheckpointError: Names the first missing, unexpected and mis-shaped keys of the reading in
            which most tensors fit.
    """
    model, weights = inner_model(model), weights_of(checkpoint, path)
    own = model.state_dict()
    # numbers of tensors of the model that a reading has, of the same shape and of any
    best: tuple[tuple[int, int], list[str], str] = ((-1, 0), [], '')
    for reading, how in readings(weights, own):
        try:
            state, changes = (reading, '') if same_size else fitted_weights(model, reading)
            found = differences(own, state)
        except ValueError as error:  # a table does not say what size it was made for
            state, changes, found = reading, '', [plain_text(error)]
        if not found:
            if changes:
                print_log(f'weights of {path}: {changes}', 'current')
            return state
        named = [key for key in own if key in state]
        fitting = sum(state[key].shape == own[key].shape for key in named)
        if (fitting, len(named)) > best[0]:
            best = (fitting, len(named)), found, how
    (fitting, common), found, how = best
    if problem := not_converted(weights):  # names the key that its layout does not have
        found = [problem, *(found if 2 * fitting > len(own) else ())]
    other = None
    if 2 * common < len(own):
        other = misfit(weights, own, type(model).__name__, source_of(checkpoint))
    found = [other, *found] if other else found
    if fitting == common > 0 and common == sum(key.startswith('backbone.') for key in own):
        found = [
            'weights of the backbone alone: init_cfg of the backbone takes them, for a training; '
            'here, those of the whole model have to be named',
            *found,
        ]
    raise CheckpointError(
        path, f'is not one of this model ({type(model).__name__}){how}:\n  ' + '\n  '.join(found)
    )


def load_weights(model: nn.Module, checkpoint: dict[str, Any], path: str) -> None:
    """Load the weights of a checkpoint strictly; see :func:`check_weights`.

    Args:
        model: Model that gets the weights, in place.
        checkpoint: What :func:`read_checkpoint` returned.
        path: Where it came from, for messages.
    """
    weights = check_weights(model, checkpoint, path)
    inner_model(model).load_state_dict(weights, strict=False)


CheckpointLoader.register_scheme(SCHEME, load_by_name, force=True)
