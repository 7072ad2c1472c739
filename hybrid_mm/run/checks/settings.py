"""Checks of settings that MMEngine would refuse late, obscurely, or not at all."""

import inspect
from typing import Any

from mmengine.config import Config
from mmengine.registry import HOOKS, OPTIMIZERS, PARAM_SCHEDULERS, DefaultScope
from mmengine.runner import LogProcessor, Runner

from hybrid_mm.errors import UserError, nearest, plain_text, warn
from hybrid_mm.run.checks.channels import check_channels
from hybrid_mm.run.checks.types import check_type, check_types
from hybrid_mm.run.config import checkpoint_hook, nodes, require_library, task_of
from hybrid_mm.run.registered import arguments

# keys of `filter_cfg` that MMDetection's data sets read
FILTERS = ('filter_empty_gt', 'min_size', 'bbox_min_size')


def check_settings(cfg: Config) -> None:
    """Check the parts of a config that training needs, besides data and model.

    Raises:
        UserError: A part is missing or of another type, a number is not positive, or a type or
            argument does not exist; names it and the nearest names.
    """
    task_of(cfg)
    require_library(cfg)
    for key in ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'):
        if not isinstance(cfg.get(key), dict):
            raise UserError(f'training needs {key}: expected a dict, got {cfg.get(key)!r}')
    if not isinstance(cfg.get('resume', False), bool):
        raise UserError(f'resume must be True or False, got {cfg.resume!r}')
    if not isinstance(cfg.get('load_from'), str | None) or cfg.get('load_from') == '':
        raise UserError(f'load_from must be a file, a URL or None, got {cfg.load_from!r}')
    _check_template(checkpoint_hook(cfg).get('filename_tmpl'))
    for key in ('max_iters', 'max_epochs', 'val_interval'):
        _check_positive(f'train_cfg.{key}', cfg.train_cfg.get(key))
    for key in ('train_dataloader', 'val_dataloader'):
        loader = cfg.get(key) or {}
        _check_positive(f'{key}.batch_size', loader.get('batch_size'))
    count = cfg.optim_wrapper.get('accumulative_counts')
    _check_positive('optim_wrapper.accumulative_counts', count)
    scaling = cfg.get('auto_scale_lr') or {}
    _check_positive('auto_scale_lr.base_batch_size', scaling.get('base_batch_size'))
    if scaling.get('enable') and scaling.get('base_batch_size') is None:
        raise UserError(
            'auto_scale_lr.enable needs auto_scale_lr.base_batch_size, the total batch size that '
            'the learning rate is meant for'
        )
    _check_keys('randomness', cfg.get('randomness'), Runner.set_randomness)
    _check_keys('log_processor', cfg.get('log_processor'), LogProcessor)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        check_type('optim_wrapper.optimizer', cfg.optim_wrapper.get('optimizer'), OPTIMIZERS)
        _check_schedulers(cfg.get('param_scheduler'))
        _check_hooks(cfg)
    for path, node in nodes(cfg.train_dataloader, 'train_dataloader'):
        for key in node.get('filter_cfg') or {}:
            if key not in FILTERS and nearest(key, FILTERS, cutoff=0.8):
                raise UserError(f'{path}.filter_cfg has no key {key!r}{nearest(key, FILTERS)}')
    _check_nms(cfg.model)
    check_types(cfg, 'train', 'val')
    check_channels(cfg, 'train', 'val')
    _check_padding(cfg.model)


def _check_positive(path: str, value: Any) -> None:
    """Check a number that may be absent (None)."""
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int | float) or value < 1
    ):
        raise UserError(f'{path} must be a positive number, got {value!r}')


def _check_template(template: Any) -> None:
    """Check the names of checkpoints, which are made when the first one is saved."""
    try:
        if template is not None:
            template.format(1)
    except Exception as error:  # of `format`: several
        raise UserError(
            f'filename_tmpl {template!r} of the checkpoint hook cannot be filled with a number '
            f"({plain_text(error)}); it must be like 'iter_{{}}.pth' or 'iter_{{:06d}}.pth'"
        ) from error


def _check_keys(path: str, settings: dict | None, target: Any) -> None:
    """Check that a dict has no keys but the arguments of a class or function."""
    names = set(arguments(target)) | {'type', '_scope_'}
    for key in settings or {}:
        if key not in names:
            raise UserError(f'{path} has no key {key!r}{nearest(key, names)}')


def _check_schedulers(schedulers: Any) -> None:
    """Check the types of ``param_scheduler`` and their floors; MMEngine checks other arguments."""
    if isinstance(schedulers, str):
        raise UserError(
            f'param_scheduler must be a list of dicts, got the text {schedulers!r}; '
            '--cfg-options sets one as param_scheduler.0.KEY=VALUE'
        )
    for i, scheduler in enumerate(schedulers if isinstance(schedulers, list | tuple) else ()):
        if not isinstance(scheduler, dict):
            raise UserError(f'param_scheduler.{i} must be a dict, got {scheduler!r}')
        check_type(f'param_scheduler.{i}', scheduler, PARAM_SCHEDULERS)
        floors = {k: scheduler.get(k) for k in ('eta_min', 'eta_min_ratio')}
        if None not in floors.values():
            raise UserError(
                f'param_scheduler.{i} has eta_min={floors["eta_min"]} and '
                f'eta_min_ratio={floors["eta_min_ratio"]}; set one of them to None'
            )


def _check_hooks(cfg: Config) -> None:
    """Check the types of all hooks, and their arguments for misspelt ones.

    A hook with ``**kwargs`` accepts those, and fails only when it uses them, hours later.
    """
    hooks = {f'default_hooks.{k}': v for k, v in (cfg.get('default_hooks') or {}).items()}
    hooks |= {f'custom_hooks.{i}': v for i, v in enumerate(cfg.get('custom_hooks') or ())}
    for path, hook in hooks.items():
        if isinstance(hook, str):
            raise UserError(f'{path} must be a dict, got the text {hook!r}')
        cls = check_type(path, hook, HOOKS)
        if cls is None:
            continue
        names = set(arguments(cls)) | {'type', 'priority'}
        for key in hook:
            if key not in names and nearest(key, names, cutoff=0.8):
                raise UserError(f'{path} has no key {key!r}{nearest(key, names)}')


def _check_padding(model: dict[str, Any]) -> None:
    """Warn if label maps are padded with a label that a head neither has nor ignores."""
    pads = model.get('data_preprocessor') or {}
    if not str(pads.get('type')).endswith('SegDataPreProcessor'):
        return
    value = pads.get('seg_pad_val', 255)
    for path, node in nodes(model, 'model'):
        ignored = node.get('ignore_index')
        classes = node.get('num_classes')
        if isinstance(ignored, int) and isinstance(classes, int) and ignored != value >= classes:
            warn(
                f'{path}.ignore_index is {ignored}, but smaller images are padded with the label '
                f'{value}, which fails in the loss; use --cfg-options '
                f'model.data_preprocessor.seg_pad_val={ignored}'
            )


def _check_nms(model: dict[str, Any]) -> None:
    """Check the names of non-maximum suppressions; mmcv looks them up at the first validation."""
    for path, node in nodes(model, 'model'):
        nms = node.get('nms')
        if isinstance(nms, dict) and isinstance(nms.get('type'), str):
            from mmcv.ops import nms as operators

            known = vars(inspect.getmodule(operators))
            if nms['type'] not in known:
                names = [name for name in known if 'nms' in name]
                raise UserError(
                    f'{path}.nms.type {nms["type"]!r} is not known{nearest(nms["type"], names)}'
                )
