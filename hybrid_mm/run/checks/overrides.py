"""Checks of the keys of ``--cfg-options``."""

import inspect
from typing import Any

from mmengine.config import Config
from mmengine.runner import FlexibleRunner, Runner

from hybrid_mm.errors import UserError, nearest, warn

# top-level keys that the runner (or a tool) reads from the whole config, not as an argument
EXTRA_KEYS = {
    *('model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'runner_type', 'tta_model'),
    *('tta_pipeline', 'custom_imports', 'efficient_conv_bn_eval', 'fp16'),
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
    runner_keys = EXTRA_KEYS.union(
        *(inspect.signature(runner.__init__).parameters for runner in (Runner, FlexibleRunner))
    )
    for key in options:
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
