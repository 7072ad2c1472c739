"""Digests of configs: every value, and what optimizer and network make of them.

One digest per tree. ``(built)`` lines are of the model on the meta device: parameters by learning
rate (as a multiple of the base rate) and weight decay, with a hash of their names, and the rates of
all drop paths; of packages that set-up does not install, they are of the backbone alone.
``(recipe)`` lines say the same as recipes do, which the ledgers are compared with.
"""

import contextlib
import hashlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.optim.optimizer import default_constructor
from mmengine.registry import MODELS, DefaultScope

sys.path.append(str(Path(__file__).resolve().parents[1]))

from configs.loading import CONFIGS, fromfile, variables

from hybrid_mm.run.launch import set_training_amp

from . import built_recipe
from .of_networks import drop_path
from .shapes import Shapes, quiet
from .stored import Digest, Section

NOT_INSTALLED = ('mmrotate', 'mmpose')
"""Scopes of packages that set-up does not install."""
LINE = 100
"""Longest list or dict that stands in a line of its own."""
UNUSED_KEYS = '(built).custom_keys without parameters'
"""Keys of ``paramwise_cfg.custom_keys`` that hold for no parameter; no line if there are none."""


def trees() -> dict[str, list[Path]]:
    """Config files of every tree."""
    found: dict[str, list[Path]] = {}
    for path in sorted(CONFIGS.glob('*/*.py')):
        if path.parent.name != '_base_':
            found.setdefault(path.parent.name, []).append(path)
    return found


def compute(tree: str, names: set[str] | None = None) -> Digest:
    """Digest of a tree, or of some of its configs."""
    unset = {name: value for name, value in os.environ.items() if name not in variables()}
    with mock.patch.dict(os.environ, unset, clear=True):
        found = {
            path.stem: section(fromfile(path))
            for path in trees()[tree]
            if names is None or path.stem in names
        }
    _modules.clear()  # millions of objects, which every later collection of garbage would look at
    return found


def section(cfg: Config) -> Section:
    """All of a config."""
    found: Section = {}
    for key, value in cfg.to_dict().items():
        flatten(value, key, found)
    return found | built(cfg)


# -- values --------------------------------------------------------------------------------------


def _call(node) -> str | None:
    """A value in a line, if it fits."""
    if isinstance(node, dict):
        items = {k: _call(v) for k, v in node.items() if k != 'type'}
        if None in items.values():
            return None
        text = ', '.join(f'{key}={items[key]}' for key in sorted(items, key=str))
        text = f'{node["type"]}({text})' if isinstance(node.get('type'), str) else f'dict({text})'
        return text if len(text) <= LINE else None
    if isinstance(node, list | tuple):
        items = [_call(item) for item in node]
        if None in items:
            return None
        text = ', '.join(items)
        if isinstance(node, tuple):
            text = f'({text},)' if len(node) == 1 else f'({text})'
        else:
            text = f'[{text}]'
        # numbers stay together
        return text if len(text) <= (LINE if 'dict(' in text or '=' in text else 300) else None
    return repr(node)


def _nested(node) -> bool:
    return isinstance(node, dict | list | tuple)


def flatten(node, key: str, found: Section) -> None:
    """Note a value below a key: dicts key by key, lists of dicts item by item."""
    if isinstance(node, dict) and node:
        for name, value in node.items():
            flatten(value, f'{key}.{name}', found)
        return
    if isinstance(node, list | tuple) and any(_nested(item) for item in node):
        text = _call(node)
        if text is not None and '=' not in text:
            found[key] = text
            return
        if isinstance(node, tuple):
            found[key] = 'a tuple'
        for i, item in enumerate(node):
            text = _call(item)
            if text is None:
                flatten(item, f'{key}[{i}]', found)
            else:
                found[f'{key}[{i}]'] = text
        return
    found[key] = repr(node)


# -- what they mean ------------------------------------------------------------------------------


class Recorder(torch.optim.Optimizer):
    """An optimizer that keeps its groups and settings, and does not check them."""

    def __init__(self, params, **defaults) -> None:
        params = list(params)
        if params and not isinstance(params[0], dict):
            params = [dict(params=params)]
        self.defaults = defaults
        self.param_groups = [{**defaults, **group} for group in params]


