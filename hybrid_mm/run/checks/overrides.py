"""Checks of the keys of ``--cfg-options``."""

import inspect
from typing import Any

from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner

from hybrid_mm.errors import UserError, nearest, warn
from hybrid_mm.run.checks.variables import environment_variable, uses_of

# top-level keys that the runner (or a tool) reads from the whole config, not as an argument
EXTRA_KEYS = {
    *('model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'runner_type', 'tta_model'),
    *('tta_pipeline', 'custom_imports', 'efficient_conv_bn_eval', 'fp16'),
    'activation_checkpointing',
    'skip_bad_samples',  # of our tools
}


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
                hint = nearest(part, names, cutoff=0.6 if depth == 0 else 0.8)
                if depth == 0 or hint:
                    raise UserError(f'--cfg-options {key}: {path} has no key {part!r}{hint}')
                break
            hint = nearest(part, node)
            if hint:
                warn(f'--cfg-options {key}: {path} has no key {part!r}, it is added{hint}')


def check_effects(cfg: Config, options: dict[str, Any]) -> None:
    """Check that ``--cfg-options`` change no variable that was used when the config was read.

    Raises:
        UserError: One would change nothing; names the keys to which the value of the variable went.
    """
    kept = _runner_keys() - {'self', 'cfg'}
    for key in options:
        _check_effect(cfg, key, options, kept)


def _runner_keys() -> set[str]:
    """Keys at the top level of a config that the runner or a tool reads."""
    return EXTRA_KEYS.union(
        *(inspect.signature(runner.__init__).parameters for runner in (Runner, FlexibleRunner))
    )


def _check_effect(cfg: Config, key: str, options: dict[str, Any], kept: set[str]) -> None:
    """Check that an option does not change a variable that was used when the config was read."""
    name, _, rest = key.partition('.')
    if (cfg.get('model') or {}).get('data_preprocessor') is not None:
        kept = kept - {'data_preprocessor'}  # the runner prefers that of the model
    if name in kept or name not in cfg:
        return
    uses = uses_of(cfg, name, kept)
    if not uses:
        warn(
            f'--cfg-options {key}: nothing in the config uses {name}; unless your own code reads '
            'it, nothing changes'
        )
        return
    end = f'.{rest}' if rest else ''
    exact = [f'{use.path}{end}' for use in uses if use.exact]
    other = [use.path for use in uses if not use.exact]
    if exact and all(path in options for path in exact):
        return  # they are set as well
    text = f'--cfg-options {key}: the config has used the variable {name} already, so that nothing '
    text += 'would change; '
    value = options[key]
    if exact:
        shown = f'={_written(value)}'
        text += f'set {" ".join(path + shown for path in exact)}'
    if other:
        text += f'{", and " if exact else "set "}what was computed from it: {", ".join(other)}'
    variable = environment_variable(cfg, name)
    if variable:
        text += f'; or set the environment variable {variable}'
    raise UserError(text)


def _written(value: Any) -> str:
    """A value as --cfg-options take it."""
    if isinstance(value, list | tuple):
        return '"[' + ','.join(map(_written, value)) + ']"'
    return str(value)
