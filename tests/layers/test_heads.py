"""Widths of heads."""

import pytest

from hybrid_mm.layers.heads import make_divisible


@pytest.mark.parametrize(
    'value, limit, expected', [(3, 0.9, 8), (12, 0.9, 16), (11.9, 0.9, 16), (11.9, 0.0, 8)]
)
def test_make_divisible(value, limit, expected):
    assert make_divisible(value, 8, limit) == expected
