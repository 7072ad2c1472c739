"""The config that a checkpoint stores as text, and how the config of a run differs from it."""

import ast
from collections.abc import Iterator
from typing import Any

# parts that decide how the training goes on
_PARTS = (
    *('model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'),
    *('auto_scale_lr', 'custom_hooks', 'skip_bad_samples', 'sync_bn'),
)
# keys within them that do not change the result: places, workers, memory, initial weights
_INDIFFERENT = {
    *('data_root', 'ann_file', 'data_prefix', 'img_prefix', 'backend_args', 'file_client_args'),
    *('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor'),
    *('init_cfg', 'with_cp', 'val_interval', 'val_begin', 'dynamic_intervals'),
}
# what tools/train.py adds, by the key of what it wraps; and hooks that only look on
_WRAPPERS = {
    'hybrid_mm.CheckedDataset': 'dataset',
    'hybrid_mm.SeededDataset': 'dataset',
    'hybrid_mm.PlacedSampler': 'sampler',
}
_ONLOOKERS = {
    *('hybrid_mm.ExactResumeHook', 'hybrid_mm.NonFiniteLossHook', 'hybrid_mm.MixingRatesHook'),
    *('NumClassCheckHook', 'CheckInvalidLossHook', 'EMAHook'),  # EMAHook is compared by itself
}


def stored_config(meta: dict[str, Any]) -> dict[str, Any] | None:
    """Config of the run that wrote a checkpoint; the text is read, not run as a program.

    Args:
        meta: ``meta`` of the checkpoint.

    Returns:
        None if there is none, or it is not the text of a config.
    """
    try:
        body = ast.parse(meta['cfg']).body
    except (KeyError, SyntaxError, TypeError, ValueError):
        return None
    return {
        line.targets[0].id: _value(line.value)
        for line in body
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    }


def _value(node: ast.expr) -> Any:
    """Value of nested literals and ``dict(...)``; of anything else, its text."""
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict' and not node.args:
        return {str(item.arg): _value(item.value) for item in node.keywords}
    if isinstance(node, ast.Dict):
        keys = [_value(key) if key else None for key in node.keys]
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """Settings of two configs that differ, and matter for what a training becomes.

    Returns:
        Dotted name, old value and new value of each; an absent one is None.
    """
    found = []
    for part in _PARTS:
        pair = [_bare(cfg.get(part)) for cfg in (old, new)]
        if part == 'custom_hooks':
            pair = [[h for h in hooks or [] if _type(h) not in _ONLOOKERS] for hooks in pair]
        found += list(_differences(pair[0], pair[1], part))
    return found


def _type(node: Any) -> Any:
    return node.get('type') if isinstance(node, dict) else None


def _bare(node: Any) -> Any:
    """Part of a config without the wrappers of this package, with lists for tuples."""
    if isinstance(node, dict):
        inner = _WRAPPERS.get(str(node.get('type')))
        if inner in node:
            return _bare(node[inner])
        return {key: _bare(value) for key, value in node.items()}
    if isinstance(node, list | tuple | set):
        return [_bare(item) for item in node]
    return node


def _differences(old: Any, new: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            if key not in _INDIFFERENT:
                yield from _differences(old.get(key), new.get(key), f'{path}.{key}')
    elif _alike(old, new):
        for i, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _differences(a, b, f'{path}.{i}')
    elif old != new and (isinstance(new, str | float | int | None) or str(old) != str(new)):
        yield path, old, new


def _alike(old: Any, new: Any) -> bool:
    """Whether two lists have dicts of the same types at the same places."""
    if not isinstance(old, list) or not isinstance(new, list) or len(old) != len(new):
        return False
    pairs = list(zip(old, new, strict=True))
    return all(
        isinstance(a, dict) and isinstance(b, dict) and a.get('type') == b.get('type')
        for a, b in pairs
    )
