"""What the backbone of a new config starts from: published weights, a file, or nothing."""

import os
from dataclasses import dataclass, field
from typing import Any

from mmengine.config import Config

from hybrid_mm.errors import UserError
from hybrid_mm.run.published import AUTO, published_weights
from hybrid_mm.weights import SCHEME, Weights, all_weights, find_weights
from hybrid_mm.zoo.listing import shown_path
from hybrid_mm.zoo.metafile import Model
from hybrid_mm.zoo.weights_list import accuracy, place_of

NONE = 'none'
_NORMALISATIONS = {
    'ImageNet': ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]),
    'half': ([127.5] * 3, [127.5] * 3),
}
_WHY = 'training is longer, and on small data sets ends with a lower accuracy than from weights'


RANDOM = f'random weights (no --checkpoint): {_WHY}'
"""Text of a start from nothing."""


@dataclass(frozen=True)
class Start:
    """What a backbone starts from, and the settings that belong to it.

    Attributes:
        checkpoint: ``init_cfg.checkpoint``; None for random weights.
        text: What it is and why, without 'starts from'.
        loads: Whether the weights are on this machine, so that it can be checked that they fit.
        normalisation: Mean and standard deviation of the colours that they were trained with, as
            settings of a data preprocessor; empty for those of the base config.
        optimizer: Settings of ``optim_wrapper`` that belong to pre-trained weights: layer-wise
            decay of the learning rate, if the config that the backbone is taken from has it.
    """

    checkpoint: str | None
    text: str
    loads: bool = False
    normalisation: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)


def choose_start(checkpoint: str | None, cfg: Config, source: Model, scope: str) -> Start:
    """Decide what a backbone starts from. Nothing is downloaded.

    Args:
        checkpoint: 'auto' for the weights that the zoo's config starts from, if they are published
            or on this machine; None or 'none' for random weights; a file, an address, or
            ``hybrid_mm://NAME``.
        cfg: Config of the zoo that the backbone is taken from.
        source: Its entry in the zoo.
        scope: Default scope of the new config.

    Raises:
        UserError: The file does not exist, or there are no weights of the name.
    """
    if checkpoint is None or checkpoint == NONE:
        return Start(None, RANDOM if checkpoint is None else f'random weights: {_WHY}')
    text = checkpoint
    if checkpoint == AUTO:
        checkpoint, text = _published(cfg, source)
        if checkpoint is None:
            return Start(None, f'random weights (no --checkpoint): {text}; {_WHY}')
    weights = find_weights(checkpoint) if checkpoint.startswith(SCHEME) else None
    if weights is not None:
        place = place_of(weights)
        loads, text = place is not None, _description(weights)
        if place is not None:
            text += f'; here: {shown_path(place)}'
        elif weights.case == 'automatic':
            text += '; downloaded when first needed'
        else:
            text += f'; {weights.case}, and not here yet'
    elif '://' in checkpoint:
        loads = False
        text += ', downloaded when first needed'
    elif not os.path.isfile(checkpoint):
        raise UserError(f'--checkpoint {checkpoint} does not exist')
    else:
        loads = True
    return Start(checkpoint, text, loads, _normalisation(cfg, weights), _optimizer(cfg, scope))


def _published(cfg: Config, source: Model) -> tuple[str | None, str]:
    """Weights that the config of the zoo starts from, or, of a classifier, trains; or why none."""
    address = _address(cfg, source)
    if not address:
        return None, f'{source.name} starts from none'
    if not address.startswith(SCHEME):
        return (address, address) if '://' in address else (None, f'{address} is not an address')
    weights = find_weights(address)
    if weights.case == 'automatic' or place_of(weights) is not None:
        return address, ''
    if weights.case == 'manual':
        page = next((file.page for file in weights.files if file.page), '')
        return None, (
            f'{weights.name} is published, but has to be downloaded by hand: {page} (save it as '
            f'checkpoints/{weights.name}.pth and run this again)'
        )
    trains = (
        f'tools/train.py with the config {weights.trained_by} makes them'
        if weights.trained_by
        else 'no config of ours makes them'
    )
    return None, f'nobody published {weights.name}, {trains}'


def reported_accuracy(cfg: Config, source: Model) -> float:
    """Top-1 accuracy of the weights that a config starts from, if they can be had; else 0."""
    address = _published(cfg, source)[0] or ''
    weights = all_weights().get(address.removeprefix(SCHEME))
    return weights.metrics.get('Top 1 Accuracy', 0.0) if weights else 0.0


def _address(cfg: Config, source: Model) -> str:
    """What the config of the zoo starts from or, of a classifier, trains; may be empty."""
    if source.head == 'Classifier':
        trained = published_weights(source.name)
        return f'{SCHEME}{trained.name}' if trained else ''
    init = cfg.model.backbone.get('init_cfg')
    init = init if isinstance(init, dict) and init.get('type') == 'Pretrained' else {}
    return init.get('checkpoint') or ''


def _description(weights: Weights) -> str:
    licence = weights.files[0].licence if weights.files else ''
    licence = licence and f'licence: {licence}'
    details = [text for text in (accuracy(weights.metrics), licence) if text]
    return f'{SCHEME}{weights.name}' + (f' ({", ".join(details)})' if details else '')


def _normalisation(cfg: Config, weights: Weights | None) -> dict[str, Any]:
    """Mean and standard deviation that belong to weights.

    Those of the registry, else those of the config that the backbone is taken from.
    """
    entry = weights.preprocessing if weights is not None else {}
    value = entry.get('Dense', entry.get('Normalisation'))
    if value is not None:
        mean, std = _NORMALISATIONS[value] if isinstance(value, str) else value
    else:
        settings = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
        mean, std = settings.get('mean'), settings.get('std')
        if mean is None or std is None:
            return {}
    if (list(mean), list(std)) == _NORMALISATIONS['ImageNet']:
        return {}
    return dict(mean=list(mean), std=list(std))


def _optimizer(cfg: Config, scope: str) -> dict[str, Any]:
    """Layer-wise decay of a config, unless its constructor is one of another library."""
    settings = cfg.get('optim_wrapper') or {}
    constructor = settings.get('constructor') or ''
    library, _, name = constructor.rpartition('.')
    decays = 'LayerDecay' in name or 'LearningRateDecay' in name
    if not decays or (library or cfg.get('default_scope')) not in ('hybrid_mm', scope):
        return {}
    return dict(constructor=constructor, paramwise_cfg=settings.paramwise_cfg.to_dict())
