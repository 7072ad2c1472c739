"""Widths of heads, and their place among the channels."""

import pytest
import torch

from hybrid_mm.benchmarks.gpu_counts.fake_cuda import fake_cuda
from hybrid_mm.layers.heads import head_widths, make_divisible, merge_heads, split_heads


@pytest.mark.parametrize(
    'value, limit, expected', [(3, 0.9, 8), (12, 0.9, 16), (11.9, 0.9, 16), (11.9, 0.0, 8)]
)
def test_make_divisible(value, limit, expected):
    assert make_divisible(value, 8, limit) == expected


@pytest.mark.parametrize(
    'arguments, expected',
    [
        ((64, 4, None, 1.0), (16, 16)),
        ((24, 2, None, 0.5), (8, 12)),  # 12 channels of all queries are rounded to 16
        ((96, 3, None, 0.25), (8, 32)),
        ((20, 5, None, 1.0), (4, 4)),  # 20 to 24, of which 5 heads get 4 each
        ((64, 4, 5, 0.25), (5, 16)),
    ],
)
def test_head_widths(arguments, expected):
    assert head_widths(*arguments) == expected


def test_heads_side_by_side():
    """Head h has the channels from h d on, and maps are not transposed."""
    x = torch.randn(2, 6, 3, 5)
    maps = split_heads(x, 2)
    assert maps.shape == (2, 2, 3, 5, 3)
    assert torch.equal(maps[1, 1, 2, 4], x[1, 3:, 2, 4])
    assert torch.equal(merge_heads(maps), x)


def test_merged_heads_on_a_gpu_are_a_view_of_tokens():
    with fake_cuda():
        tokens = torch.empty(2, 5, 7, 3, 8, device='cuda')  # N, H, W, heads, d
        merged = merge_heads(tokens.permute(0, 3, 1, 2, 4))
        assert merged.is_contiguous(memory_format=torch.channels_last)
        assert merged.untyped_storage()._cdata == tokens.untyped_storage()._cdata
