"""Write a config for a user's data set, with a backbone of the zoo and a head."""

import json
import math
import os
import pprint
import textwrap
import uuid
from contextlib import suppress
from pathlib import Path

from mmengine.config import Config

from hybrid_mm.data.deep_images import Depth
from hybrid_mm.errors import UserError, printable, shorten
from hybrid_mm.run.config_folder import installed_configs
from hybrid_mm.zoo.heads import NEW_HEADS, check_head
from hybrid_mm.zoo.listing import installed_trees
from hybrid_mm.zoo.metafile import HEADS
from hybrid_mm.zoo.new_backbone import Backbone
from hybrid_mm.zoo.new_weights import RANDOM, Start
from hybrid_mm.zoo.plan import Plan
from hybrid_mm.zoo.splits import Split, UserData
from hybrid_mm.zoo.timetable import LOG, Timetable, passes, timetable


def _py(value, indent: int) -> str:
    """Python source of a value, its further lines indented by ``indent``."""
    if isinstance(value, _Code):
        return str(value)
    if isinstance(value, dict):
        if not value:
            return 'dict()'
        left, right, link = 'dict(', ')', '='
        if any('.' in key for key in value):  # names of parameters
            left, right, link = '{', '}', ': '
        names = [key if link == '=' else repr(key) for key in value]
        items = [
            f'{name}{link}{_py(item, indent + 4)}'
            for name, item in zip(names, value.values(), strict=True)
        ]
        text = f'{left}{", ".join(items)}{right}'
        if len(text) + indent <= 96 and '\n' not in text:
            return text
        pad = '\n' + ' ' * (indent + 4)
        return f'{left}{pad}{f",{pad}".join(items)}{right}'
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
    force: bool = False,
) -> list[str]:
    """Write a config, and the annotations of the splits if the data were divided.

    Either all files are written or none.

    Args:
        out: File to write.
        data: The data set.
        head: Key of ``NEW_HEADS``.
        backbone: Result of :func:`~hybrid_mm.zoo.new_backbone.find_backbone`.
        plan: Result of :func:`~hybrid_mm.zoo.plan.make_plan`.
        command: Command line, for the comment at the top.
        checkpoint: Weights of the backbone: a file or an address.
        force: Overwrite files that exist.

    Returns:
        Written files, the config first.

    Raises:
        UserError: See :func:`check_out`; the head needs other data, or a file cannot be written or
            the config not be read back.
    """
    check_out(out, force, data, checkpoint)
    check_head(head, data)
    path = Path(out)
    contents = {path: ''}
    places = {}
    for name, split in data.splits.items():
        places[name] = os.path.join(data.root, split.labels)
        written = _written(path, name, split)
        if written is None:
            continue
        places[name] = str(written.resolve())
        if split.content is not None:
            contents[written] = json.dumps(split.content)
        else:
            contents[written] = ''.join(f'{stem}\n' for stem in split.names or ())
    contents[path] = _source(path, data, head, backbone, plan, command, checkpoint, places)
    _write_all(contents)
    return [str(file) for file in contents]


def _source(
    path: Path,
    data: UserData,
    head: str,
    backbone: Backbone,
    plan: Plan,
    command: str,
    checkpoint: str | None,
    places: dict[str, str],
) -> str:
    """Source of a config; ``places`` are the annotations of the splits."""
    fields = (_coco if data.layout == 'coco' else _masks)(data, head, places, plan)
    template = Path(__file__).parent / 'templates' / f'{data.layout}.txt'
    bases, task = f'{_configs(path)}/_base_', 'det' if data.layout == 'coco' else 'seg'
    text = template.read_text('utf-8').format(
        title=HEADS.get(head, HEADS['fpn']),
        backbone=backbone.name,
        folder=printable(str(data.root)),
        root=str(data.root),
        command=printable(command),
        model_base=f'{bases}/models/{NEW_HEADS[head].base}',
        runtime_base=f'{bases}/default_runtime_{task}.py',
        classes=len(data.classes),
        metainfo=_metainfo(data.classes),
        width=data.size[0],
        height=data.size[1],
        count=data.splits['train'].count,
        val_count=data.splits['val'].count,
        train_images=data.splits['train'].images,
        val_images=data.splits['val'].images,
        scale=plan.scale,
        load=_py(_load(data), 4),
        depth=_comment(_images(data)) + '\n' if _images(data) else '',
        batch=plan.batch,
        rate=f'{plan.rate:.3g}',
        model=_model(data, head, backbone, checkpoint),
        hooks=f'custom_hooks = {_py(backbone.hooks, 0)}\n' if backbone.hooks else '',
        groups=_groups(backbone),
        rule=_comment(f'Length: {plan.rule}.'),
        **fields,
    )
    # MMEngine replaces what it finds between two braces, in strings and comments as well
    return text.replace('{{', r'{\x7b')


