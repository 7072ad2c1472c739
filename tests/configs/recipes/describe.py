"""The recipe that a config trains and tests with, field by field.

Values are numbers or short texts in the terms of OpenMMLab's configs; a ledger repeats them.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from hybrid_mm.run.config import inner_dataset

Recipe = dict[str, Any]

WITHOUT = {
    *('LoadImageFromFile', 'LoadAnnotations', 'LoadPanopticAnnotations', 'FilterAnnotations'),
    *('PackInputs', 'PackDetInputs', 'PackSegInputs', 'LoadImage', 'PackPoseInputs'),
}
"""Transforms that belong to no recipe."""
ARGUMENTS_WITHOUT = {'backend', 'direction', 'hparams', 'fill_color', 'fill_std', 'total_level'}
OF_IMAGENET = {'RandomResizedCrop', 'ResizeEdge'}
"""Transforms of classifiers: those of the authors resample as Pillow does, without aliases."""
IN_RGB = {'CIFAR10'}
"""Data sets whose images are not BGR, so that nothing is swapped."""
STANDARD_HOOKS = {'EMAHook'}


def describe(cfg: Config) -> Recipe:
    """All fields of a resolved config that need no model."""
    return {**_optimizer(cfg), **_schedule(cfg), **_data(cfg), **_model(cfg)}


def number(value: float) -> str:
    """As short as it is exact to six digits: ``1e-06``, ``0.02``."""
    return f'{value:.6g}'


# -- optimizer -----------------------------------------------------------------------------------


def _optimizer(cfg: Config) -> Recipe:
    wrapper = cfg.optim_wrapper
    settings = wrapper.optimizer
    found = dict(optimizer=settings.type, lr=settings.lr)
    if 'momentum' in settings:
        found['momentum'] = settings.momentum
        if settings.get('nesterov'):
            found['optimizer'] += ', Nesterov'
    else:
        found['betas'] = ', '.join(map(number, settings.get('betas', (0.9, 0.999))))
        found['eps'] = settings.get('eps', 1e-8)
    found['weight_decay'] = settings.get('weight_decay', 0.01 if 'Adam' in settings.type else 0)
    found['clip'] = _clip(wrapper)
    kind = wrapper.type.rsplit('.', 1)[-1]
    amp = 'Amp' in kind or 'Autocast' in kind
    found['amp'] = wrapper.get('dtype', 'float16') if amp else 'no'
    found['accumulation'] = wrapper.get('accumulative_counts', 1)
    return found


def _clip(wrapper: dict) -> str:
    settings = wrapper.get('clip_grad')
    if not settings:
        return 'no'
    if 'AGC' in wrapper['type']:
        return f'adaptive {number(settings["clip_factor"])}'
    if settings.get('type') == 'value' or 'clip_value' in settings:
        return f'value {number(settings["clip_value"])}'
    return f'norm {number(settings["max_norm"])}'


# -- schedule ------------------------------------------------------------------------------------


def _schedule(cfg: Config) -> Recipe:
    loop = cfg.train_cfg
    epochs = loop.get('max_epochs')
    unit = 'epochs' if epochs else 'iterations'
    *first, last = cfg.param_scheduler
    after = ''
    if last['type'] == 'ConstantLR' and first:  # the rate stays as the schedule before leaves it
        after = f'; then constant to {last["end"]} {_unit(last)}'
        *first, last = first
    return dict(
        batch=cfg.auto_scale_lr.base_batch_size,
        length=f'{epochs or loop.max_iters} {unit}',
        warmup='; '.join(map(_warmup, first)) or 'no',
        schedule=_main(last) + after,
        ema=_ema(cfg),
        hooks='; '.join(_hooks(cfg)) or 'none',
    )


def _per(item: dict) -> str:
    """How often it changes the rate."""
    by_iteration = not item.get('by_epoch', True) or item.get('convert_to_iter_based')
    return 'each iteration' if by_iteration else 'each epoch'


def _unit(item: dict) -> str:
    return 'epochs' if item.get('by_epoch', True) else 'iterations'


def _warmup(item: dict) -> str:
    kind = 'constant' if item['type'] == 'ConstantLR' else 'linear'
    factor = number(item.get('start_factor', item.get('factor')))
    length = item['end']
    if kind == 'linear' and _per(item) == 'each epoch':
        length -= 1  # a LinearLR is at its end one step earlier: 1 of 1,251 counts less than 1 of 5
    return f'{kind} from x{factor} over {length} {_unit(item)}, {_per(item)}'


def _main(item: dict) -> str:
    if item['type'] == 'MultiStepLR':
        steps = ', '.join(map(str, item['milestones']))
        return f'x{number(item.get("gamma", 0.1))} at {steps} {_unit(item)}'
    floor = number(item.get('eta_min') or 0)
    if item.get('eta_min_ratio') is not None:
        floor = f'x{number(item["eta_min_ratio"])}'
    name = {'CosineAnnealingLR': 'cosine', 'PolyLR': f'poly {number(item.get("power", 1))}'}.get(
        item['type'], item['type']
    )
    end = item.get('begin', 0) + item['T_max'] if 'T_max' in item else item['end']
    return f'{name} to {floor} from {item.get("begin", 0)} to {end} {_unit(item)}, {_per(item)}'


def _ema(cfg: Config) -> str:
    for hook in cfg.get('custom_hooks') or ():
        if hook['type'] == 'EMAHook':
            return number(1 - hook.get('momentum', 0.0002))
    return 'no'


def _hooks(cfg: Config) -> Iterator[str]:
    for hook in cfg.get('custom_hooks') or ():
        if hook['type'] not in STANDARD_HOOKS:
            yield spelled(hook)


# -- data ----------------------------------------------------------------------------------------


def _data(cfg: Config) -> Recipe:
    train, test = cfg.train_dataloader, cfg.test_dataloader
    settings = {
        **(cfg.get('data_preprocessor') or {}),
        **(cfg.model.get('data_preprocessor') or {}),
    }
    found = dict(
        data=inner_dataset(train.dataset)['type'].removeprefix('hybrid_mm.'),
        sampler=train.sampler.type.removeprefix('mmpretrain.'),
        train=pipeline(inner_dataset(train.dataset)['pipeline']),
        test=pipeline(inner_dataset(test.dataset)['pipeline']) if test else 'none',
        mean=', '.join(map(number, settings['mean'])),
        std=', '.join(map(number, settings['std'])),
        channels='RGB' if inner_dataset(train.dataset)['type'] in IN_RGB else _channels(settings),
    )
    if cfg.default_scope == 'mmpretrain':
        return found
    found['pad'] = (
        f'to multiples of {settings["pad_size_divisor"]}'
        if (settings.get('pad_size_divisor', 1) > 1)
        else 'no'
    )
    if settings.get('size'):
        found['pad'] = 'to {} x {}'.format(*settings['size'])
    for augment in settings.get('batch_augments') or ():
        found['pad'] += f'; {spelled(augment)}'
    return found


def _channels(settings: dict) -> str:
    return 'RGB' if settings.get('bgr_to_rgb', settings.get('to_rgb')) else 'BGR'


def pipeline(steps: list[dict]) -> str:
    """Transforms in their order, without those that load and pack."""
    return '; '.join(spelled(step) for step in steps if step['type'] not in WITHOUT) or 'none'


def spelled(settings: dict) -> str:
    """A part of a config as a call: ``RandomFlip(prob=0.5)``."""
    name = settings['type'].rsplit('.', 1)[-1]
    if name == 'RandomChoice':
        return _choice(settings['transforms'])
    if name in OF_IMAGENET and settings.get('backend', 'cv2') != 'pillow':
        settings = dict(settings, resampling='cv2')
    items = [
        f'{key}={_value(value)}'
        for key, value in sorted(settings.items())
        if key != 'type' and key not in ARGUMENTS_WITHOUT
    ]
    return f'{name}({", ".join(items)})'


def _choice(pipelines: list) -> str:
    """Pipelines one of which is drawn; those that only resize are told by their sizes."""
    pipelines = [steps if isinstance(steps, (list, tuple)) else [steps] for steps in pipelines]
    if all(len(steps) == 1 and steps[0]['type'] == 'Resize' for steps in pipelines):
        return f'RandomChoiceResize(scales={_scales([s[0]["scale"] for s in pipelines])})'
    return 'RandomChoice({})'.format(' | '.join(pipeline(steps) for steps in pipelines))


def _scales(scales: list) -> str:
    """``480..800 step 32, longest 1333``, where that is what they are."""
    short = [min(s) if isinstance(s, (list, tuple)) else s for s in scales]
    long = {max(s) for s in scales if isinstance(s, (list, tuple))}
    steps = {b - a for a, b in itertools.pairwise(short)}
    if len(short) > 2 and len(steps) == 1:
        text = f'{short[0]}..{short[-1]} step {steps.pop()}'
    else:
        text = ' '.join(map(str, short))
    return f'{text}, longest {", ".join(map(str, sorted(long)))}' if long else text


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return str(value)
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, dict):
        if 'type' in value:
            return spelled(value)
        return '{' + ', '.join(f'{k}: {_value(v)}' for k, v in sorted(value.items())) + '}'
    if isinstance(value, (list, tuple)):
        if len(value) > 2 and all(isinstance(v, (list, tuple)) for v in value):
            return _scales(value)
        if len(value) > 3 and all(isinstance(v, dict) for v in value):  # policies
            return f'{len(value)} of them'
        return (
            ' x '.join(map(_value, value))
            if _is_size(value)
            else ('[' + ', '.join(map(_value, value)) + ']')
        )
    return str(value)


def _is_size(value: list | tuple) -> bool:
    return len(value) == 2 and all(isinstance(v, int) and v > 8 for v in value)


# -- model ---------------------------------------------------------------------------------------


def _model(cfg: Config) -> Recipe:
    model = cfg.model
    init = model.backbone.get('init_cfg') or model.get('init_cfg') or {}
    if isinstance(init, list):
        init = next((i for i in init if i.get('type') == 'Pretrained'), {})
    weights = init.get('checkpoint') or cfg.get('load_from')
    found = dict(weights=Path(weights).name if weights else 'none')
    tasks = dict(mmpretrain=_classifier, mmseg=_segmenter, mmpose=_pose)
    task = tasks.get(cfg.default_scope, _detector)
    return found | task(model)


def _classifier(model: dict) -> Recipe:
    loss = model['head'].get('loss') or {}
    mixing = (model.get('train_cfg') or {}).get('augments') or []
    mixing = [mixing] if isinstance(mixing, dict) else mixing
    kind = loss.get('type', 'CrossEntropyLoss')
    return dict(
        loss=f'{kind} {number(loss["label_smooth_val"])}' if 'label_smooth_val' in loss else kind,
        mixing='; '.join(map(spelled, mixing)) or 'none',
    )


def _segmenter(model: dict) -> Recipe:
    decoder, other = model['decode_head'], model.get('auxiliary_head')
    test = model['test_cfg']
    found = dict(head=_decoder(decoder), test_mode=test['mode'], auxiliary='none')
    if test['mode'] == 'slide':
        found['test_mode'] += ' {}, stride {}'.format(
            _value(tuple(test['crop_size'])), _value(tuple(test['stride']))
        )
    if other:
        others = other if isinstance(other, list) else [other]
        found['auxiliary'] = '; '.join(map(_decoder, others))
    return found


def _pose(model: dict) -> Recipe:
    head, test = model['head'], model['test_cfg']
    loss = head['loss']
    return dict(
        head=f'{head["type"]}, {head["out_channels"]} keypoints, {spelled(loss)}',
        test_mode=', '.join(f'{key}={_value(value)}' for key, value in sorted(test.items())),
    )


def _decoder(head: dict) -> str:
    """Type, width, dropout and weight of the loss."""
    name = head['type'].rsplit('.', 1)[-1]
    if 'num_queries' in head:
        return f'{name}, {head["num_queries"]} queries'
    loss = head.get('loss_decode') or {}
    losses = loss if isinstance(loss, list) else [loss]
    weights = ', '.join(number(one.get('loss_weight', 1.0)) for one in losses)
    dropout = number(head.get('dropout_ratio', 0.1))
    return f'{name}, {head.get("channels")} channels, dropout {dropout}, loss x{weights}'


def _detector(model: dict) -> Recipe:
    found = dict(head=model['type'])
    train, test = model.get('train_cfg') or {}, model.get('test_cfg') or {}
    for name in ('panoptic_head', 'bbox_head'):
        head = model.get(name) or {}
        if 'num_queries' in head:
            found['head'] += f', {head["num_queries"]} queries'
    if 'num_queries' in model:
        found['head'] += f', {model["num_queries"]} queries'
    if 'rpn' in train:
        proposals = train.get('rpn_proposal') or {}
        found['proposals'] = 'train {}, test {}'.format(
            proposals.get('max_per_img'), test['rpn'].get('max_per_img')
        )
        found['rpn_border'] = train['rpn'].get('allowed_border', -1)
    roi = model.get('roi_head')
    if roi:
        found['box_head'], found['mask_head'] = _boxes(roi['bbox_head']), _mask(roi)
    elif 'bbox_head' in model and 'loss_cls' in model['bbox_head']:
        found['box_head'] = _boxes(model['bbox_head'])
    last = test.get('rcnn') or test
    if 'score_thr' in last:
        nms = last.get('nms') or {}
        found['detections'] = (
            f'{last["max_per_img"]}, score {number(last["score_thr"])}, '
            f'{nms.get("type", "nms")} {number(nms.get("iou_threshold", 0))}'
        )
    return found


def _boxes(head: dict | list) -> str:
    """Type of the box head, its norm and its losses; of a cascade the heads that there are."""
    heads = head if isinstance(head, list) else [head]
    return '; '.join(dict.fromkeys(map(_box, heads)))


def _box(head: dict) -> str:
    norm = (head.get('norm_cfg') or {}).get('type', 'none')
    losses = [
        f'{loss["type"]} x{number(loss.get("loss_weight", 1.0))}'
        for loss in (head.get('loss_cls'), head.get('loss_bbox'))
        if loss
    ]
    return f'{head["type"]}, norm {norm}, {", ".join(losses)}'


def _mask(roi: dict) -> str:
    head = roi.get('mask_head')
    if not head:
        return 'none'
    heads = head if isinstance(head, list) else [head]
    return '; '.join(
        dict.fromkeys(
            f'{h["type"]}, norm {(h.get("norm_cfg") or {}).get("type", "none")}' for h in heads
        )
    )
