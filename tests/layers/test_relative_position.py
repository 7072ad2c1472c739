import pytest
import torch

from hybrid_mm.layers.local_attention import global_attention, local_attention
from hybrid_mm.layers.relative_position import (
    RelativePosition2d,
    decomposed_logits,
    decomposed_tables,
    joined_tables,
    relative_to_absolute,
    resize_relative_table,
    resize_window_table,
    window_index,
)


def test_skew_is_indexing_by_offset():
    logits = torch.randn(2, 3, 5, 9)
    i = torch.arange(5)
    index = (i - i[:, None] + 4).expand(2, 3, 5, 5)
    assert torch.equal(relative_to_absolute(logits), logits.gather(-1, index))


def test_smaller_maps_keep_the_meaning_of_offsets():
    table = torch.randn(2, 13, 4)
    small = resize_relative_table(table, 4)
    for offset in range(-3, 4):
        assert torch.equal(small[:, offset + 3], table[:, offset + 6])
    assert torch.equal(resize_relative_table(table, 7), table)


def test_larger_maps_interpolate_between_the_same_ends():
    table = torch.randn(3, 7, 2)
    large = resize_relative_table(table, 10)
    assert large.shape == (3, 19, 2)
    # offset -9 stands where -3 stood, the middle stays, -6 where -2 stood
    torch.testing.assert_close(large[:, [0, 3, 9, 18]], table[:, [0, 1, 3, 6]])
    torch.testing.assert_close(large[:, 1], table[:, 0] * 2 / 3 + table[:, 1] / 3)
    with pytest.raises(ValueError, match=r'an odd number; got \(3, 6, 2\)'):
        resize_relative_table(table[:, 1:], 4)


@pytest.mark.parametrize('heads', [1, 3])
def test_relative_logits_of_a_map(heads):
    """Tables and engine against logits through the skew (arXiv 1904.09925, appendix)."""
    torch.manual_seed(0)
    position = RelativePosition2d((6, 8), 4, heads).double()
    q, k, v = (torch.randn(2, 3, 5, 7, 4, dtype=torch.double) for _ in range(3))
    rel_h, rel_w = position(5, 7)
    rows = torch.einsum('nhyxd,hrd->nhxyr', q, rel_h.expand(3, -1, -1))
    columns = torch.einsum('nhyxd,hrd->nhyxr', q, rel_w.expand(3, -1, -1))
    rows = relative_to_absolute(rows).transpose(2, 3)[..., :, None]
    logits = torch.einsum('nhyxd,nhuvd->nhyxuv', q, k) / 2
    logits = logits + rows + relative_to_absolute(columns)[..., None, :]
    p = logits.flatten(4).softmax(-1).view_as(logits)
    expected = torch.einsum('nhyxuv,nhuvd->nhyxd', p, v)
    out = global_attention(q, k, v, rel_h=rel_h, rel_w=rel_w)
    torch.testing.assert_close(out, expected)


def test_initial_spread_and_size_errors():
    torch.manual_seed(0)
    assert abs(RelativePosition2d((60, 60), 64).rel_h.std() - 0.125) < 0.005
    assert abs(RelativePosition2d((60, 60), 64, std=0.02).rel_w.std() - 0.02) < 0.001
    with pytest.raises(ValueError, match='two positive integers'):
        RelativePosition2d((0, 4), 8)


def test_joined_tables_are_a_vector_per_offset():
    torch.manual_seed(0)
    rel_h, rel_w = torch.randn(1, 3, 2), torch.randn(1, 3, 2)
    q, k, v = (torch.randn(1, 1, 1, 1, 4) for _ in range(3))
    wide_h, wide_w = joined_tables(rel_h, rel_w)
    # of a map of one pixel the window sees the pixel and eight zero keys
    vectors = torch.cat([rel_h[0, [0, 0, 0, 1, 1, 1, 2, 2, 2]], rel_w[0].repeat(3, 1)], -1)
    logits = vectors @ q.flatten()
    logits[4] += q.flatten() @ k.flatten()
    expected = logits.softmax(0)[4] * v
    out = local_attention(q, k, v, 3, border='zero', scale=1, rel_h=wide_h, rel_w=wide_w)
    torch.testing.assert_close(out, expected)


def test_window_index_is_swins():
    from mmdet.models.backbones.swin import WindowMSA

    for window in (2, 7):
        expected = WindowMSA(8, 2, (window, window)).relative_position_index
        assert torch.equal(window_index(window), expected)


def test_window_table_of_another_window():
    table = torch.randn(2, 13, 13)
    assert resize_window_table(table, 7) is table
    grown = resize_window_table(table, 12)
    assert grown.shape == (2, 23, 23)
    torch.testing.assert_close(grown[:, 11, 11], table[:, 6, 6])  # offset 0
    torch.testing.assert_close(resize_window_table(torch.ones(1, 5, 5), 9), torch.ones(1, 17, 17))


@pytest.mark.parametrize(('queries', 'keys'), [(6, 6), (8, 4), (3, 6), (7, 3)])
def test_decomposed_tables(queries, keys):
    length = 2 * max(queries, keys) - 1
    rel = torch.randn(length, 3)
    table = decomposed_tables(rel, queries, keys)
    for i in range(queries):
        for j in range(keys):
            ratio_q, ratio_k = max(keys / queries, 1), max(queries / keys, 1)
            place = int(i * ratio_q - j * ratio_k + (keys - 1) * ratio_k)
            assert torch.equal(table[i, j], rel[place])
    longer = torch.randn(length + 4, 3)
    assert decomposed_tables(longer, queries, keys).shape == (queries, keys, 3)
    with pytest.raises(ValueError, match=f'{length} relative vectors expected'):
        decomposed_tables(longer, queries, keys, resize=False)


def test_decomposed_logits():
    q, rel_h, rel_w = torch.randn(2, 2, 3, 4, 5), torch.randn(3, 2, 5), torch.randn(4, 6, 5)
    rows, columns = decomposed_logits(q, rel_h, rel_w)
    torch.testing.assert_close(rows[1, 0, 2, 3, 1], q[1, 0, 2, 3] @ rel_h[2, 1])
    torch.testing.assert_close(columns[1, 0, 2, 3, 4], q[1, 0, 2, 3] @ rel_w[3, 4])
