"""The one reader of checkpoints: files, the weights in them, and whether they fit a model.

``--resume``, ``load_from``, ``init_cfg=dict(type='Pretrained')`` and every tool that takes a
checkpoint read it here, so that all of them know the same containers and raise the same errors.
"""

from typing import Any, cast

from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from hybrid_mm.checkpoint_files import CheckpointError, MissingCheckpointError, check_exists
from hybrid_mm.convert import differences, unwrap
from hybrid_mm.convert.core import averages, container, misfit
from hybrid_mm.errors import UserError, plain_text, warn
from hybrid_mm.weights import SCHEME, load_by_name

__all__ = [
    'CheckpointError',
    'MissingCheckpointError',
    'check_exists',
    'check_weights',
    'inner_model',
    'load_weights',
    'read_checkpoint',
    'weights_of',
    'without_left_out',
]

_told: set[str] = set()  # files whose averages were named


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint, also ``hybrid_mm://NAME``, onto the CPU.

    The content of a file tells its format, see ``load_from_local``.

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


def weights_of(checkpoint: dict[str, Any], path: str, key: str | None = None) -> dict[str, Tensor]:
    """Weights in a checkpoint; see :func:`hybrid_mm.convert.unwrap` for the containers.

    Of a file that holds weights and their averages over the training, the weights are taken, with
    a warning; checkpoints of MMEngine, whose ``EMAHook`` finds its own, aside.

    Raises:
        CheckpointError: There are none.
    """
    try:
        found = unwrap(checkpoint, key)
    except ValueError as error:
        raise CheckpointError(path, f'cannot be used: {error}') from error
    others = averages(checkpoint) if key is None and 'meta' not in checkpoint else []
    if others and path not in _told:
        _told.add(path)
        warn(
            f'checkpoint {path} has averaged weights too: those of {container(checkpoint)!r} are '
            f'taken; python tools/convert_checkpoint.py --key {others[0]} takes the others'
        )
    return found


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
        other = misfit(weights, model.state_dict(), type(model).__name__)
        found = [other, *found] if other else found
        raise CheckpointError(
            path, f'is not one of this model ({type(model).__name__}):\n  ' + '\n  '.join(found)
        )
    return weights


def load_weights(model: nn.Module, checkpoint: dict[str, Any], path: str) -> None:
    """Load the weights of a checkpoint strictly; see :func:`check_weights`."""
    weights = check_weights(model, checkpoint, path)
    inner_model(model).load_state_dict(weights, strict=False)


CheckpointLoader.register_scheme(SCHEME, load_by_name, force=True)
