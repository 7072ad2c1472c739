"""The one-line form of what a wrong config raises while it is built."""

import inspect
import re
import traceback
from typing import Any

from mmengine.registry import Registry

from hybrid_mm.errors import nearest, plain_text


def explain(error: BaseException) -> str | None:
    """One line for an exception that comes from the config, else None.

    Exceptions of a backbone's ``load_pretrained``, and those on the way through MMEngine's
    ``build_from_cfg`` (a wrong ``type`` or wrong arguments), are the user's; all others keep
    their traceback.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    builds = [frame for frame in frames if frame.f_code.co_name == 'build_from_cfg']
    if any(frame.f_code.co_name == 'load_pretrained' for frame in frames):
        return plain_text(error)  # a backbone that refuses its init_cfg.checkpoint
    if not builds or not isinstance(
        error, (TypeError, ValueError, KeyError, AssertionError, FileNotFoundError)
    ):
        return None
    build, message = builds[-1], plain_text(error)
    unknown = re.match(r'(\S+) is not in the (\S+)::(.+) registry', message)
    if unknown:
        name, _, kind = unknown.groups()
        names = _registered(build.f_locals['registry'], name.rpartition('.')[0])
        return f'type {name!r} is not a registered {kind}{nearest(name, names)}'
    cls = build.f_locals.get('obj_cls')
    if cls is None:
        return message
    name = getattr(cls, '__name__', str(cls))
    keyword = re.search(r"unexpected keyword argument '(\w+)'", message)
    if keyword:
        return f'{name} has no argument {keyword[1]!r}{nearest(keyword[1], arguments(cls))}'
    return f'cannot build {name}: {message}'


def _registered(node: Registry, scope: str) -> list[str]:
    """Names that a config may use for ``type``, seen from a registry: all, or of one scope."""
    root = node
    while root.parent is not None:
        root = root.parent
    names = []
    for child in (root, *root.children.values()):
        if scope in ('', child.scope):
            child.import_from_location()
            bare = not scope and child in (root, node)
            names += [key if bare else f'{child.scope}.{key}' for key in child.module_dict]
    return names


def registered_class(registry: Registry, kind: str) -> type | None:
    """Class of a name; in the current default scope too, which ``Registry.get`` ignores."""
    with registry.switch_scope_and_registry(None) as node:
        return node.get(kind)


def arguments(cls: type) -> dict[str, Any]:
    """Arguments of a class, those of its bases included, and their defaults."""
    found = {}
    for base in reversed(getattr(cls, '__mro__', (cls,))):
        init = vars(base).get('__init__') if inspect.isclass(base) else base
        if inspect.isfunction(init):
            parameters = inspect.signature(init).parameters
            found |= {name: parameter.default for name, parameter in parameters.items()}
    return {k: v for k, v in found.items() if k not in ('self', 'args', 'kwargs')}
