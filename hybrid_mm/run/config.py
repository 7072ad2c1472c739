"""Reading of configs, and questions to them."""

import ast
import difflib
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from hybrid_mm.errors import UserError, plain_text
from hybrid_mm.run.checks.overrides import check_effects, check_options
from hybrid_mm.run.checks.variables import parts_of
from hybrid_mm.run.config_folder import config_root
from hybrid_mm.run.foreign import config_file, missing_base, normalize, package_of

__all__ = ['load_config', 'task_of']

TASKS = {
    'mmdet': 'detection',
    'mmseg': 'segmentation',
    'mmpretrain': 'classification',
    'mmpose': 'pose',
    'mmrotate': 'detection',
}
"""Packages with models, and what these are for."""
BUILT_ON = {'mmrotate': 'mmdet'}
"""Packages whose configs name the models of another one."""
PACKAGES_OF_SETUP = ('mmdet', 'mmseg', 'mmpretrain')
"""Those that set-up installs; the others are described in docs/other_projects.md."""
Node = TypeVar('Node')


def load_config(path: str, options: dict[str, Any] | None = None) -> Config:
    """Read a config and merge ``--cfg-options`` into it.

    Args:
        path: File, or ``mmdet::FOLDER/FILE.py`` for one of an installed package.
        options: Values by dotted keys, as of ``--cfg-options``.

    Raises:
        UserError: There is no such file, it cannot be read, or an option names nothing.
    """
    path = config_file(path)
    if os.path.isdir(path):
        raise UserError(f'config {path} is a folder; expected the file of a config')
    if not os.path.isfile(path):
        raise UserError(f'config {path} does not exist{_nearest_configs(path)}')
    try:
        cfg = _read(path)
        if cfg.get('default_scope') is None and package_of(path):
            cfg.default_scope = package_of(path)  # some are made for the tools of one package
        normalize(cfg)
    except Exception as error:  # a config is a program
        text = _failed_import(error) or f'{type(error).__name__}: {error}'
        raise UserError(f'config {path}: {text}{missing_base(text)}') from error
    if options:
        check_options(cfg, options)
        check_effects(cfg, options)
        try:
            cfg.merge_from_dict(options)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f'--cfg-options: {plain_text(error)}') from error
        except AttributeError as error:  # of MMEngine's merging: "'list' object has no 'items'"
            raise UserError(
                f'--cfg-options {", ".join(options)}: the item of a list is a dict, not a list; '
                'set its fields one by one, or the whole list around it'
            ) from error
        if any(key.partition('.')[0] == 'custom_imports' for key in options):
            _import_custom(cfg)
    return cfg


def _read(path: str) -> Config:
    """Read the file of a config."""
    try:
        return Config.fromfile(path)
    except SystemError as error:
        # The parser of Python up to 3.11.7 and 3.12.1 miscounts when it is called while it runs,
        # as by the finalizer of an object (https://github.com/python/cpython/issues/106905).
        if 'recursion depth mismatch' not in str(error):
            raise
        return Config.fromfile(path)


def _import_custom(cfg: Config) -> None:
    """Import ``custom_imports`` that options have changed; MMEngine does when it reads a file."""
    try:
        import_modules_from_strings(**(cfg.custom_imports or dict(imports=None)))
    except (ImportError, TypeError) as error:
        text = _failed_import(error) or f'custom_imports: {error}'
        raise UserError(f'--cfg-options {text}') from error


def _failed_import(error: BaseException) -> str | None:
    """What is wrong with ``custom_imports``; MMEngine's text is a list of folders."""
    texts = ('custom modules', 'Failed to import')
    if not isinstance(error, ImportError) or not any(text in str(error) for text in texts):
        return None
    first: BaseException = error
    while first.__context__ is not None:
        first = first.__context__
    return (
        f'custom_imports: {type(first).__name__}: {first}. If this is a package of your own, '
        'install it (pip install -e FOLDER), or add its folder to PYTHONPATH'
    )


def _nearest_configs(path: str) -> str:
    """Hint at files of a similar name in the configs of this package and in the same folder."""
    roots = [root for root in (config_root(), Path(path).parent) if root and root.is_dir()]
    files = {}
    for root, pattern in zip(roots, ('**/*.py', '*.py'), strict=False):
        files.update({file.stem: os.path.relpath(file) for file in root.glob(pattern)})
    close = difflib.get_close_matches(Path(path).stem, files, n=3, cutoff=0.5)
    return f'; did you mean {", ".join(files[name] for name in close)}?' if close else ''


def task_of(cfg: Config) -> str:
    """Task of a config: by the package that its model is named with, else its ``default_scope``.

    Args:
        cfg: The config.

    Returns:
        'detection', 'segmentation', 'classification' or 'pose'.

    Raises:
        UserError: ``default_scope`` is missing or another one.
    """
    return TASKS[library_of(cfg)]


def library_of(cfg: Config) -> str:
    """Package that the model of a config belongs to: one of :data:`TASKS`.

    Raises:
        UserError: ``default_scope`` is missing or another one.
    """
    library = _library(cfg)
    if library is None:
        raise UserError(
            f'default_scope of {cfg.filename} is {cfg.get("default_scope")!r}; expected one of '
            f'{", ".join(TASKS)}'
        )
    return library


