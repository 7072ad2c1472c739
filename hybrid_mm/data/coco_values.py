"""JSON values of annotation files, as other programs write them: numbers and flags as text."""

import json
from typing import Any

Id = int | str

_FLAGS = {'0': 0, '1': 1, 'false': 0, 'true': 1, '': 0}


def as_number(value: Any) -> int | float | None:
    """Number of a JSON value, also of one that was written as text; None if there is none."""
    if isinstance(value, str) and '_' not in value:
        for read in (int, float):
            try:
                return as_number(read(value))
            except ValueError:
                continue
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -1e15 < value < 1e15 else None  # neither infinite nor NaN, and exact


def as_whole(value: Any) -> int | None:
    """Whole number of a JSON value; see :func:`as_number`."""
    if type(value) is int:
        return value
    number = as_number(value)
    return int(number) if number is not None and number % 1 == 0 else None


def as_flag(value: Any) -> int | None:
    """0 or 1 of a JSON value; None if it is neither."""
    if isinstance(value, str):
        return _FLAGS.get(value.strip().lower())
    is_flag = isinstance(value, bool | int | float) and value in (0, 1)
    return int(value) if is_flag else None


def parsed(value: Any) -> Any:
    """A list or object that was written as text."""
    if isinstance(value, str) and value[:1] in ('[', '{'):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            pass
    return value


def is_id(value: Any) -> bool:
    """Whether a value can be an id: text, or a whole number that numpy can hold."""
    if isinstance(value, str):
        return bool(value.strip())
    return as_whole(value) is not None and abs(value) < 2**63


def find(value: Any, table: dict[Id, Any]) -> Id | None:
    """The key that a value stands for, if need be in another notation."""
    if not is_id(value):
        return None
    whole = as_whole(value)
    for key in (value, whole, str(whole)):
        if key is not None and key in table:
            return int(key) if isinstance(key, float) else key
    return None


def is_name(name: str) -> bool:
    """Whether an operating system can have a file of that name."""
    if not name.strip() or '\0' in name:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:  # half of a character
        return False
    return True


def is_box(box: Any) -> bool:
    """Whether a value is a list of four numbers that 32 bits can hold."""
    if type(box) is not list or len(box) != 4:
        return False
    for value in box:
        # a loop: all() is twice as slow, and there may be a million boxes
        if (type(value) is not float and type(value) is not int) or not -1e9 < value < 1e9:
            return False
    return True


def is_area(area: Any) -> bool:
    """Whether a value is a positive number that pycocotools takes for the area of an object."""
    return type(area) in (int, float) and 0 < area <= 1e10


def shown(value: Any) -> str:
    """A JSON value in a message."""
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) < 60 else f'{text[:57]}...'


def kind(value: Any) -> str:
    """Name of the type of a JSON value, for messages."""
    kinds = {dict: 'an object', list: 'a list', str: 'text', bool: 'true or false'}
    return 'null' if value is None else kinds.get(type(value), 'a number')
