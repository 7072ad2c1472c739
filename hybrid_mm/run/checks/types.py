"""Types that a config names, before anything is read or built."""

import re
from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import (
    DATA_SAMPLERS,
    DATASETS,
    EVALUATOR,
    METRICS,
    MODELS,
    TRANSFORMS,
    DefaultScope,
    Registry,
)

from hybrid_mm.errors import UserError
from hybrid_mm.run.registered import nearest_type, registered_class

# parts of a model whose types are networks; others are in registries of their own
_NETWORK = re.compile(r'(.*_)?(backbone|neck|head)')


def check_type(path: str, settings: Any, registry: Registry) -> type | None:
    """Check that a type given by its name exists, and return its class.

    Args:
        path: Place of the settings in the config.
        settings: Part of a config; nothing is checked if it is no dict with a name as ``type``.
        registry: Where the name is looked up, in the current default scope.

    Raises:
        UserError: It does not exist; names the nearest ones.
    """
    name = settings.get('type') if isinstance(settings, dict) else None
    if not isinstance(name, str):
        return None
    with DefaultScope.overwrite_default_scope(settings.get('_scope_')):
        cls = registered_class(registry, name)
        if cls is None:
            with registry.switch_scope_and_registry(None) as node:
                hint = nearest_type(node, name)
            raise UserError(f'{path}.type {name!r} is not a registered {registry.name}{hint}')
    return cls


def check_types(cfg: Config, *parts: str) -> None:
    """Check the types of the model, and of data sets, transforms, samplers and metrics.

    They are what a missing file of data would hide until it is there.

    Args:
        cfg: Config of a run.
        parts: Those of ``'train'``, ``'val'``, ``'test'`` that it uses.

    Raises:
        UserError: A type does not exist; names the nearest ones.
    """
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        for path, node in _networks(cfg.get('model'), 'model'):
            check_type(path, node, MODELS)
        for part in parts:
            loader, key = cfg.get(f'{part}_dataloader'), f'{part}_dataloader'
            if isinstance(loader, dict):
                check_type(f'{key}.sampler', loader.get('sampler'), DATA_SAMPLERS)
                _check_dataset(loader.get('dataset'), f'{key}.dataset')
            _check_metrics(cfg.get(f'{part}_evaluator'), f'{part}_evaluator')


def _check_metrics(node: Any, path: str) -> None:
    """Check the types of metrics, of those in an evaluator as well."""
    if isinstance(node, list | tuple):
        for i, child in enumerate(node):
            _check_metrics(child, f'{path}.{i}')
    elif isinstance(node, dict) and 'metrics' in node:
        check_type(path, node, EVALUATOR)
        _check_metrics(node['metrics'], f'{path}.metrics')
    else:
        check_type(path, node, METRICS)


def _networks(node: Any, path: str, scope: str | None = None) -> Iterator[tuple[str, dict]]:
    """A model, its backbones, necks and heads, with their paths; in the scope around them."""
    if isinstance(node, list | tuple):
        for i, child in enumerate(node):
            yield from _networks(child, f'{path}.{i}', scope)
    elif isinstance(node, dict):
        scope = node.get('_scope_') or scope
        yield path, dict(node, _scope_=scope)
        for key, child in node.items():
            if _NETWORK.fullmatch(key):
                yield from _networks(child, f'{path}.{key}', scope)


def _check_dataset(node: Any, path: str) -> None:
    """Check the types of a data set, those in it, and its transforms."""
    if not isinstance(node, dict):
        return
    check_type(path, node, DATASETS)
    pipeline = node.get('pipeline')
    for i, step in enumerate(pipeline if isinstance(pipeline, list | tuple) else ()):
        check_type(f'{path}.pipeline.{i}', step, TRANSFORMS)
    _check_dataset(node.get('dataset'), f'{path}.dataset')
    children = node.get('datasets')
    for i, child in enumerate(children if isinstance(children, list | tuple) else ()):
        _check_dataset(child, f'{path}.datasets.{i}')
