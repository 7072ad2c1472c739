"""The one reader of checkpoints: files, the weights in them, and whether they fit a model.

``--resume``, ``load_from``, ``init_cfg=dict(type='Pretrained')`` and every tool that takes a
checkpoint read it here, so that all of them know the same containers and raise the same errors.
"""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any, cast

from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from hybrid_mm.convert import differences, unwrap
from hybrid_mm.errors import UserError, plain_text, shorten

_READ_ERRORS = (
    *(RuntimeError, OSError, EOFError, KeyError, ValueError),
    *(pickle.UnpicklingError, zipfile.BadZipFile),
)


class CheckpointError(UserError):
    """A checkpoint that cannot be used.

    Args:
        path: File or URL.
        reason: What is wrong with it, as the predicate of a sentence.

    Attributes:
        reason: The message without the name of the file.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f'checkpoint {path} {reason}')
        self.reason = reason


class MissingCheckpointError(CheckpointError):
    """A checkpoint that does not exist.

    Attributes:
        beside: Phrase that names the checkpoints in the folder of the missing one, or empty.
    """

    def __init__(self, path: str) -> None:
        folder = Path(path).expanduser().parent
        found = sorted(file.name for file in folder.glob('*.pth')) if folder.is_dir() else []
        self.beside = f'; {folder} has {shorten(found)}' if found else ''
        super().__init__(path, f'does not exist{self.beside}')


def check_exists(path: str) -> None:
    """Check that a checkpoint exists, unless it is a URL.

    Raises:
        MissingCheckpointError: It does not; names the checkpoints in its folder.
    """
    if '://' not in path and not os.path.isfile(os.path.expanduser(path)):
        raise MissingCheckpointError(path)


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint (.pth, .safetensors) onto the CPU.

    Raises:
        MissingCheckpointError: It does not exist.
        CheckpointError: It is truncated, or not a checkpoint.
    """
    check_exists(path)
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except CheckpointError:
        raise
    except _READ_ERRORS as error:
        size = f'({os.path.getsize(path)} bytes) ' if os.path.isfile(path) else ''
        first = plain_text(error).strip().split('\n')[0] or type(error).__name__
        raise CheckpointError(
            path, f'{size}cannot be read; is it truncated, or not a checkpoint? ({first})'
        ) from error
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            path, f'holds a {type(checkpoint).__name__}; expected a dict of weights'
        )
    return checkpoint


def weights_of(checkpoint: dict[str, Any], path: str) -> dict[str, Tensor]:
    """Weights in a checkpoint; see :func:`hybrid_mm.convert.unwrap` for the containers.

    Raises:
        CheckpointError: There are none.
    """
    try:
        return unwrap(checkpoint)
    except ValueError as error:
        raise CheckpointError(path, f'cannot be used: {error}') from error


def inner_model(model: nn.Module) -> nn.Module:
    """Model without wrappers such as DDP or test-time augmentation."""
    while isinstance(getattr(model, 'module', None), nn.Module):
        model = cast(nn.Module, model.module)
    return model


def without_left_out(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights but those of stages that the backbones of a model do without."""
    backbones = [(f'{name}.' if name else '', m) for name, m in model.named_modules()]
    backbones = [(prefix, m) for prefix, m in backbones if hasattr(m, 'leaves_out')]
    return {
        key: value
        for key, value in weights.items()
        if not any(
            key.startswith(prefix) and module.leaves_out(key[len(prefix) :])
            for prefix, module in backbones
        )
    }


def check_weights(model: nn.Module, checkpoint: dict[str, Any], path: str) -> dict[str, Tensor]:
    """Check that the keys and shapes of a checkpoint are those of a model (wrappers aside).

    Returns:
        The weights.

    Raises:
        CheckpointError: Names the first missing, unexpected and mis-shaped keys.
    """
    model, weights = inner_model(model), weights_of(checkpoint, path)
    weights = without_left_out(model, weights)
    found = differences(model.state_dict(), weights)
    if found:
        raise CheckpointError(
            path, f'is not one of this model ({type(model).__name__}):\n  ' + '\n  '.join(found)
        )
    return weights


def load_weights(model: nn.Module, checkpoint: dict[str, Any], path: str) -> None:
    """Load the weights of a checkpoint strictly; see :func:`check_weights`."""
    weights = check_weights(model, checkpoint, path)
    inner_model(model).load_state_dict(weights, strict=False)


def load_from_safetensors(filename: str, map_location: Any = None) -> dict[str, Tensor]:
    """Read a local file of safetensors onto the CPU, as MMEngine's loaders read other files."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ModuleNotFoundError as error:
        raise CheckpointError(
            filename, 'needs the package safetensors; pip install safetensors'
        ) from error
    try:
        return load_file(os.path.expanduser(filename))
    except SafetensorError as error:
        raise RuntimeError(str(error)) from error


# a regular expression; the loaders of URLs and of other local files are those of `compat`
CheckpointLoader.register_scheme(r'(?!.*://).*\.safetensors$', load_from_safetensors, force=True)
