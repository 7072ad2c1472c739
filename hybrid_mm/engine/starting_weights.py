"""Weights that a training starts from, which may be those of a part of its model."""

from torch import Tensor, nn

from hybrid_mm.checkpoints import CheckpointError, not_converted, readings
from hybrid_mm.convert.core import misfit
from hybrid_mm.errors import shorten
from hybrid_mm.ops.fitted_weights import fitted_weights

StateDict = dict[str, Tensor]


def starting_weights(
    model: nn.Module, weights: StateDict, path: str, source: str | None = None
) -> tuple[StateDict, str, int]:
    """Find the reading of a file in which most of its tensors fit a model.

    Tables that are made for another size of the image are resized, see
    :mod:`hybrid_mm.ops.fitted_weights`.

    A file is read as it is, in the layout of an official repository that ``convert`` knows, as a
    backbone alone, and as a backbone with the head of a classifier. Integers (indices, counters of
    batch norms) fit many models and do not count.

    Args:
        model: Without wrappers.
        weights: Content of the file.
        path: The file, for messages.
        source: Layout of a file that was converted when it was loaded, for messages.

    Returns:
        The weights under the names of the model, one line that says what is loaded, and the number
        of the model's tensors that are not.

    Raises:
        CheckpointError: No tensor fits; names the first keys of both. Or a table does not say what
            size it was made for. Or some fit, but the file is of an official layout and has a key
            that this layout does not have.
    """
    own = _numbers(model.state_dict())
    try:
        fitted = [(*fitted_weights(model, w), how) for w, how in readings(weights, own)]
    except ValueError as error:
        raise CheckpointError(path, f'cannot be used: {error}') from error
    found, changes, how = max(fitted, key=lambda reading: len(_fitting(reading[0], own)))
    fitting = _fitting(found, own)
    if not fitting:
        other = misfit(weights, own, type(model).__name__, source)
        raise CheckpointError(
            path,
            f'has nothing that fits this model ({type(model).__name__}): the file has '
            f'{shorten(list(weights), 3)}, the model {shorten(list(own), 3)}'
            + (f'. {other}' if other else ''),
        )
    other = [key for key in own if key in found and key not in fitting]
    absent = [key for key in own if key not in found]
    if absent and (problem := not_converted(weights)):  # names that agree may mean other things
        raise CheckpointError(path, f'cannot be used: {problem}')
    if changes:
        how += f' ({changes})'
    unused = [key for key in _numbers(found) if key not in own]
    text = f'load_from {path}{how}: {len(fitting)} of {len(own)} tensors of the model loaded'
    reasons = [(other, 'of another shape'), (absent, 'not in the file')]
    if other or absent:
        why = '; '.join(f'{len(k)} {what}: {shorten(k, 3)}' for k, what in reasons if k)
        text += f', {len(other) + len(absent)} keep their initial values ({why})'
    if unused:
        text += f', {len(unused)} of the file unused ({shorten(unused, 3)})'
    return found, text, len(other) + len(absent)


def _numbers(state: StateDict) -> StateDict:
    return {key: value for key, value in state.items() if value.is_floating_point()}


def _fitting(weights: StateDict, own: StateDict) -> set[str]:
    """Keys of a model whose tensors are in a file with the same shape."""
    return {key for key in own if key in weights and weights[key].shape == own[key].shape}
