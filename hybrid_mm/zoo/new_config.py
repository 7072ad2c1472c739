"""A config for a data set of one's own: a backbone of the zoo, a head, and what the data say."""

import json
import logging
import math
import os
import pprint
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor

import hybrid_mm.registry  # noqa: F401  (type='hybrid_mm.X')
from hybrid_mm.errors import UserError, nearest, shorten, warn
from hybrid_mm.run.config import config_root, load_config, without_init_cfg
from hybrid_mm.zoo.listing import installed_trees
from hybrid_mm.zoo.metafile import HEADS, Model
from hybrid_mm.zoo.user_data import UserData

STRIDES = (4, 8, 16, 32)


@dataclass(frozen=True)
class Head:
    """A detector or decoder that configs are written for.

    Attributes:
        base: File of ``configs/_base_/models``.
        kind: 'coco' or 'masks': the data that it needs.
        masks: Whether it needs instance masks.
    """

    base: str
    kind: str
    masks: bool = False


NEW_HEADS = {
    'mask-rcnn': Head('mask-rcnn_r50_fpn.py', 'coco', True),
    'cascade-mask-rcnn': Head('cascade-mask-rcnn_r50_fpn.py', 'coco', True),
    'retinanet': Head('retinanet_r50_fpn.py', 'coco'),
    'upernet': Head('upernet_r50.py', 'masks'),
    'semantic-fpn': Head('fpn_r50.py', 'masks'),
}


@dataclass
class Backbone:
    """A backbone of the zoo.

    Attributes:
        name: Its name there.
        settings: Its dict in a config, without weights.
        channels: Of its four maps.
        source: Name of the config that it was taken from.
        hooks: ``custom_hooks`` of that config.
    """

    name: str
    settings: dict
    channels: list[int]
    source: str
    hooks: list[dict]