def _library(cfg: Config) -> str | None:
    model, scope = cfg.get('model'), cfg.get('default_scope')
    named = [scope]
    if isinstance(model, dict):
        named = [str(model.get('type')).partition('.')[0], model.get('_scope_'), scope]
    found = next((name for name in named if name in TASKS), None)
    return scope if found is not None and found == BUILT_ON.get(scope or '') else found


def require_library(cfg: Config) -> None:
    """Check that the package that the model of a config belongs to is installed, if it is known.

    Raises:
        UserError: It is not, or refuses what is installed beside it.
    """
    library = _library(cfg)
    if library is None:
        return
    page = 'installation' if library in PACKAGES_OF_SETUP else 'other_projects'
    if find_spec(library) is None:
        raise UserError(
            f'{library} is not installed, and {cfg.filename} belongs to it; docs/{page}.md tells '
            'how to install it'
        )
    try:
        import_module(library)
    except AssertionError as error:  # of the versions that it was made for
        raise UserError(
            f'{library} cannot be imported: {plain_text(error)} docs/{page}.md tells what fits '
            'together'
        ) from error


def require(cfg: Config, *keys: str) -> None:
    """Check that a config has some parts, as ``model.backbone``.

    Raises:
        UserError: It does not.
    """
    for key in keys:
        node: Any = cfg
        for part in key.split('.'):
            node = node.get(part) if isinstance(node, (dict, Config)) else None
        if not isinstance(node, dict):
            raise UserError(
                f'{cfg.filename or "the config"} has no {key}, or one that is not a dict; is it '
                'the config of a network?'
            )


def checkpoint_hook(cfg: Mapping[str, Any]) -> Mapping[str, Any]:
    """Config of the hook that saves the checkpoints of a run; empty if there is none."""
    hooks = [(cfg.get('default_hooks') or {}).get('checkpoint'), *(cfg.get('custom_hooks') or ())]
    for hook in hooks:
        if isinstance(hook, Mapping) and str(hook.get('type')).endswith('CheckpointHook'):
            return hook
    return {}


def check_texts(cfg: Config) -> None:
    """Check that a config can be written: that its paths are text, as UTF-8.

    MMEngine writes the config and these paths to the work dir, and OpenCV ends the process at a
    path that is no text.

    Raises:
        UserError: The config, the work dir or a value in the config is not.
    """
    texts = [('config', str(cfg.filename)), ('work_dir', os.path.abspath(cfg.work_dir))]
    for path, node in nodes(dict(cfg), ''):
        texts += [(f'{path}.{key}'[1:], v) for key, v in node.items() if isinstance(v, str)]
    for name, text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            shown = text.encode(errors='backslashreplace').decode()
            raise UserError(
                f'{name} {shown} is not UTF-8, and cannot be written to the log and the config of '
                'a run; rename it, or name it by a link'
            ) from error


def without_init_cfg(node: Node) -> Node:
    """Copy of a model's config without any ``init_cfg``, for a model that is given its weights."""
    if isinstance(node, dict):
        return type(node)({k: without_init_cfg(v) for k, v in node.items() if k != 'init_cfg'})
    if isinstance(node, (list, tuple)):
        return type(node)(without_init_cfg(item) for item in node)
    return node


def inner_dataset(dataset: dict[str, Any]) -> dict[str, Any]:
    """Config of a data set without the wrappers around it (those with a key ``dataset``)."""
    while 'dataset' in dataset:
        dataset = dataset['dataset']
    return dataset


def without_annotations(steps: list) -> list:
    """Steps of a pipeline without those that load annotations, also within ``TestTimeAug``."""
    kept = []
    for step in steps:
        if step['type'] == 'TestTimeAug':
            choices = [without_annotations(choice) for choice in step['transforms']]
            kept.append(dict(type='TestTimeAug', transforms=[c for c in choices if c]))
        elif 'Annotation' not in step['type']:
            kept.append(dict(step))
    return kept


def nodes(node: object, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """All dicts in a part of a config, each with its dotted path; ``path`` is that of the part."""
    for place, part in parts_of(node, path):
        if isinstance(part, dict):
            yield place, part


def with_options(cfg: Config, argv: list[str], options: dict[str, Any] | None) -> list[str]:
    """Arguments of a library's script: the config, ``argv``, and ``--cfg-options`` again."""
    pairs = [f'{key}={value}' for key, value in (options or {}).items()]
    return [cfg.filename, *argv, *(['--cfg-options', *pairs] if pairs else [])]


def literal_spec(text: str, where: str = '') -> dict[str, Any]:
    """Read ``dict(type='...', name=value, ...)`` of literals, nested ones included.

    Args:
        text: What the user wrote.
        where: The option it was given to, followed by a space, for messages.

    Raises:
        UserError: It is not such a text, or has no type.
    """
    try:
        spec = _literal(ast.parse(text, mode='eval').body)
    except (SyntaxError, ValueError) as error:
        raise UserError(
            f"{where}{text!r} is not a dict(type='...', name=value, ...) of literals"
        ) from error
    if not isinstance(spec, dict) or 'type' not in spec:
        raise UserError(f"{where}{text!r} has no type; write dict(type='...')")
    return spec


def _literal(node: ast.expr) -> Any:
    """Value of a literal, or of ``dict(...)`` of literals."""
    if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict' and not node.args:
        return {item.arg: _literal(item.value) for item in node.keywords}
    return ast.literal_eval(node)
