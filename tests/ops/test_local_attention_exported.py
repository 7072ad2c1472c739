"""Tiles of exported graphs against the gather, whose definition test_local_attention.py checks."""

import itertools
import random

import pytest
import torch

from hybrid_mm.compat.torch_api import as_if_exporting
from hybrid_mm.layers.attention.evolving_augmented_convolution import (
    _halved,
    _halved_as_traced,
    same_padded,
    same_padding,
)
from hybrid_mm.ops import positions
from hybrid_mm.ops.local_attention import exported, reference
from hybrid_mm.ops.local_attention.axes import BORDERS
from hybrid_mm.ops.local_attention.pattern import AxisPattern, Pattern, PatternType, Tables
from hybrid_mm.ops.mirrored_attention import mirrored_attention

LENGTHS = (1, 2, 3, 5, 7, 8, 13, 20, 33, 41)


def windows(draw):
    border = draw.choice(BORDERS)
    return Pattern(PatternType.WINDOW, *(
        AxisPattern(draw.choice((1, 3, 7, 13)), draw.choice((1, 1, 2, 3)),
                    draw.choice((1, 1, 2, 3, 5)), border=border)
        for _ in range(2)
    ))  # fmt: skip


def blocks(draw):
    axis = AxisPattern(
        draw.choice((2, 4, 8)),
        draw.choice((1, 2)),
        halo=draw.choice((0, 1, 3)),
        border=draw.choice(('zero', 'mask')),
    )
    return Pattern(PatternType.BLOCK, axis, axis)


def whole(draw):
    return Pattern(PatternType.WHOLE, *(AxisPattern(stride=draw.choice((1, 2))) for _ in range(2)))


@pytest.mark.parametrize(('kind', 'number'), [(windows, 50), (blocks, 15), (whole, 10)])
def test_equals_the_gather(kind, number):
    draw = random.Random(0)
    torch.manual_seed(0)
    for _ in range(number):
        lengths = LENGTHS[:7] if kind is whole else LENGTHS
        pattern, size = kind(draw), (draw.choice(lengths), draw.choice(lengths))
        heads, d = draw.choice((1, 2)), draw.choice((1, 3))
        q, k, v = (
            torch.randn(draw.choice((1, 2)) if i == 0 else 1, heads, *side, width).double()
            for i, (side, width) in enumerate(((pattern.queries(*size), d), (size, d), (size, 2)))
        )
        k, v = (x.expand(len(q), -1, -1, -1, -1) for x in (k, v))
        rows, columns = (n + draw.choice((0, 2)) for n in pattern.shortest_tables(*size))
        shapes = (1, rows, columns), (heads, rows, d), (1, columns, d)
        given = [torch.randn(shape).double() for shape in shapes]
        tables = Tables(*(table if draw.random() < 0.5 else None for table in given))
        found, expected = (
            way.forward(q, k, v, tables, 0.3, pattern) for way in (exported, reference)
        )
        torch.testing.assert_close(
            found, expected, msg=lambda m, p=pattern, s=size: f'{p}, {s}: {m}'
        )


def test_a_tile_has_few_copies_of_keys():
    """And no more keys than there are, nor a second tile for a few queries."""
    for length, window, dilation, stride, tile, reach in (
        (200, 7, 1, 1, 8, 14),
        (28, 7, 1, 1, 10, 16),
        (7, 7, 1, 1, 7, 7),
        (14, 7, 2, 1, 7, 7),
        (56, 7, 1, 2, 10, 25),
    ):
        axis = AxisPattern(window, stride, dilation, border='shift')
        cut = exported._cut_windows(axis, length, torch.device('cpu'))
        assert (cut.query.shape[1], cut.key.shape[1]) == (tile, reach)


@pytest.mark.parametrize('stride', [1, 2])
def test_mirrored_windows(stride):
    for height, width in itertools.product((1, 2, 9), (3, 8)):
        k, v = torch.randn(2, 1, 2, height, width, 3, dtype=torch.float64)
        q, position = k[:, :, ::stride, ::stride] + 1, torch.randn(height, width, 3).double()
        expected = mirrored_attention(q, k, v, position, 5, stride=stride, impl='reference')
        with as_if_exporting():
            found = mirrored_attention(q, k, v, position, 5, stride=stride)
        torch.testing.assert_close(found, expected)


def test_positions_for_any_size():
    """Operators of a graph, here with known sizes, give what the branches by size give."""
    table = torch.randn(2, 9, 3, dtype=torch.float64)
    for size in (1, 2, 4, 5, 6, 11):
        expected = positions.resize_relative_table(table, size)
        found = positions._stretched(table, size)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('size', [(6, 9), (5, 8), (1, 2), (3, 3)])
def test_pooling_for_any_size(size):
    x = torch.randn(2, 3, *size)
    means = torch.nn.functional.avg_pool2d(x, **same_padding(x), count_include_pad=False)
    sums, counts = (
        torch.nn.functional.avg_pool2d(same_padded(y, 0.0), 3, 2) for y in (x, torch.ones_like(x))
    )
    torch.testing.assert_close(sums / counts, means)
    most = torch.nn.functional.max_pool2d(x, **same_padding(x))
    padded = same_padded(x, -torch.inf)
    torch.testing.assert_close(torch.nn.functional.max_pool2d(padded, 3, 2), most)
    for limit, expected in ((size[0] * size[1], x), (means[0, 0].numel(), _halved(x))):
        torch.testing.assert_close(_halved_as_traced(x, limit), expected)
