"""A backbone of the zoo for a new config: its settings, taken from a config, and its channels."""

import dataclasses
import logging
from dataclasses import dataclass

import torch
from mmengine.config import ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

import hybrid_mm.registry  # noqa: F401  (type='hybrid_mm.X')
from hybrid_mm.errors import UserError, nearest
from hybrid_mm.run.config import load_config, without_init_cfg
from hybrid_mm.run.config_folder import installed_configs
from hybrid_mm.run.published import AUTO
from hybrid_mm.run.registered import registered_class
from hybrid_mm.zoo.heads import NEW_HEADS
from hybrid_mm.zoo.listing import installed_trees
from hybrid_mm.zoo.metafile import HEADS, Model
from hybrid_mm.zoo.new_weights import Start, choose_start, reported_accuracy

STRIDES = (4, 8, 16, 32)


@dataclass
class Backbone:
    """A backbone of the zoo.

    Attributes:
        name: Name in the zoo.
        settings: Dict of the backbone in a config, without weights.
        channels: Channels of its four maps.
        source: Name of the config that it was taken from.
        hooks: ``custom_hooks`` of that config.
        start: What it starts from.
    """

    name: str
    settings: dict
    channels: list[int]
    source: str
    hooks: list[dict]
    start: Start | None = None


def find_backbone(
    name: str, head: str, checkpoint: str | None = None, image_channels: int = 3
) -> Backbone:
    """Take a backbone from a config of the zoo, preferably one with the same head.

    Args:
        name: Name as ``python -m hybrid_mm list`` prints it, e.g. 'van-b0'.
        head: Key of ``NEW_HEADS``.
        checkpoint: What it starts from, see :func:`.new_weights.choose_start`. Weights that are on
            this machine are loaded to check that they fit.
        image_channels: Channels of the images. Weights for three are spread over others, by
            backbones of ours; such of other libraries start from random weights then.

    Raises:
        UserError: Unknown backbone or weights, a backbone without the four maps that heads need,
            or weights that do not fit.
    """
    models = [model for tree in installed_trees() for model in tree.models]
    found = [model for model in models if model.backbone == name]
    if not found:
        names = {model.backbone for model in models}
        raise UserError(
            f'--backbone {name}: the zoo has none of that name{nearest(name, names)}; '
            '`python -m hybrid_mm list` prints all'
        )
    title = HEADS.get(head, HEADS['fpn'])

    def distance(model: Model) -> tuple[bool, bool]:
        return model.head != title, model.head == 'Classifier'

    nearest_ones = [model for model in found if distance(model) == min(map(distance, found))]
    configs = [load_config(str(installed_configs().parent / m.config)) for m in nearest_ones]
    number = 0
    if checkpoint == AUTO:  # of several weights the best ones
        tops = [reported_accuracy(*pair) for pair in zip(configs, nearest_ones, strict=True)]
        number = tops.index(max(tops))
    source, cfg = nearest_ones[number], configs[number]
    settings = without_init_cfg(cfg.model.backbone.to_dict())
    scope = cfg.get('default_scope')
    target = 'mmdet' if NEW_HEADS[head].layout == 'coco' else 'mmseg'
    if '.' not in settings['type'] and scope != target:
        settings['type'] = f'{scope}.{settings["type"]}'
    if source.head == 'Classifier':
        for key in ('out_indices', 'out_type', 'gap_before_final_norm'):
            settings.pop(key, None)
    start = choose_start(checkpoint, cfg, source, target)
    if image_channels != 3:
        settings['in_channels'] = image_channels
        start = _inflated(start, settings, target)
        settings.pop('frozen_stages', None)  # the stem has to learn the channels
    if start.checkpoint is None:  # frozen stages would keep random weights
        for key in ('frozen_stages', 'norm_eval'):
            settings.pop(key, None)
    channels = _channels(name, settings, target, start.checkpoint if start.loads else None)
    hooks = cfg.get('custom_hooks') or () if start.checkpoint else ()
    return Backbone(name, settings, channels, source.name, [dict(hook) for hook in hooks], start)


def _inflated(start: Start, settings: dict, scope: str) -> Start:
    """What a backbone for images of other than three channels starts from."""
    channels = settings['in_channels']
    if start.checkpoint is None:
        return start
    with DefaultScope.overwrite_default_scope(scope):
        cls = registered_class(MODELS, settings['type'])
    # a class of ours that needs MMDetection is made by a function
    if not isinstance(cls, type) or hasattr(cls, 'load_pretrained'):
        text = f'{start.text}; its weights for 3 channels are inflated to {channels}'
        return dataclasses.replace(start, text=text, normalisation={})
    kind = settings['type']
    return Start(
        None,
        f'random weights: those for 3 channels cannot be inflated to {channels} in {kind}, only in '
        'the networks of hybrid_mm',
    )


def _channels(name: str, settings: dict, scope: str, checkpoint: str | None) -> list[int]:
    """Channels of the maps at strides 4, 8, 16 and 32, by running the backbone."""
    cfg = ConfigDict(settings)
    if checkpoint is not None:
        cfg.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
        if cfg.get('in_channels', 3) != 3:
            cfg.init_cfg.inflate_channels = True
    with DefaultScope.overwrite_default_scope(scope):
        network = revert_sync_batchnorm(MODELS.build(cfg))
        network.eval()  # returns None in some networks of MMPretrain
        if checkpoint is not None:
            logging.disable(logging.INFO)
            try:
                network.init_weights()
            except (ValueError, RuntimeError, KeyError) as error:
                raise UserError(
                    f'--checkpoint {checkpoint} does not fit {name}: {error}'
                ) from error
            finally:
                logging.disable(logging.NOTSET)
    size = 128
    with torch.no_grad():
        maps = network(torch.zeros(1, cfg.get('in_channels', 3), size, size))
    maps = (maps,) if isinstance(maps, Tensor) else tuple(maps)
    strides = tuple(size // m.shape[-1] if m.ndim == 4 else 0 for m in maps)
    if strides != STRIDES:
        raise UserError(
            f'--backbone {name} returns maps at strides {strides}; these heads need {STRIDES}'
        )
    return [m.shape[1] for m in maps]
