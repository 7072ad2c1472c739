"""Weights of a network for images of three channels, spread over another number of channels."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ['check_mapping', 'inflated', 'other_channels']

COLOURS = 3


def other_channels(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, int]:
    """Weights that take three channels of an image in a file, and another number in a model.

    Args:
        own: State dict of the model.
        state: State dict of the file, under the names of the model.

    Returns:
        Number of channels in the model, by key: of one convolution in most networks.
    """
    return {
        key: weight.shape[1]
        for key, weight in own.items()
        if weight.ndim == 4
        and getattr(state.get(key), 'ndim', 0) == 4
        and state[key].shape[0] == weight.shape[0]
        and state[key].shape[1] == COLOURS != weight.shape[1]
    }


def check_mapping(rule: bool | Sequence[int | None], channels: int) -> list[int | None]:
    """The channel of a file that each channel of an image takes its weights from.

    Args:
        rule: True for the default: channel c takes those of c modulo 3, a single channel the mean
            of all three. Or a list of 0 (red in the published weights), 1 (green), 2 (blue) and
            None (the mean).
        channels: Number of channels of the image.

    Raises:
        ValueError: The list has another length, or other values.
    """
    if rule is True:
        return [None] if channels == 1 else [c % COLOURS for c in range(channels)]
    mapping = list(rule) if isinstance(rule, list | tuple) else []
    possible = [*range(COLOURS), None]
    if len(mapping) != channels or any(isinstance(c, bool) or c not in possible for c in mapping):
        raise ValueError(
            f'inflate_channels must be True, or a list of {channels} values of 0, 1, 2 and None, '
            f'one for each channel of the images; got {rule!r}'
        )
    return mapping


def inflated(weight: Tensor, mapping: Sequence[int | None]) -> Tensor:
    """Spread weights of three channels over others.

    They are scaled by 3 / C, so that an image whose channels are all the same gives what the
    average of the three colours gave, as in timm's ``adapt_input_conv``.

    Args:
        weight: (O, 3, k, k).
        mapping: The source of each of the C channels, see :func:`check_mapping`.

    Returns:
        (O, C, k, k).
    """
    mean = weight.mean(1)
    parts = [mean if source is None else weight[:, source] for source in mapping]
    return torch.stack(parts, 1) * (COLOURS / len(mapping))
