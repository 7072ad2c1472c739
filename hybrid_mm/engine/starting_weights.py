"""Weights that a training starts from, which may be those of a part of its model."""

from collections.abc import Iterator

from torch import Tensor, nn

from hybrid_mm.checkpoints import CheckpointError
from hybrid_mm.convert import convert, detect
from hybrid_mm.convert.core import misfit
from hybrid_mm.errors import shorten

StateDict = dict[str, Tensor]

# linear layer of a classifier beside our backbone, see ``convert``; MMPretrain calls it head.fc
_HEAD = {f'head.{key}': f'head.fc.{key}' for key in ('weight', 'bias')}


def starting_weights(model: nn.Module, weights: StateDict, path: str) -> tuple[StateDict, str, int]:
    """Find the reading of a file in which most of its tensors fit a model.

    A file is read as it is, in the layout of an official repository that ``convert`` knows, as a
    backbone alone, and as a backbone with the linear layer of a classifier. Integers (indices,
    counters of batch norms) fit many models and do not count.

    Args:
        model: Without wrappers.
        weights: Content of the file.
        path: The file, for messages.

    Returns:
        The weights under the names of the model, one line that says what is loaded, and the number
        of the model's tensors that are not.

    Raises:
        CheckpointError: No tensor fits; names the first keys of both.
    """
    own = _numbers(model.state_dict())
    found, how = max(_readings(weights, own), key=lambda reading: len(_fitting(reading[0], own)))
    fitting = _fitting(found, own)
    if not fitting:
        other = misfit(weights, own, type(model).__name__)
        raise CheckpointError(
            path,
            f'has nothing that fits this model ({type(model).__name__}): the file has '
            f'{shorten(list(weights), 3)}, the model {shorten(list(own), 3)}'
            + (f'. {other}' if other else ''),
        )
    other = [key for key in own if key in found and key not in fitting]
    absent = [key for key in own if key not in found]
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


def _readings(weights: StateDict, own: StateDict) -> Iterator[tuple[StateDict, str]]:
    """A file under the names of a model, in every way that is tried, with words for it."""
    # MMEngine removes the prefix of every key, not of all or none
    plain = {key.removeprefix('module.'): value for key, value in weights.items()}
    ways = [(plain, '')]
    try:
        source = detect(plain)
        if source:
            ways.append((convert(plain, source), f' (layout {source})'))
    except ValueError:  # of several layouts, or with keys that none of them has
        pass
    for state, how in ways:
        yield state, how
        if any(key.startswith('backbone.') for key in own):
            inner = {f'backbone.{key}': value for key, value in state.items()}
            yield inner, f'{how} (the backbone alone)'
            found = {_HEAD.get(key, f'backbone.{key}'): value for key, value in state.items()}
            yield found, f'{how} (classifier)'