def find_backbone(name: str, head: str, checkpoint: str | None = None) -> Backbone:
    """Take a backbone from a config of the zoo, one with the same head if there is one.

    Args:
        name: As ``python -m hybrid_mm list`` prints it, e.g. 'van-b0'.
        head: Key of ``NEW_HEADS``.
        checkpoint: File of its weights; they are loaded to see whether they fit.

    Raises:
        UserError: No such backbone, one without the four maps that heads need, or weights that do
            not fit.
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

    source = min(found, key=distance)
    cfg = load_config(str(config_root().parent / source.config))
    settings = without_init_cfg(cfg.model.backbone.to_dict())
    scope = cfg.get('default_scope')
    target = 'mmdet' if NEW_HEADS[head].kind == 'coco' else 'mmseg'
    if '.' not in settings['type'] and scope != target:
        settings['type'] = f'{scope}.{settings["type"]}'
    if source.head == 'Classifier':
        for key in ('out_indices', 'out_type', 'gap_before_final_norm'):
            settings.pop(key, None)
    if checkpoint is None:  # what is frozen would stay random
        for key in ('frozen_stages', 'norm_eval'):
            settings.pop(key, None)
    channels = _channels(name, settings, target, checkpoint)
    hooks = [] if checkpoint is None else [dict(hook) for hook in cfg.get('custom_hooks') or ()]
    return Backbone(name, settings, channels, source.name, hooks)


def _channels(name: str, settings: dict, scope: str, checkpoint: str | None) -> list[int]:
    """Channels of the maps at strides 4, 8, 16 and 32, by running the backbone."""
    spec = ConfigDict(settings)
    if checkpoint is not None:
        if not os.path.isfile(checkpoint):
            raise UserError(f'--checkpoint {checkpoint} does not exist')
        spec.init_cfg = dict(type='Pretrained', checkpoint=checkpoint)
    with DefaultScope.overwrite_default_scope(scope):
        network = revert_sync_batchnorm(MODELS.build(spec)).eval()
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
        maps = network(torch.zeros(1, 3, size, size))
    maps = (maps,) if isinstance(maps, Tensor) else tuple(maps)
    strides = tuple(size // m.shape[-1] if m.ndim == 4 else 0 for m in maps)
    if strides != STRIDES:
        raise UserError(
            f'--backbone {name} returns maps at strides {strides}; these heads need {STRIDES}'
        )
    return [m.shape[1] for m in maps]


@dataclass
class Plan:
    """What is chosen from the data; see the comments in the config.

    Attributes:
        scale: (long, short) side that images are resized to.
        crop: (height, width) of training crops (label maps).
        batch: Images per step.
        steps: Iterations (label maps) or epochs (COCO).
        rate: Learning rate.
    """

    scale: tuple[int, int]
    crop: tuple[int, int] | None
    batch: int
    steps: int
    rate: float


def _round(value: float, step: int = 32) -> int:
    return max(step, round(value / step) * step)


def make_plan(
    data: UserData, batch: int | None = None, scale: tuple[int, int] | None = None
) -> Plan:
    """Choose input size, length and learning rate.

    Args:
        data: The data set.
        batch: Images per step; 2 for COCO and 4 for label maps if None.
        scale: (long, short) side to resize images to.
    """
    long, short = max(data.size), min(data.size)
    count = data.splits['train'].count
    if data.kind == 'coco':
        batch = batch or 2
        if scale is None:
            target = min(800, max(320, _round(short)))
            scale = min(1333, _round(long * target / short)), target
        # at least COCO's 12 epochs; short data sets go on to 10,000 steps, but not above 100 epochs
        steps = max(12, min(100, math.ceil(10_000 * batch / count)))
        crop = None
    else:
        batch = batch or 4
        if scale is None:
            target = min(1024, max(256, short))
            scale = min(2048, round(long * target / short)), target
        side = max(32, min(512, scale[1] // 32 * 32))
        crop = side, max(32, min(512, scale[0] // 32 * 32))
        # 100 epochs, not below 4,000 steps nor above ADE20K's 160,000
        steps = min(160_000, max(4_000, math.ceil(100 * count / batch / 1000) * 1000))
    return Plan(scale, crop, batch, steps, 1e-4 * math.sqrt(batch / 16))


def _py(value, indent: int) -> str:
    """Python text of a value, its further lines indented."""
    if isinstance(value, _Code):
        return str(value)
    if isinstance(value, dict):
        if not value:
            return 'dict()'
        items = [f'{key}={_py(item, indent + 4)}' for key, item in value.items()]
        text = f'dict({", ".join(items)})'
        if len(text) + indent <= 96 and '\n' not in text:
            return text
        pad = '\n' + ' ' * (indent + 4)
        return f'dict({pad}{f",{pad}".join(items)})'
    if isinstance(value, list | tuple) and any(isinstance(item, dict) for item in value):
        pad = '\n' + ' ' * (indent + 4)
        items = [_py(item, indent + 4) for item in value]
        return f'[{pad}{f",{pad}".join(items)}]'
    text = pprint.pformat(value, width=max(40, 96 - indent), compact=True, sort_dicts=False)
    return text.replace('\n', '\n' + ' ' * indent)


def write_config(
    out: str,
    data: UserData,
    head: str,
    backbone: Backbone,
    plan: Plan,
    command: str,
    checkpoint: str | None = None,
) -> list[str]:
    """Write a config, and the annotations of the parts if the data were divided.

    Args:
        out: File to write; it must not exist.
        data: The data set.
        head: Key of ``NEW_HEADS``.
        backbone: What :func:`find_backbone` returned.
        plan: What :func:`make_plan` returned.
        command: How it was called, for the first lines.
        checkpoint: Weights of the backbone.

    Returns:
        Files written, the config first.

    Raises:
        UserError: The file exists, the head needs other data, or the config cannot be read back.
    """
    check_out(out)
    check_head(head, data)
    path = Path(out)
    files = [path]
    places = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, split in data.splits.items():
        places[name] = os.path.join(data.root, split.labels)
        if split.content is not None:
            places[name] = str(path.with_name(f'{path.stem}_{name}.json').resolve())
            Path(places[name]).write_text(json.dumps(split.content))
        elif split.names is not None:
            places[name] = str(path.with_name(f'{path.stem}_{name}.txt').resolve())
            Path(places[name]).write_text('\n'.join(split.names) + '\n')
        if split.content is not None or split.names is not None:
            files.append(Path(places[name]))
    fields = (_coco if data.kind == 'coco' else _masks)(data, head, places, plan)
    template = Path(__file__).parent / 'templates' / f'{data.kind}.txt'
    text = template.read_text().format(
        title=HEADS.get(head, HEADS['fpn']),
        backbone=backbone.name,
        root=str(data.root),
        command=command,
        configs=_configs(path),
        base=NEW_HEADS[head].base,
        classes=len(data.classes),
        metainfo=_metainfo(data.classes),
        width=data.size[0],
        height=data.size[1],
        count=data.splits['train'].count,
        val_count=data.splits['val'].count,
        train_images=data.splits['train'].images,
        val_images=data.splits['val'].images,
        scale=plan.scale,
        batch=plan.batch,
        rate=f'{plan.rate:.3g}',
        model=_model(data, head, backbone, checkpoint),
        hooks=f'custom_hooks = {_py(backbone.hooks, 0)}\n' if backbone.hooks else '',
        **fields,
    )
    path.write_text(text)
    try:
        Config.fromfile(str(path))
    except Exception as error:
        raise UserError(f'{out} was written but cannot be read: {error}') from error
    return [str(file) for file in files]


def _configs(path: Path) -> str:
    """Path of our configs for a file: relative inside of a checkout, else absolute.

    Not ``hybrid_mm::``, for which MMEngine would look up all types in our scope alone.
    """
    root, folder = config_root(), path.resolve().parent
    if folder.is_relative_to(root.parent):
        return os.path.relpath(root, folder)
    return str(root)


def check_out(out: str) -> None:
    """Check that a config can be written to a file.

    Raises:
        UserError: It is no ``.py``, or exists.
    """
    if not out.endswith('.py'):
        raise UserError(f'--out {out} must end with .py')
    if os.path.exists(out):
        raise UserError(f'--out {out} exists already; name another file or delete it')


def check_head(head: str, data: UserData) -> None:
    """Check that a head can learn from the data.

    Raises:
        UserError: It needs label maps and there are boxes, or the other way round, or it needs
            masks and most objects have none.
    """
    wanted = NEW_HEADS[head]
    kinds = {'coco': 'boxes in a COCO file', 'masks': 'images with label maps'}
    if wanted.kind != data.kind:
        fitting = ', '.join(name for name, other in NEW_HEADS.items() if other.kind == data.kind)
        raise UserError(
            f'--head {head} needs {kinds[wanted.kind]}, but {data.root} holds {kinds[data.kind]}; '
            f'use --head {fitting}'
        )
    if wanted.masks and data.polygons < 0.5:
        raise UserError(
            f'--head {head} needs instance masks, but {100 * (1 - data.polygons):.0f}% of the '
            f'objects in {data.root} have none; use --head retinanet'
        )
    if wanted.masks and data.polygons < 1:
        warn(f'{100 * (1 - data.polygons):.2g}% of the objects have no mask')


def _metainfo(classes: list[str]) -> str:
    text = pprint.pformat(tuple(classes), width=76, compact=True)
    return f'dict(\n    classes={text})'.replace('\n ', '\n' + ' ' * 13).replace(
        'dict(\n' + ' ' * 13 + '   classes', 'dict(\n    classes'
    )


def _coco(data: UserData, head: str, places: dict, plan: Plan) -> dict:
    """Fields of the template for COCO."""
    masks = NEW_HEADS[head].masks
    files = {
        name: split.labels if split.content is None else places[name]
        for name, split in data.splits.items()
    }
    epoch = math.ceil(data.splits['train'].count / plan.batch)
    return dict(
        files,
        masks=masks,
        val_file=places['val'],
        metric=['bbox', 'segm'] if masks else "'bbox'",
        best='segm' if masks else 'bbox',
        epoch=epoch,
        epochs=plan.steps,
        steps=f'{epoch * plan.steps:,}',
        warmup=min(1000, max(1, epoch * plan.steps // 20)),
        milestones=[plan.steps * 8 // 12, plan.steps * 11 // 12],
        interval=max(1, plan.steps // 12),
    )


def _masks(data: UserData, head: str, places: dict, plan: Plan) -> dict:
    """Fields of the template for label maps."""
    splits = data.splits
    lists = {
        f'{name}_list': f'ann_file={places[name]!r},\n        ' if split.names else ''
        for name, split in splits.items()
    }
    return dict(
        lists,
        train=splits['train'].labels,
        val=splits['val'].labels,
        ignore=data.ignore,
        crop=plan.crop,
        image_suffix=data.suffixes[0],
        map_suffix=data.suffixes[1],
        steps=plan.steps,
        epochs=f'{plan.steps * plan.batch / splits["train"].count:.0f}',
        interval=max(1, plan.steps // 10),
        warmup=min(1500, plan.steps // 10),
    )


def _model(data: UserData, head: str, backbone: Backbone, checkpoint: str | None) -> str:
    """Text of ``model``."""
    number, channels = dict(num_classes=len(data.classes)), backbone.channels
    settings = dict(_delete_=True, **backbone.settings)
    lines = [f'# The backbone is that of {backbone.source}.']
    if checkpoint is None:
        lines += [
            '# It starts from random weights (no --checkpoint), which takes longer and ends lower',
            '# than from ImageNet weights where data are few.',
        ]
    else:
        file = str(Path(checkpoint).resolve())
        settings['init_cfg'] = dict(type='Pretrained', checkpoint=file)
    model: dict = {}
    if data.kind == 'masks':
        model['data_preprocessor'] = dict(
            size=_Code('crop_size'), seg_pad_val=_Code('ignore_index')
        )
        number['ignore_index'] = _Code('ignore_index')
    model['backbone'] = settings
    if head == 'upernet':
        model['decode_head'] = dict(in_channels=channels, **number)
        model['auxiliary_head'] = dict(in_channels=channels[2], **number)
    else:
        model['neck'] = dict(in_channels=channels)
    if head == 'semantic-fpn':
        model['decode_head'] = number
    elif head == 'retinanet':
        model['bbox_head'] = number
    elif head == 'mask-rcnn':
        model['roi_head'] = dict(bbox_head=number, mask_head=number)
    elif head == 'cascade-mask-rcnn':
        stages = (
            f'[dict(stage, {_py(number, 0)[5:-1]}) for stage in _base_.model.roi_head.bbox_head]'
        )
        model['roi_head'] = dict(bbox_head=_Code(stages), mask_head=number)
    lines.append(f'model = {_py(model, 0)}')
    return '\n'.join(lines) + '\n'


class _Code(str):
    """Text that stands in a config as it is."""


def summary(data: UserData, backbone: Backbone, plan: Plan) -> str:
    """What was found and chosen, in a few lines."""
    length = f'{plan.steps} epochs' if data.kind == 'coco' else f'{plan.steps} iterations'
    return (
        f'{data.root}: {len(data.classes)} classes ({shorten(data.classes)}), '
        + ', '.join(f'{split.count} images in {name}' for name, split in data.splits.items())
        + f', {data.size[0]} x {data.size[1]} in the median\n'
        f'{backbone.name} of {backbone.source}, maps of {backbone.channels} channels; '
        f'images to {plan.scale[0]} x {plan.scale[1]}, {plan.batch} a step, {length}, '
        f'learning rate {plan.rate:.3g}'
    )
