"""The one reader of checkpoints: files, weights in them, and whether they fit a model."""

import os
import pickle
import zipfile
from pathlib import Path

from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from hybrid_mm.convert import differences, unwrap
from hybrid_mm.errors import UserError, plain_text, shorten

READ_ERRORS = (
    *(RuntimeError, OSError, EOFError, KeyError, ValueError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)


def check_checkpoint_path(path: str) -> None:
    """Check that a checkpoint is there, unless it is a URL.

    Raises:
        UserError: it does not exist; names checkpoints that lie beside it.
    """
    if '://' in path or os.path.isfile(path):
        return
    folder = Path(path).parent
    beside = sorted(file.name for file in folder.glob('*.pth')) if folder.is_dir() else []
    hint = f'; {folder} has {shorten(beside)}' if beside else ''
    raise UserError(f'checkpoint {path} does not exist{hint}')


def read_checkpoint(path: str) -> dict:
    """Read a checkpoint onto the CPU.

    Raises:
        UserError: it does not exist, is truncated, or is no checkpoint.
    """
    check_checkpoint_path(path)
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except READ_ERRORS as error:
        size = f' ({os.path.getsize(path)} bytes)' if os.path.isfile(path) else ''
        first = plain_text(error).strip().split('\n')[0]
        raise UserError(
            f'checkpoint {path}{size} cannot be read; is it truncated, or no checkpoint? ({first})'
        ) from error
    if not isinstance(checkpoint, dict):
        raise UserError(
            f'checkpoint {path} holds a {type(checkpoint).__name__}; expected a dict of weights'
        )
    return checkpoint


def inner_model(model: nn.Module) -> nn.Module:
    """Model without wrappers such as DDP or test-time augmentation."""
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = model.module
    return model


def weights_of(checkpoint: dict, path: str) -> dict[str, Tensor]:
    """Weights in a checkpoint; see :func:`hybrid_mm.convert.unwrap`.

    Raises:
        UserError: there are none.
    """
    try:
        return unwrap(checkpoint)
    except ValueError as error:
        raise UserError(f'checkpoint {path}: {error}') from error


def check_weights(model: nn.Module, checkpoint: dict, path: str) -> dict[str, Tensor]:
    """Check that the keys and shapes of a checkpoint are those of a model (wrappers aside).

    Returns:
        The weights.

    Raises:
        UserError: names the first missing, unexpected and mis-shaped keys.
    """
    model, weights = inner_model(model), weights_of(checkpoint, path)
    found = differences(model.state_dict(), weights)
    if found:
        raise UserError(
            f'checkpoint {path} is not one of this model ({type(model).__name__}):\n  '
            + '\n  '.join(found)
        )
    return weights


def load_weights(model: nn.Module, checkpoint: dict, path: str) -> None:
    """Load the weights of a checkpoint strictly; see :func:`check_weights`."""
    weights = check_weights(model, checkpoint, path)
    inner_model(model).load_state_dict(weights, strict=False)
