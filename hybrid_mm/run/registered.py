"""Classes that a config names: where they are registered, and which arguments they take."""

from __future__ import annotations  # this file is read where MMEngine is missing, too

import difflib
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.registry import Registry


def registered_class(registry: Registry, name: str) -> Any:
    """Class of a name, or None; in the current default scope too, which ``get`` ignores."""
    with registry.switch_scope_and_registry(None) as node:
        return node.get(name)


def registered_names(registry: Registry) -> list[str]:
    """Names that a config may use for ``type``."""
    root = registry
    while root.parent is not None:
        root = root.parent
    names = []
    for child in (root, *root.children.values()):
        child.import_from_location()
        bare = child in (root, registry)
        names += [key if bare else f'{child.scope}.{key}' for key in child.module_dict]
    return names


def nearest_type(registry: Registry, name: str) -> str:
    """Hint at the types most like one that is not registered, or ''.

    Names are compared without their scope, which is what most often misses: those that need none go
    first, then those of the scope that was named, then ours. So it is among names that are equally
    like it.
    """
    scope, _, bare = name.rpartition('.')

    def rank(key: str) -> list[bool]:
        return ['.' in key, not key.startswith((f'{scope}.', 'hybrid_mm.'))]

    found: dict[str, list[str]] = {}
    for key in sorted(registered_names(registry), key=rank):
        found.setdefault(key.rpartition('.')[2].lower(), []).append(key)
    word = bare.lower()
    if word in found:
        hints = found[word]
    else:
        close = difflib.get_close_matches(word, found, n=20)
        like = {near: difflib.SequenceMatcher(None, near, word).ratio() for near in close}
        close.sort(key=lambda near: (-like[near], rank(found[near][0])))
        hints = [found[near][0] for near in close[:3]]
    return f'; did you mean {", ".join(hints)}?' if hints else ''


def arguments(target: Any) -> dict[str, Any]:
    """Arguments of a class, those of its bases included, or of a function; with their defaults."""
    found: dict[str, Any] = {}
    for base in reversed(getattr(target, '__mro__', (target,))):
        init = vars(base).get('__init__') if inspect.isclass(base) else base
        if inspect.isfunction(init):
            parameters = inspect.signature(init).parameters
            found |= {name: parameter.default for name, parameter in parameters.items()}
    return {k: v for k, v in found.items() if k not in ('self', 'args', 'kwargs')}