def _write_all(contents: dict[Path, str]) -> None:
    """Write all files, of which the first is a config that must be readable, or none.

    Raises:
        UserError: A file cannot be written, or the config cannot be read back.
    """
    out = next(iter(contents))
    made = [folder for folder in (out.parent, *out.parent.parents) if not folder.exists()]
    moves = {path: path.with_name(f'{uuid.uuid4().hex}{path.suffix}') for path in contents}
    placed = []
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for path, text in contents.items():
            with open(moves[path], 'x', encoding='utf-8') as file:
                file.write(text)
        try:
            Config.fromfile(str(moves[out]))
        except Exception as error:  # whatever a config can raise
            raise UserError(f'{out} would not be readable: {error}') from error
        for path in reversed(moves):  # the config last: it names the others
            new = not path.exists()
            os.replace(moves[path], path)
            placed += [path] if new else []
    except BaseException as error:
        for left in (*moves.values(), *placed):
            with suppress(OSError):
                left.unlink()
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise UserError(f'--out {out} cannot be written: {error}') from error
        raise


def _configs(path: Path) -> str:
    """Path from a file to our configs: relative inside a checkout, else absolute.

    Not ``hybrid_mm::``, with which MMEngine would look up all types in our scope only.
    """
    root, folder = installed_configs(), path.resolve().parent
    if folder.is_relative_to(root.parent):
        return os.path.relpath(root, folder)
    return str(root)


def _written(path: Path, name: str, split: Split) -> Path | None:
    """File that the annotations of a split are written to, beside the config; None if to none."""
    if split.content is None and split.names is None:
        return None
    return path.with_name(f'{path.stem}_{name}.{"txt" if split.content is None else "json"}')


def check_out(
    out: str, force: bool = False, data: UserData | None = None, checkpoint: str | None = None
) -> None:
    """Check that a config, and the lists of divided data beside it, can be written.

    Args:
        out: File to write.
        force: Whether files that exist may be overwritten.
        data: The data set, if it is known.
        checkpoint: Weights that are read.

    Raises:
        UserError: The name does not end in ``.py``; a file exists, or is one that is read.
    """
    path = Path(out)
    if path.suffix != '.py':
        raise UserError(f'--out {out} must end with .py')
    files, reads = [path], [Path(checkpoint)] if checkpoint else []
    if data is not None:
        written = [_written(path, name, split) for name, split in data.splits.items()]
        files += [file for file in written if file is not None]
        reads += [data.root / split.labels for split in data.splits.values()]
        reads += [data.root / name for name in ('classes.txt', 'labels.txt')]
    for file in files:
        if not os.path.lexists(file):
            continue
        if not force:
            raise UserError(
                f'{file} exists already; name another --out, delete it, or overwrite it with '
                '--force'
            )
        if file.is_dir():
            raise UserError(f'{file} is a folder; name another --out')
        if any(other.exists() and file.exists() and file.samefile(other) for other in reads):
            raise UserError(f'{file} is read, and cannot be overwritten; name another --out')
        if file.resolve() in _our_configs():
            raise UserError(f'{file} is a config of hybrid_mm; name another --out')


def _our_configs() -> set[Path]:
    root = installed_configs().resolve()
    zoo = {root.parent / model.config for tree in installed_trees() for model in tree.models}
    return {path.resolve() for path in (*(root / '_base_').rglob('*.py'), *zoo)}


def _metainfo(classes: list[str]) -> str:
    text = pprint.pformat(tuple(classes), width=76, compact=True)
    return f'dict(\n    classes={text})'.replace('\n ', '\n' + ' ' * 13).replace(
        'dict(\n' + ' ' * 13 + '   classes', 'dict(\n    classes'
    )


