"""Checks of arguments: one helper for each thing that can be expected of a number.

Every helper takes the object that is being built, or the name of its class, and arguments by name:
``positive(self, kernel_size=kernel_size)``. A value is a number, a sequence of numbers of which
each is checked, or None for an argument that is left out. All raise a ValueError that names the
class, the argument, what was expected and what was given.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

__all__ = [
    'divides',
    'fraction',
    'is_whole',
    'left_out',
    'multiple_of',
    'not_negative',
    'odd',
    'one_of',
    'owner_name',
    'per_stage',
    'positive',
    'sides',
    'stage_indices',
]


def owner_name(owner: object) -> str:
    """Name of a class: of an object, or the name itself.

    Args:
        owner: An object, or the name of a class.
    """
    return owner if isinstance(owner, str) else type(owner).__name__


def is_whole(value: Any) -> bool:
    """Whether a value is an integer; True and False are not.

    Args:
        value: Any value.
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def _numbers(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
    elif value is not None:
        yield value


def _check(
    owner: object, expected: str, holds: Callable[[Any], bool], arguments: dict[str, Any]
) -> None:
    for name, value in arguments.items():
        for number in _numbers(value):
            good = isinstance(number, Real) and math.isfinite(number) and holds(number)
            if not good:
                raise ValueError(f'{owner_name(owner)}: {name} {expected}, got {value!r}')


def positive(owner: object, **arguments: Any) -> None:
    """Check that numbers are finite and above 0.

    Args:
        owner: The object whose arguments they are, or the name of its class; for the message.
        **arguments: Numbers or sequences of them, by the names of the arguments.
    """
    _check(owner, 'must be positive', lambda number: number > 0, arguments)


def not_negative(owner: object, **arguments: Any) -> None:
    """Check that numbers are finite and at least 0.

    Args:
        owner: The object whose arguments they are, or the name of its class; for the message.
        **arguments: Numbers or sequences of them, by the names of the arguments.
    """
    _check(owner, 'must be finite and not negative', lambda number: number >= 0, arguments)


def fraction(owner: object, **arguments: Any) -> None:
    """Check that numbers lie in [0, 1): rates of dropout and drop path.

    Args:
        owner: The object whose arguments they are, or the name of its class; for the message.
        **arguments: Numbers or sequences of them, by the names of the arguments.
    """
    _check(owner, 'must lie in [0, 1)', lambda number: 0 <= number < 1, arguments)


def odd(owner: object, **arguments: Any) -> None:
    """Check that sizes are odd and positive: kernels and windows with a centre.

    Args:
        owner: The object whose arguments they are, or the name of its class; for the message.
        **arguments: Numbers or sequences of them, by the names of the arguments.
    """
    _check(
        owner, 'must be odd and positive', lambda number: number > 0 and number % 2 == 1, arguments
    )


def multiple_of(owner: object, divisor: int, **arguments: Any) -> None:
    """Check that sizes are multiples of ``divisor``, from 1 x ``divisor`` up.

    Args:
        owner: The object whose arguments they are, or the name of its class; for the message.
        divisor: What they must be multiples of.
        **arguments: Numbers or sequences of them, by the names of the arguments.
    """
    expected = f'must be a multiple of {divisor}'
    _check(owner, expected, lambda number: number > 0 and number % divisor == 0, arguments)


def divides(owner: object, channels: int, **arguments: Any) -> None:
    """Check that numbers are positive and divide a number of channels: heads, groups.

    Args:
        owner: The object whose arguments they are, or the name of its class; for the message.
        channels: The number that they have to divide.
        **arguments: Numbers or sequences of them, by the names of the arguments.
    """
    expected = f'must divide the {channels} channels'
    _check(owner, expected, lambda number: number > 0 and channels % number == 0, arguments)


def one_of(owner: object, known: Collection[Any], **arguments: Any) -> None:
    """Check that values are among the known ones, which the message lists.

    Args:
        owner: The object whose arguments they are, or the name of its class; for the message.
        known: The values that are allowed.
        **arguments: Values by the names of the arguments.
    """
    for name, value in arguments.items():
        if value not in known:
            raise ValueError(
                f'{owner_name(owner)}: {name} must be one of {", ".join(map(str, known))}, '
                f'got {value!r}'
            )


def per_stage(owner: object, stages: int, **argument: Any) -> tuple:
    """Return an argument with one entry per stage; a single value is taken for all of them.

    Args:
        owner: The object whose arguments they are, or the name of its class; for the message.
        stages: Number of stages.
        **argument: One argument: a value, or a list or tuple with one per stage.

    Raises:
        ValueError: Another number of entries.
    """
    ((name, value),) = argument.items()
    values = tuple(value) if isinstance(value, list | tuple) else (value,) * stages
    if len(values) != stages:
        raise ValueError(
            f'{owner_name(owner)}: {name} must have one entry for each of the {stages} stages, '
            f'got {value!r}'
        )
    return values


def stage_indices(owner: object, **argument: Any) -> tuple[int, ...]:
    """Return an argument that is one integer or a sequence of them as a tuple.

    Args:
        owner: The object whose arguments they are, or the name of its class; for the message.
        **argument: One argument: an index, or a sequence of them.

    Raises:
        ValueError: Anything else.
    """
    ((name, value),) = argument.items()
    try:
        listed = not isinstance(value, str | bytes | Mapping)
        indices = tuple(value) if listed else (value,)
    except TypeError:
        indices = (value,)
    if not all(is_whole(index) for index in indices):
        raise ValueError(
            f'{owner_name(owner)}: {name} must be one integer or a sequence of them, got {value!r}'
        )
    return tuple(int(index) for index in indices)


def sides(owner: object, **argument: int | Sequence[int]) -> tuple[int, int]:
    """Return rows and columns of an argument that is one size for both or a pair.

    Args:
        owner: The object whose arguments they are, or the name of its class; for the message.
        **argument: One argument: a size, or (rows, columns).

    Raises:
        ValueError: Another number of sizes, or one that is not positive.
    """
    ((name, value),) = argument.items()
    pair = tuple(value) if isinstance(value, list | tuple) else (value, value)
    if len(pair) != 2:
        raise ValueError(
            f'{owner_name(owner)}: {name} must be one number or (rows, columns), got {value!r}'
        )
    positive(owner, **{name: pair})
    return pair


def left_out(owner: object, given: dict[str, Any], *names: str) -> None:
    """Check that arguments which a class sets itself are not among the given ones.

    Args:
        owner: The object whose arguments they are, or the name of its class; for the message.
        given: The ``**kwargs`` of its constructor.
        *names: Arguments that must not be among them.
    """
    for name in names:
        if name in given:
            raise ValueError(f'{owner_name(owner)} sets {name} itself; leave it out')
