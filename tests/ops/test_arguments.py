"""Every check names class, argument, expectation and value."""

import math

import pytest

from hybrid_mm.ops import arguments as checks


class Net:
    """Something that is built."""


GOOD = [
    (checks.positive, [1, 0.5, None, [1, (2, 3)], []]),
    (checks.not_negative, [0, 0.0, 3, [0, None], False]),
    (checks.fraction, [0, 0.0, 0.999, [0.1, 0.2]]),
    (checks.odd, [1, 3, [5, (7, 1)]]),
]
BAD = [
    (
        checks.positive,
        'must be positive',
        [0, -1, [4, 0], (1, [2, -2]), 0.0, math.nan, math.inf, 'x'],
    ),
    (checks.not_negative, 'must be finite and not negative', [-1, [0, -0.5], math.nan, math.inf]),
    (checks.fraction, r'must lie in \[0, 1\)', [1, 1.0, -0.1, math.nan, [0.5, 2]]),
    (checks.odd, 'must be odd and positive', [0, 2, -1, [3, 4], 2.5, math.nan]),
]


@pytest.mark.parametrize(('check', 'values'), GOOD, ids=lambda x: getattr(x, '__name__', ''))
def test_good_numbers(check, values):
    for value in values:
        check(Net(), width=value)


@pytest.mark.parametrize(
    ('check', 'expected', 'values'), BAD, ids=lambda x: getattr(x, '__name__', '')
)
def test_bad_numbers(check, expected, values):
    for value in values:
        with pytest.raises(ValueError, match=rf'^Net: width {expected}, got ') as caught:
            check(Net(), depth=None, width=value)
        assert str(caught.value).endswith(repr(value))
    with pytest.raises(ValueError, match=rf'^Other: arch\.width {expected}, got'):
        check('Other', **{'arch.width': values[0]})


def test_divisors_and_multiples():
    checks.divides(Net(), 12, heads=[1, 3, 12])
    checks.multiple_of(Net(), 32, widths=[32, 64])
    for heads in (0, 5, -3, 24):
        with pytest.raises(ValueError, match=f'heads must divide the 12 channels, got {heads}'):
            checks.divides(Net(), 12, heads=heads)
    for width in (0, 48, -32):
        with pytest.raises(ValueError, match=f'width must be a multiple of 32, got {width}'):
            checks.multiple_of(Net(), 32, width=width)


def test_choices():
    checks.one_of(Net(), ('a', 'b'), mode='a', other='b')
    with pytest.raises(ValueError, match=r"^Net: mode must be one of a, b, got 'c'"):
        checks.one_of(Net(), dict(a=1, b=2), mode='c')


def test_values_for_stages_and_sides():
    assert checks.per_stage(Net(), 3, heads=2) == (2, 2, 2)
    assert checks.per_stage(Net(), 2, heads=[1, 2]) == (1, 2)
    for value in ([1], [], (1, 2, 3)):
        with pytest.raises(ValueError, match='heads must have one entry for each of the 2 stages'):
            checks.per_stage(Net(), 2, heads=value)
    assert checks.sides(Net(), size=7) == (7, 7)
    assert checks.sides(Net(), size=[3, 4]) == (3, 4)
    for value in ([1], (1, 2, 3), []):
        with pytest.raises(ValueError, match=r'size must be one number or \(rows, columns\)'):
            checks.sides(Net(), size=value)
    for value in (0, (4, -1)):
        with pytest.raises(ValueError, match='size must be positive'):
            checks.sides(Net(), size=value)


def test_arguments_that_a_class_sets_itself():
    checks.left_out(Net(), dict(a=1), 'b', 'c')
    with pytest.raises(ValueError, match=r'^Net sets b itself; leave it out'):
        checks.left_out(Net(), dict(a=1, b=2), 'c', 'b')