def _coco(data: UserData, head: str, places: dict, plan: Plan) -> dict:
    """Values for the fields of ``templates/coco.txt``."""
    masks = NEW_HEADS[head].masks
    times = timetable(data, plan)
    files = {
        name: split.labels if split.content is None else places[name]
        for name, split in data.splits.items()
    }
    count, epoch = data.splits['train'].count, math.ceil(data.splits['train'].count / plan.batch)
    unit, loop = ('epochs', 'Epoch') if plan.by_epoch else ('iters', 'Iter')
    checkpoint = dict(interval=times.interval, save_best=f'coco/{"segm" if masks else "bbox"}_mAP')
    schedulers = _warmup(times)
    if times.milestones:
        end = _Code('max_epochs') if times.by_epoch else plan.iterations
        settings = dict(by_epoch=times.by_epoch, begin=0, end=end)
        schedulers.append(
            dict(type='MultiStepLR', **settings, milestones=times.milestones, gamma=0.1)
        )
    if plan.by_epoch:
        length = (
            f'{count} images / {plan.batch} = {epoch} steps an epoch; {passes(data, plan)} are '
            f'{plan.iterations:,} steps.'
        )
    else:
        length = f'{plan.steps:,} steps x {plan.batch} / {count} images = {passes(data, plan)}.'
    return dict(
        files,
        masks=masks,
        sampler='DefaultSampler' if plan.by_epoch else 'InfiniteSampler',
        val_file=places['val'],
        metric=['bbox', 'segm'] if masks else "'bbox'",
        length=length,
        loop=(
            f'max_{unit} = {plan.steps}\n'
            f"train_cfg = dict(type='{loop}BasedTrainLoop', max_{unit}=max_{unit}, "
            f'val_interval={times.interval})'
        ),
        schedulers=_py(schedulers, 0),
        default_hooks=_hooks(checkpoint, times, plan.by_epoch),
        times='\n'.join(map(_comment, times.why)),
    )


def _warmup(times: Timetable) -> list[dict]:
    if not times.warmup:
        return []
    settings = dict(start_factor=0.001, by_epoch=False, begin=0, end=times.warmup)
    return [dict(type='LinearLR', **settings)]


def _hooks(checkpoint: dict, times: Timetable, by_epoch: bool = True) -> str:
    """Source of ``default_hooks``, and of ``log_processor`` if it must count iterations."""
    hooks: dict = dict(checkpoint=dict(checkpoint, rule='greater'))
    if times.log != LOG:
        hooks['logger'] = dict(interval=times.log)
    lines = []
    if not by_epoch:
        hooks['checkpoint']['by_epoch'] = False
        hooks.setdefault('logger', {})['log_metric_by_epoch'] = False
        lines.append('log_processor = dict(by_epoch=False)')
    return '\n'.join([f'default_hooks = {_py(hooks, 0)}', *lines])


def _masks(data: UserData, head: str, places: dict, plan: Plan) -> dict:
    """Values for the fields of ``templates/masks.txt``."""
    splits, times = data.splits, timetable(data, plan)
    schedulers = _warmup(times)
    decay = dict(begin=times.warmup, end=_Code('max_iters'))
    schedulers.append(dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, **decay))
    lists = {
        f'{name}_list': f'ann_file={places[name]!r},\n        ' if split.names else ''
        for name, split in splits.items()
    }
    return dict(
        lists,
        train=splits['train'].labels,
        val=splits['val'].labels,
        ignore=data.ignore,
        note=_comment(printable(data.note)) + '\n' if data.note else '',
        reduce='reduce_zero_label=True,\n    ' if data.shifted else '',
        crop=plan.crop,
        distortion='' if data.channels else "dict(type='PhotoMetricDistortion'),\n    ",
        image_suffix=data.suffixes[0],
        map_suffix=data.suffixes[1],
        steps=plan.steps,
        epochs=passes(data, plan),
        interval=times.interval,
        schedulers=_py(schedulers, 0),
        default_hooks=_hooks(dict(interval=times.interval, save_best='mIoU'), times),
        times='\n'.join(map(_comment, times.why)),
    )


