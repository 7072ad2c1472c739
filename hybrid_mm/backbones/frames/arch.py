"""Variants of networks: frozen dataclasses whose fields say what their values must be.

A network has a subclass of :class:`Arch`, and a table ``arch_zoo`` of its published variants. The
type of a field is one of the annotations below, which carry the check of its value; per-stage
settings have one entry per stage, all of one length.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Annotated, Any, ClassVar, NamedTuple, get_args, get_origin, get_type_hints

from typing_extensions import Self

from hybrid_mm.backbones.frames.other_names import Names, in_our_names
from hybrid_mm.errors import nearest
from hybrid_mm.ops.argument_types import check_type, fits
from hybrid_mm.ops.arguments import not_negative, odd, positive

__all__ = [
    'Arch',
    'Count',
    'Ratio',
    'Rule',
    'Size',
    'StageCounts',
    'StageKernels',
    'StageOptions',
    'StageRatios',
    'StageSizes',
]


class Rule(NamedTuple):
    """What is expected of a field.

    Attributes:
        check: Helper of :mod:`hybrid_mm.ops.arguments`, or None.
        per_stage: Whether it has one entry per stage.
    """

    check: Callable[..., None] | None = None
    per_stage: bool = False


# types of fields: sizes are positive, kernels odd, counts and ratios may be zero, options are
# whatever the subclass checks; those of stages have one entry per stage
Size = Annotated[int, Rule(positive)]
Count = Annotated[int, Rule(not_negative)]
Ratio = Annotated[float, Rule(not_negative)]
StageSizes = Annotated[Sequence[int], Rule(positive, per_stage=True)]
StageCounts = Annotated[Sequence[int], Rule(not_negative, per_stage=True)]
StageKernels = Annotated[Sequence[int], Rule(odd, per_stage=True)]
StageRatios = Annotated[Sequence[float], Rule(not_negative, per_stage=True)]
StageOptions = Annotated[Sequence[Any], Rule(per_stage=True)]


def _frozen(value: Any) -> Any:
    """Lists as tuples, also within others."""
    if isinstance(value, Mapping):
        return {key: _frozen(item) for key, item in value.items()}
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _parts(hint: Any) -> Iterator[Any]:
    """A type, and all types and rules within it."""
    yield hint
    for inner in get_args(hint):
        yield from _parts(inner)


@dataclass(frozen=True, kw_only=True)
class Arch:
    """Base of the variants of a network, and of parts of them that users give as dicts.

    Attributes:
        other_names: Names of fields in MMPretrain, with ours.
    """

    other_names: ClassVar[Names] = {}

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _frozen(getattr(self, field.name)))

    @classmethod
    def _hints(cls) -> dict[str, Any]:
        """Types of the fields."""
        hints = get_type_hints(cls, include_extras=True)
        return {field.name: hints[field.name] for field in fields(cls)}

    @classmethod
    @functools.cache
    def _rules(cls) -> tuple[dict[str, Rule], dict[str, type['Arch']]]:
        """Rules of the fields that have one, and classes of those that are dicts for users."""
        rules: dict[str, Rule] = {}
        parts: dict[str, type[Arch]] = {}
        for name, hint in cls._hints().items():
            for found in _parts(hint):
                if isinstance(found, Rule):
                    rules[name] = found
                elif (
                    get_origin(found) is None
                    and isinstance(found, type)
                    and issubclass(found, Arch)
                ):
                    parts[name] = found
        return rules, parts

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], owner: str, name: str = 'arch') -> Self:
        """Make a variant from a dict with the names of the fields as keys.

        Args:
            given: Keys and values; those with defaults may be missing.
            owner: Class of the network, for messages.
            name: Of the dict, for messages.

        Raises:
            ValueError: Missing or unknown keys, values that are not what the fields expect.
        """
        given = in_our_names(f'{name} of {owner}', given, cls.other_names)
        known = {field.name: field for field in fields(cls)}
        needed = {
            key
            for key, field in known.items()
            if field.default is MISSING and field.default_factory is MISSING
        }
        missing, unknown = sorted(needed - set(given)), sorted(set(given) - set(known))
        if missing or unknown:
            hints = ''.join(nearest(key, known) for key in unknown)
            raise ValueError(
                f'{name} of {owner} has the keys {sorted(known)}: missing {missing}, '
                f'unknown {unknown}{hints}'
            )
        parts = cls._rules()[1]
        values = {
            key: parts[key].from_dict(value, owner, f'{name}.{key}')
            if key in parts and isinstance(value, Mapping)
            else value
            for key, value in given.items()
        }
        made = cls(**values)
        made.check(owner, name)
        return made

    def to_dict(self) -> dict[str, Any]:
        """The variant as users write it."""
        return asdict(self)

    def check(self, owner: str, name: str = 'arch') -> None:
        """Check the values of all fields; a subclass adds how they have to fit each other.

        Args:
            owner: Class of the network, for messages.
            name: Of the variant, for messages.

        Raises:
            ValueError: A value that its field does not take, or lists of several lengths.
        """
        rules, parts = self._rules()
        hints = self._hints()
        for key, hint in hints.items():
            if key not in rules and key not in parts:
                check_type(owner, f'{name}.{key}', getattr(self, key), hint)
        lengths = {}
        for key, rule in rules.items():
            value = getattr(self, key)
            if rule.per_stage:
                if not isinstance(value, list | tuple):
                    raise ValueError(
                        f'{name}.{key} of {owner}: one entry per stage expected, got {value!r}'
                    )
                lengths[key] = len(value)
            elif isinstance(value, list | tuple):
                raise ValueError(f'{name}.{key} of {owner}: one value expected, got {value!r}')
            check_type(owner, f'{name}.{key}', value, hints[key])
            if rule.check is not None:
                rule.check(owner, **{f'{name}.{key}': value})
        if lengths and (len(set(lengths.values())) > 1 or 0 in lengths.values()):
            raise ValueError(f'{name} of {owner}: one entry per stage expected, got {lengths}')
        for key in parts:
            part = getattr(self, key)
            if isinstance(part, Arch):
                part.check(owner, f'{name}.{key}')
            elif not fits(part, hints[key]):
                raise ValueError(f'{name}.{key} of {owner} must be a dict, got {part!r}')
