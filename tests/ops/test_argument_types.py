"""Types of arguments, by their annotations."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pytest
from torch import nn

from hybrid_mm.ops.argument_types import (
    check_keywords,
    described,
    fits,
    sized_arguments,
    typed_arguments,
)

# annotation: (words, values that fit, values that do not)
HINTS = {
    bool: ('True or False', [True], [1, 'false', None]),
    int: ('an integer', [-1, np.int64(3)], [True, 1.0, '3', None, [1]]),
    float: ('a number', [1, 1.5, np.float32(2)], [False, '1', None]),
    str: ('a string', ['x'], [b'x', 3]),
    int | None: ('an integer or None', [None, 3], [2.5, [3]]),
    Sequence[int]: ('a list of integers', [[1], (1, 2), range(2), []], ['12', 1, [1.5], [[1]]]),
    tuple[int, int]: ('2 integers', [(1, 2), [1, 2]], [(1,), (1, 2, 3), 1, ('1', 2)]),
    int | Sequence[int | None]: (
        'an integer or a list of integers or None', [1, [1, None]], [None, ['1'], [True]]),
    Sequence[Sequence[int]]: ('a list of lists of integers', [[[1], [2]]], [[1], [['1']]]),
    Mapping[str, Any] | None: ('a dict or None', [{}, None], [[], 'x', 0]),
    Literal['zero', 'mask']: ("'zero' or 'mask'", ['zero'], ['one', 0, []]),
    Callable[[int], int]: ('a function', [abs], ['abs']),
    Any: ('a Any', [object(), None], []),
}  # fmt: skip


@pytest.mark.parametrize('hint', HINTS, ids=str)
def test_what_fits_a_type(hint):
    words, good, bad = HINTS[hint]
    assert described(hint) == words
    for value in good:
        assert fits(value, hint), value
    for value in bad:
        assert not fits(value, hint), value


class Layer:
    @sized_arguments
    def __init__(self, size: int | tuple[int, int], rate: float = -0.5, **others: int) -> None:
        self.size, self.rate, self.others = size, rate, others


class Free:
    def __init__(self, a: int, b: str) -> None:
        self.a, self.b = a, b

    __init__ = typed_arguments(__init__, but=['b'])


def test_constructors():
    layer = Layer([1, 2], rate=-1, more='unchecked')
    assert (layer.size, layer.rate, layer.others) == ([1, 2], -1, dict(more='unchecked'))
    with pytest.raises(ValueError, match=r"Layer: size must be an integer or 2 int.*got '3'"):
        Layer('3')
    for bad in (0, (1, -1)):
        with pytest.raises(ValueError, match='Layer: size must be positive, got'):
            Layer(bad)
    with pytest.raises(ValueError, match='Layer: rate must be a number, got None'):
        Layer(1, None)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'size'"):
        Layer()
    assert Free(0, 3).b == 3
    with pytest.raises(ValueError, match=r'Free: a must be an integer, got 1\.5'):
        Free(1.5, 'x')


def test_arguments_in_a_dict():
    check_keywords('Net', 'norm', dict(eps=1, momentum=None), nn.BatchNorm2d)
    with pytest.raises(ValueError, match=r"Net: norm has an unknown key 'epz'; did you mean eps"):
        check_keywords('Net', 'norm', dict(epz=1), nn.BatchNorm2d)
    with pytest.raises(ValueError, match=r"Net: norm.eps must be a number, got '1'"):
        check_keywords('Net', 'norm', dict(eps='1'), nn.BatchNorm2d)