def _model(data: UserData, head: str, backbone: Backbone, checkpoint: str | None) -> str:
    """Source of ``model = dict(...)``, with a comment on its weights."""
    number: dict[str, object] = dict(num_classes=len(data.classes))
    channels = backbone.channels
    settings = dict(_delete_=True, **backbone.settings)
    start = backbone.start or Start(checkpoint, checkpoint or RANDOM)
    lines = [
        f'# The backbone is the one of {backbone.source}.',
        _comment(f'It starts from {printable(start.text)}.'),
    ]
    if checkpoint is not None:
        file = checkpoint if '://' in checkpoint else str(Path(checkpoint).resolve())
        settings['init_cfg'] = dict(type='Pretrained', checkpoint=file)
    model: dict = {}
    if data.layout == 'masks':
        model['data_preprocessor'] = dict(
            size=_Code('crop_size'), seg_pad_val=_Code('ignore_index')
        )
    if data.channels is not None:
        kind = 'Det' if data.layout == 'coco' else 'Seg'
        processor = 'DataPreprocessor' if data.layout == 'coco' else 'DataPreProcessor'
        model.setdefault('data_preprocessor', {}).update(
            type=f'hybrid_mm.Multichannel{kind}{processor}',
            mean=data.channels.mean,
            std=data.channels.std,
            bgr_to_rgb=False,
        )
        if checkpoint is not None and data.channels.number != 3:
            settings['init_cfg']['inflate_channels'] = True
    elif start.normalisation:
        lines.append('# Mean and std are those that the weights were trained with.')
        model.setdefault('data_preprocessor', {}).update(start.normalisation)
    if data.layout == 'masks':
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


def _comment(text: str) -> str:
    """Lines of a comment."""
    marks = dict(initial_indent='# ', subsequent_indent='# ')
    return textwrap.fill(text, 98, break_long_words=False, break_on_hyphens=False, **marks)


def depth_text(depth: Depth) -> str:
    """What images with one channel or more than 8 bits become; empty for others."""
    parts = []
    if depth.grey:
        parts.append('The images have one channel, which is repeated three times.')
    if depth.value_range is not None:
        low, high = depth.value_range
        parts.append(
            f'The images have {depth.bits} bits: values from {low:,} to {high:,}, between which '
            f'are 99.8% of the pixels of {depth.number} images, become 0 to 255.'
        )
    return ' '.join(parts)


def _images(data: UserData) -> str:
    """What the channels and bits of the images are, and what they become; may be empty."""
    return data.channels.text if data.channels else depth_text(data.depth)


def _load(data: UserData) -> dict:
    """The step that loads an image."""
    if data.channels is not None:
        return dict(type='hybrid_mm.LoadMultichannelImage', **data.channels.loader)
    if data.depth.value_range is None:
        return dict(type='LoadImageFromFile')
    return dict(type='hybrid_mm.LoadDeepImage', value_range=data.depth.value_range)


def _groups(backbone: Backbone) -> str:
    """Source of the settings of ``optim_wrapper`` for groups of parameters."""
    settings = backbone.start.optimizer if backbone.start else {}
    settings = settings or dict(paramwise_cfg=dict(norm_decay_mult=0.0))
    return ',\n    '.join(f'{key}={_py(value, 4)}' for key, value in settings.items())


class _Code(str):
    """Source text that is written to the config without quotes."""


def summary(data: UserData, backbone: Backbone, plan: Plan) -> str:
    """Two lines about the data and the chosen settings."""
    times, unit = timetable(data, plan), 'epoch' if plan.by_epoch else 'iteration'
    interval = f'{times.interval:,} {unit}s' if times.interval > 1 else unit
    length = f'{plan.steps:,} {unit}{"s" * (plan.steps > 1)}'
    if not plan.by_epoch:
        length += f' ({passes(data, plan)})'
    warmup = f'{times.warmup:,} iterations of warm-up' if times.warmup else 'no warm-up'
    return (
        printable(f'{data.root}: {len(data.classes)} classes ({shorten(data.classes)}), ')
        + ', '.join(f'{split.count} images in {name}' for name, split in data.splits.items())
        + f', median size {data.size[0]} x {data.size[1]}\n'
        + ''.join(f'{printable(text)}\n' for text in (data.note, _images(data)) if text)
        + f'{backbone.name} as in {backbone.source}, maps of {backbone.channels} channels; images '
        f'resized to {plan.scale[0]} x {plan.scale[1]}, {plan.batch} per step, {length}, '
        f'learning rate {plan.rate:.3g}; {warmup}, evaluation and checkpoint every {interval}'
    )