def _weightless(node):
    """A config of a model without its ``init_cfg``."""
    if isinstance(node, dict):
        return {key: _weightless(value) for key, value in node.items() if key != 'init_cfg'}
    if isinstance(node, list | tuple):
        return type(node)(_weightless(item) for item in node)
    return node


@contextlib.contextmanager
def _scope(cfg: Config) -> Iterator[None]:
    scope = 'hybrid_mm' if cfg.default_scope in NOT_INSTALLED else cfg.default_scope
    silent = mock.patch.object(default_constructor, 'print_log', lambda *args, **kwargs: None)
    # OpenMMLab's constructors of a layer decay log and print a line per parameter
    mute = mock.patch.object(MMLogger, 'info', lambda *args, **kwargs: None)
    with (
        DefaultScope.overwrite_default_scope(scope),
        silent,
        mute,
        contextlib.redirect_stdout(io.StringIO()),
        quiet(),
    ):
        yield


_modules: dict[str, torch.nn.Module] = {}


def _module(settings: dict, scope: str) -> torch.nn.Module:
    """Build a module, or take the one that was built before for the same tree."""
    key = f'{scope} {settings}'
    if key not in _modules:
        with Shapes(fill=False):
            _modules[key] = MODELS.build(ConfigDict(settings))
    return _modules[key]


def _model(settings: dict, scope: str) -> torch.nn.Module:
    """Build a model; many configs have one neck and one head, or one backbone."""
    if scope in NOT_INSTALLED:
        model = torch.nn.Module()
    else:
        model = _module({**settings, 'backbone': dict(type=torch.nn.Identity)}, scope)
    model.backbone = _module(settings['backbone'], scope)
    return model


def built(cfg: Config) -> Section:
    """Optimizer groups and drop path of a config's model."""
    with _scope(cfg):
        model = _model(_weightless(cfg.model.to_dict()), cfg.default_scope)
        wrapper = cfg.optim_wrapper
        set_training_amp(cfg, None, off=True)  # MMEngine builds mixed precision on a GPU only
        wrapper.optimizer.type = Recorder
        optimizer = build_optim_wrapper(model, wrapper).optimizer
    found = {f'(built).{key}': value for key, value in _groups(model, optimizer).items()}
    found['(built).drop_path'] = drop_path(model)
    settings = wrapper.get('paramwise_cfg') or {}
    rate = settings.get('layer_decay_rate', settings.get('decay_rate'))  # ours, OpenMMLab's
    keys = settings.get('custom_keys') or {}
    if unused := set(keys) - {_key_of(name, keys) for name, _ in model.named_parameters()}:
        found[UNUSED_KEYS] = ', '.join(sorted(unused))
    told = built_recipe.describe(model, optimizer.param_groups, optimizer.defaults, rate)
    if cfg.default_scope in NOT_INSTALLED:
        del told['head_norm']  # nothing is known of heads
    return found | {f'{built_recipe.PREFIX}{key}': value for key, value in told.items()}


def _key_of(name: str, keys: dict) -> str | None:
    """The key of ``custom_keys`` that holds for a parameter: the longest within its name."""
    return next((key for key in sorted(sorted(keys), key=len, reverse=True) if key in name), None)


def _groups(model: torch.nn.Module, optimizer: Recorder) -> Section:
    names = {id(p): name for name, p in model.named_parameters()}
    members: dict[str, list[torch.Tensor]] = {}
    for group in optimizer.param_groups:
        setting = _setting(group, optimizer.defaults)
        for p in group['params']:
            members.setdefault(setting if p.requires_grad else 'frozen', []).append(p)
    return {key: _counted(tensors, names) for key, tensors in members.items()}


def _counted(tensors: list[torch.Tensor], names: dict[int, str]) -> str:
    listed = '\n'.join(sorted(names[id(p)] for p in tensors))
    tag = hashlib.sha256(listed.encode()).hexdigest()[:8]
    return f'{len(tensors)} tensors, {sum(p.numel() for p in tensors)} elements, names {tag}'


def _setting(group: dict, defaults: dict) -> str:
    """What is particular of a group; rates and decays as multiples of the optimizer's."""
    text = []
    for key, value in defaults.items():
        if key in ('lr', 'weight_decay'):
            text.append(f'{key}*{group[key] / value:.4g}' if value else f'{key} {group[key]:.4g}')
        elif group[key] != value:
            text.append(f'{key} {group[key]}')
    return ' '.join(text)
