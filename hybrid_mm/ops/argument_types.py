"""Arguments of constructors are of the type that their annotation says, or a ValueError names them.

``'false'`` from a command line is true, 1.5 kernels and 'x' heads end somewhere inside of torch:
:func:`typed_arguments` compares every argument with its annotation before a constructor runs.
"""

import collections.abc
import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from hybrid_mm.errors import nearest
from hybrid_mm.ops.arguments import owner_name, positive

__all__ = ['check_keywords', 'check_type', 'sized_arguments', 'typed_arguments']

F = TypeVar('F', bound=Callable[..., None])

_SINGULAR = {
    bool: 'True or False',
    int: 'an integer',
    float: 'a number',
    str: 'a string',
    type(None): 'None',
    Mapping: 'a dict',
    dict: 'a dict',
}
_PLURAL = {bool: 'booleans', int: 'integers', float: 'numbers', str: 'strings'}
_LISTS = (Sequence, list, tuple, collections.abc.Sequence)


def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Origin and arguments of a type, what is annotated without its annotations."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    origin = get_origin(hint)
    return (hint, ()) if origin is None else (origin, get_args(hint))


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of a type; unknown kinds of types take everything.

    An integer is a number, True and False are neither; lists and tuples are the same.
    """
    kind, inner = _parts(hint)
    if kind is Any:
        return True
    if kind in (Union, types.UnionType):
        return any(fits(value, choice) for choice in inner)
    if kind is Literal:
        return isinstance(value, str | int | bool | None) and value in inner
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind in _LISTS:
        if not isinstance(value, list | tuple | range):
            return False
        if kind is tuple and inner and inner[-1] is not Ellipsis:
            return len(value) == len(inner) and all(map(fits, value, inner))
        return not inner or all(fits(item, inner[0]) for item in value)
    if kind is collections.abc.Callable:
        return callable(value)
    return isinstance(value, kind) if isinstance(kind, type) else True


def described(hint: Any) -> str:
    """A type in words."""
    kind, inner = _parts(hint)
    if kind in (Union, types.UnionType):
        return ' or '.join(described(choice) for choice in inner)
    if kind is Literal:
        return ' or '.join(map(repr, inner))
    if kind in _LISTS:
        if kind is tuple and inner and inner[-1] is not Ellipsis:
            return f'{len(inner)} {_plural(inner[0])}'
        return f'a list of {_plural(inner[0] if inner else Any)}'
    if kind is collections.abc.Callable:
        return 'a function'
    return _SINGULAR.get(kind) or f'a {getattr(kind, "__name__", kind)}'


def _plural(hint: Any) -> str:
    kind, inner = _parts(hint)
    if kind in (Union, types.UnionType):
        return ' or '.join(_plural(choice) for choice in inner)
    if kind in _LISTS:
        return f'lists of {_plural(inner[0] if inner else Any)}'
    return _PLURAL.get(kind) or ('None' if kind is type(None) else 'items')


def check_type(owner: object, name: str, value: Any, hint: Any) -> None:
    """Check one argument.

    Args:
        owner: The object whose arguments it is, or the name of its class; for the message.
        name: Name of the argument.
        value: What was given.
        hint: The type that is expected.

    Raises:
        ValueError: It is of another type.
    """
    if not fits(value, hint):
        raise ValueError(f'{owner_name(owner)}: {name} must be {described(hint)}, got {value!r}')


@functools.cache
def _hints(function: Callable) -> tuple[inspect.Signature, dict[str, Any]]:
    signature = inspect.signature(function)
    hints = get_type_hints(function, include_extras=True)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = {
        name: hints[name]
        for name, parameter in signature.parameters.items()
        if name in hints and parameter.kind not in variable
    }
    return signature, known


def check_keywords(
    owner: object, name: str, given: Mapping[str, Any], constructor: Callable
) -> None:
    """Check the names, and where they are annotated the types, of arguments in a dict.

    Args:
        owner: For the message.
        name: Of the dict.
        given: The dict.
        constructor: Function or class that takes them.

    Raises:
        ValueError: An unknown name, or a value of another type.
    """
    function: Callable = constructor
    if isinstance(constructor, type):
        function = constructor.__init__  # type: ignore[misc]
    signature, hints = _hints(function)
    for key, value in given.items():
        if key not in signature.parameters:
            known = [each for each in signature.parameters if each != 'self']
            raise ValueError(
                f'{owner_name(owner)}: {name} has an unknown key {key!r}{nearest(key, known)}, '
                f'got {given!r}'
            )
        if key in hints and (key, value) != ('momentum', None):  # torch 2.1 calls it a float
            check_type(owner, f'{name}.{key}', value, hints[key])


def _counts(hint: Any) -> bool:
    """Whether all numbers of a type are integers: sizes, channels, numbers of heads."""
    kind, inner = _parts(hint)
    return kind is int or (kind is not float and bool(inner) and any(map(_counts, inner)))


def typed_arguments(
    constructor: F, but: Sequence[str] = (), whole: Callable[..., None] | None = None
) -> F:
    """Decorate an ``__init__`` so that it checks the types of its arguments first.

    Args:
        constructor: What is decorated.
        but: Arguments that are left to it.
        whole: Further check of arguments that are integers, of :mod:`hybrid_mm.ops.arguments`.
    """

    @functools.wraps(constructor)
    def checked(self: object, *args: Any, **kwargs: Any) -> None:
        signature, hints = _hints(constructor)
        try:
            given = signature.bind(self, *args, **kwargs).arguments
        except TypeError:
            given = {}  # Python says itself what is missing or unknown
        for name, value in given.items():
            if name in hints and name not in but:
                check_type(self, name, value, hints[name])
                if whole is not None and _counts(hints[name]):
                    whole(self, **{name: value})
        constructor(self, *args, **kwargs)

    return checked  # type: ignore[return-value]


def sized_arguments(constructor: F) -> F:
    """:func:`typed_arguments` of a layer: integers are sizes, which must be positive.

    Args:
        constructor: The ``__init__``.
    """
    return typed_arguments(constructor, whole=positive)
