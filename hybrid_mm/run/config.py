"""Reading of configs, and what is asked of them."""

import ast
import difflib
import os
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from hybrid_mm.errors import UserError, plain_text
from hybrid_mm.run.checks.overrides import check_options


def without_init_cfg(spec):
    """Copy of a model's config without ``init_cfg``, for a model that gets its weights later."""
    if isinstance(spec, dict):
        return type(spec)({k: without_init_cfg(v) for k, v in spec.items() if k != 'init_cfg'})
    if isinstance(spec, (list, tuple)):
        return type(spec)(without_init_cfg(item) for item in spec)
    return spec


TASKS = {'mmdet': 'detection', 'mmseg': 'segmentation', 'mmpretrain': 'classification'}


def config_root() -> Path | None:
    """Folder of the configs of this package: of the source tree, else of the installed wheel."""
    package = Path(__file__).resolve().parents[1]
    for root in (package.parent / 'configs', package / '.mim' / 'configs'):
        if root.is_dir():
            return root
    return None


def load_config(path: str, options: dict | None = None) -> Config:
    """Read a config and merge ``--cfg-options`` into it.

    Raises:
        UserError: there is no such file, it cannot be read, or an option names nothing.
    """
    if not os.path.isfile(path):
        raise UserError(f'config {path} does not exist{_nearest_configs(path)}')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:
        raise UserError(f'config {path}: {type(error).__name__}: {error}') from error
    if options:
        check_options(cfg, options)
        try:
            cfg.merge_from_dict(options)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f'--cfg-options: {plain_text(error)}') from error
    return cfg


def with_options(cfg: Config, argv: list[str], options: dict | None) -> list[str]:
    """Arguments of a library's script: the config, ``argv``, and ``--cfg-options`` again."""
    pairs = [f'{key}={value}' for key, value in (options or {}).items()]
    return [cfg.filename, *argv, *(['--cfg-options', *pairs] if pairs else [])]


def literal_spec(text: str, where: str = '') -> dict:
    """Read ``dict(type='...', name=value, ...)`` of literals, nested ones included.

    Args:
        text: What the user wrote.
        where: Option that it stood behind, with a space, for messages.

    Raises:
        UserError: it is no such text, or has no type.
    """
    try:
        spec = _literal(ast.parse(text, mode='eval').body)
    except (SyntaxError, ValueError) as error:
        raise UserError(
            f"{where}{text!r} is no dict(type='...', name=value, ...) of literals"
        ) from error
    if not isinstance(spec, dict) or 'type' not in spec:
        raise UserError(f"{where}{text!r} has no type; write dict(type='...')")
    return spec


def _literal(node: ast.expr):
    """Literal, or ``dict(...)`` of literals."""
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict' and not node.args:
        return {item.arg: _literal(item.value) for item in node.keywords}
    return ast.literal_eval(node)


def _nearest_configs(path: str) -> str:
    """Nearest files by name, among the configs of this package and the folder asked for."""
    roots = [root for root in (config_root(), Path(path).parent) if root and root.is_dir()]
    files = {}
    for root, pattern in zip(roots, ('**/*.py', '*.py'), strict=False):
        files.update({file.stem: os.path.relpath(file) for file in root.glob(pattern)})
    stem = Path(path).stem
    close = difflib.get_close_matches(stem, files, n=3, cutoff=0.5)
    return f'; did you mean {", ".join(files[name] for name in close)}?' if close else ''


def task_of(cfg: Config) -> str:
    """Task of a config by its ``default_scope``.

    Returns:
        'detection', 'segmentation' or 'classification'.

    Raises:
        UserError: ``default_scope`` is missing or another one.
    """
    scope = cfg.get('default_scope')
    if scope not in TASKS:
        raise UserError(
            f'default_scope of {cfg.filename} is {scope!r}; expected one of {", ".join(TASKS)}'
        )
    return TASKS[scope]


def inner_dataset(dataset: dict) -> dict:
    """Config of a data set without wrappers around the one (``dataset``)."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def nodes(node: object, path: str) -> Iterator[tuple[str, dict]]:
    """All dicts in a part of a config, each with its path."""
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from nodes(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for i, value in enumerate(node):
            yield from nodes(value, f'{path}.{i}')
