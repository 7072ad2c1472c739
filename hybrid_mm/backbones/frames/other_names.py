"""Arguments under the names that other libraries, above all MMPretrain, have for them."""

import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias, TypeVar

F = TypeVar('F', bound=Callable[..., None])
Names: TypeAlias = Mapping[str, str | Callable[[Any], Mapping[str, Any]]]


def in_our_names(
    owner: str, given: Mapping[str, Any], names: Names, taken: Collection[str] = ()
) -> dict[str, Any]:
    """Arguments with our names in place of others.

    Args:
        owner: What takes them, for the message.
        given: Arguments by name.
        names: For every other name ours, or a function that makes our arguments of its value.
        taken: Our names of arguments that are given by their place.

    Raises:
        ValueError: An argument is given under both names.
    """
    found = {name: value for name, value in given.items() if name not in names}
    for name, value in given.items():
        if name not in names:
            continue
        rule = names[name]
        for ours, item in ({rule: value} if isinstance(rule, str) else rule(value)).items():
            if ours in found or ours in taken:
                raise ValueError(f'{owner}: {name} is another name of {ours}: leave one out')
            found[ours] = item
    return found


def takes_other_names(constructor: F) -> F:
    """Decorate an ``__init__`` so that it takes the names in ``other_names`` of its class."""
    places = list(inspect.signature(constructor).parameters)[1:]

    @functools.wraps(constructor)
    def renamed(self: Any, *args: Any, **kwargs: Any) -> None:
        owner = type(self)
        taken = places[: len(args)]
        constructor(self, *args, **in_our_names(owner.__name__, kwargs, owner.other_names, taken))

    return renamed  # type: ignore[return-value]
