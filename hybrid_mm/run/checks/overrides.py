"""Checks of the keys of ``--cfg-options``."""

import inspect
from typing import Any

from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner

from hybrid_mm.errors import UserError, nearest, shorten, warn
from hybrid_mm.run.checks.variables import environment_variable, parts_of, uses_of, value_at

# top-level keys that the runner (or a tool) reads from the whole config, not as an argument
EXTRA_KEYS = {
    *('model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'runner_type', 'tta_model'),
    *('tta_pipeline', 'custom_imports', 'efficient_conv_bn_eval', 'fp16'),
    'activation_checkpointing',
    'skip_bad_samples',  # of our tools
}

# names of MMCV 1 and of habit, and what has their meaning
RENAMED = (
    *(('max_iters', 'train_cfg.max_epochs'), ('max_epochs', 'train_cfg.max_iters')),
    *(('epochs', 'train_cfg.max_epochs'), ('total_epochs', 'train_cfg.max_epochs')),
    *(('iterations', 'train_cfg.max_iters'), ('runner.max_epochs', 'train_cfg.max_epochs')),
    *(('runner.max_iters', 'train_cfg.max_iters'), ('base_lr', 'optim_wrapper.optimizer.lr')),
    *(('data.samples_per_gpu', 'train_dataloader.batch_size'), ('lr_config', 'param_scheduler')),
    *(('data.workers_per_gpu', 'train_dataloader.num_workers'), ('seed', 'randomness.seed')),
    *(('optimizer_config', 'optim_wrapper'), ('checkpoint_config', 'default_hooks.checkpoint')),
    *(('log_config', 'default_hooks.logger'), ('evaluation', 'val_evaluator')),
)


def check_options(cfg: Config, options: dict[str, Any]) -> None:
    """Check that the keys of ``--cfg-options`` name something.

    A new key in an existing dict is legitimate (an argument that the config leaves at its default);
    there is a warning if it resembles another key. A top-level key that neither the config nor the
    runner has is an error, and so is a misspelt key on the way to a deeper one.

    Raises:
        UserError: names the key, what does not exist, and the nearest names.
    """
    runner_keys = _runner_keys()
    for key, value in options.items():
        if isinstance(value, str) and value.lstrip().startswith(('{', 'dict(')):
            raise UserError(
                f'--cfg-options {key}: {value} would be a text, not a dict; give its entries one '
                f'by one: {key}.NAME=VALUE'
            )
        node, parts = cfg._cfg_dict, key.split('.')
        for depth, part in enumerate(parts):
            path = '.'.join(parts[:depth]) or 'the config'
            last = depth == len(parts) - 1
            if isinstance(node, (list, tuple)):
                if not part.isdigit() or int(part) >= len(node):
                    raise UserError(
                        f'--cfg-options {key}: {path} is a list of {len(node)}; expected an index '
                        f'below that, got {part}'
                    )
                node = node[int(part)]
                continue
            if not isinstance(node, dict):
                raise UserError(f'--cfg-options {key}: {path} is {node!r} and has no keys')
            if part in node:
                node = node[part]
                continue
            if depth == 0 and part in runner_keys:
                break
            if depth == 0 or not last:
                names = runner_keys | set(node) if depth == 0 else set(node)
                hint = _deeper(cfg, key, _read_keys(cfg)) if depth == 0 else ''
                hint = hint or nearest(part, names, cutoff=0.7 if depth == 0 else 0.8)
                if depth == 0 or hint:
                    raise UserError(f'--cfg-options {key}: {path} has no key {part!r}{hint}')
                break
            hint = nearest(part, node, cutoff=0.75)
            if hint:
                warn(f'--cfg-options {key}: {path} has no key {part!r}, it is added{hint}')


def _deeper(cfg: Config, key: str, kept: set[str]) -> str:
    """Hint at keys of this name further down, or ''; the shortest paths are the likeliest."""
    name, _, rest = key.partition('.')
    found = [
        path
        for root in sorted(kept & set(cfg))
        for path, node in parts_of(cfg[root], root)
        if path.endswith(f'.{name}') and (not rest or isinstance(node, dict | list | tuple))
    ]
    found.sort(key=lambda path: (path.startswith(('val', 'test', 'tta')), path.count('.')))
    names = [f'{path}.{rest}' if rest else path for path in found]
    names = names or [new for old, new in RENAMED if old in (key, name)]
    return f'; did you mean {shorten(names, 4)}?' if names else ''


def check_effects(cfg: Config, options: dict[str, Any]) -> None:
    """Check that ``--cfg-options`` change no variable that was used when the config was read.

    Raises:
        UserError: One would change nothing; names the keys to which the value of the variable went.
    """
    kept = _read_keys(cfg)
    for key in options:
        _check_effect(cfg, key, options, kept)


def _runner_keys() -> set[str]:
    """Keys at the top level of a config that the runner or a tool reads."""
    return EXTRA_KEYS.union(
        *(inspect.signature(runner.__init__).parameters for runner in (Runner, FlexibleRunner))
    ) - {'self', 'cfg'}


def _read_keys(cfg: Config) -> set[str]:
    """Keys at the top level of a config that are read later on."""
    own = (cfg.get('model') or {}).get('data_preprocessor')  # which the runner prefers
    return _runner_keys() - ({'data_preprocessor'} if own is not None else set())


def _check_effect(cfg: Config, key: str, options: dict[str, Any], kept: set[str]) -> None:
    """Check that an option does not change a variable that was used when the config was read."""
    name, _, rest = key.partition('.')
    if name == 'data_preprocessor' and name not in kept and name not in cfg:
        raise UserError(
            f'--cfg-options {key}: the model has a data_preprocessor of its own, so that nothing '
            f'would change; set model.{key}={_written(options[key])}'
        )
    if name in kept or name not in cfg:
        return
    uses = uses_of(cfg, name, kept)
    if not uses:
        warn(
            f'--cfg-options {key}: nothing in the config uses {name}; unless your own code reads '
            f'it, nothing changes{_deeper(cfg, key, kept)}'
        )
        return
    end = f'.{rest}' if rest else ''
    exact = [f'{use.path}{end}' for use in uses if use.exact]
    joined = _joined(cfg, name, [use.path for use in uses if not use.exact], options[key])
    other = [use.path for use in uses if not use.exact and use.path not in joined]
    if all(_is_set(path, options) for path in exact or [*joined, *other]):
        return  # they are set as well
    text = f'--cfg-options {key}: the config has used the variable {name} already, so that nothing '
    text += 'would change; '
    settings = dict.fromkeys(exact, _written(options[key])) | joined
    if settings:
        text += f'set {" ".join(f"{path}={value}" for path, value in settings.items())}'
    if other:
        text += f'{", and " if settings else "set "}what was computed from it: {", ".join(other)}'
    variable = environment_variable(cfg, name)
    if variable:
        text += f'; or set the environment variable {variable}'
    raise UserError(text)


def _joined(cfg: Config, name: str, paths: list[str], value: Any) -> dict[str, str]:
    """New values of texts that begin with a variable, such as ``data_root + 'train.json'``."""
    old = cfg.get(name)
    if not isinstance(old, str) or not old or not isinstance(value, str):
        return {}
    texts = {path: value_at(cfg, path) for path in paths}
    folder = '/' if old.endswith('/') and not value.endswith('/') else ''
    return {
        path: f'{value}{folder}{text[len(old) :]}'
        for path, text in texts.items()
        if isinstance(text, str) and text.startswith(old)
    }


def _is_set(path: str, options: dict[str, Any]) -> bool:
    """Whether options set a path, or what it is a part of."""
    return any(f'{path}.'.startswith(f'{option}.') for option in options)


def _written(value: Any) -> str:
    """A value as --cfg-options take it."""
    if isinstance(value, list | tuple):
        return '"[' + ','.join(map(_written, value)) + ']"'
    return str(value)
