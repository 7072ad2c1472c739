"""Classes that a config names: where they are registered, and which arguments they take."""

from __future__ import annotations  # this file is read where MMEngine is missing, too

import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.registry import Registry


def registered_class(registry: Registry, name: str) -> Any:
    """Class of a name, or None; in the current default scope too, which ``get`` ignores."""
    with registry.switch_scope_and_registry(None) as node:
        return node.get(name)


def registered_names(registry: Registry, scope: str = '') -> list[str]:
    """Names that a config may use for ``type``: all, or those that begin with a scope."""
    root = registry
    while root.parent is not None:
        root = root.parent
    names = []
    for child in (root, *root.children.values()):
        if scope in ('', child.scope):
            child.import_from_location()
            bare = not scope and child in (root, registry)
            names += [key if bare else f'{child.scope}.{key}' for key in child.module_dict]
    return names


def arguments(target: Any) -> dict[str, Any]:
    """Arguments of a class, those of its bases included, or of a function; with their defaults."""
    found: dict[str, Any] = {}
    for base in reversed(getattr(target, '__mro__', (target,))):
        init = vars(base).get('__init__') if inspect.isclass(base) else base
        if inspect.isfunction(init):
            parameters = inspect.signature(init).parameters
            found |= {name: parameter.default for name, parameter in parameters.items()}
    return {k: v for k, v in found.items() if k not in ('self', 'args', 'kwargs')}
