import pytest
import torch

from hybrid_mm.layers.relative_position import (
    DecomposedPosition2d,
    RelativeBias2d,
    RelativePosition2d,
)
from hybrid_mm.ops import positions
from hybrid_mm.ops.distance_attention import _mirrored, resize_distance_table
from hybrid_mm.ops.fitted_weights import fitted_weights
from hybrid_mm.ops.global_filter import resize_spectrum
from hybrid_mm.ops.local_attention import global_attention, local_attention
from hybrid_mm.ops.positions import (
    bias_matrix,
    decomposed_logits,
    decomposed_tables,
    encode_coordinates,
    fit_position_embedding,
    interpolate,
    joined_tables,
    relative_to_absolute,
    resize_bias_table,
    resize_position_embedding,
    resize_relative_table,
    resize_window_table,
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
    with pytest.raises(ValueError, match='size must be positive'):
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


def test_bias_of_all_pairs_is_in_the_order_of_swin():
    WindowMSA = pytest.importorskip('mmdet.models.backbones.swin').WindowMSA

    for window in (2, 7):
        expected = WindowMSA(8, 2, (window, window)).relative_position_index
        table = torch.arange((2 * window - 1) ** 2).view(1, 2 * window - 1, -1)
        # Swin's offsets are query minus key, ours key minus query
        assert torch.equal(bias_matrix(table)[0].t(), expected)


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


def stretched(x, dim, length, aligned):
    """Linear interpolation of one axis, by corners or by centres of pixels."""
    old = x.shape[dim]
    if aligned:
        place = torch.arange(length).double() * (old - 1) / max(length - 1, 1)
    else:
        place = ((torch.arange(length).double() + 0.5) * old / length - 0.5).clamp(0, old - 1)
    low = place.floor().long().clamp(max=old - 1)
    shape = [1] * x.ndim
    shape[dim] = -1
    share = (place - low).view(shape)
    return x.index_select(dim, low).lerp(x.index_select(dim, (low + 1).clamp(max=old - 1)), share)


@pytest.mark.parametrize('size', [(2, 8), (8, 2), (1, 16), (4, 4), (3, 5), (7, 9)])
def test_tables_of_another_form(size):
    """What has as many entries as asked for, but other sides, is interpolated, never reshaped."""
    height, width = size
    torch.manual_seed(0)

    def bilinear(x, dims, sides, aligned):
        for dim, side in zip(dims, sides, strict=True):
            x = stretched(x, dim, side, aligned)
        return x

    absolute = torch.randn(1, 2 + 16, 3, dtype=torch.float64)
    grid = bilinear(absolute[:, 2:].view(1, 4, 4, 3), (1, 2), size, False)
    expected = torch.cat([absolute[:, :2], grid.reshape(1, height * width, 3)], 1)
    torch.testing.assert_close(resize_position_embedding(absolute, size, 2), expected)
    torch.testing.assert_close(resize_position_embedding(absolute[:, 2:], size), expected[:, 2:])

    distance = torch.randn(2, 4, 4, dtype=torch.float64)
    expected = bilinear(distance, (1, 2), size, True)
    torch.testing.assert_close(resize_distance_table(distance, size), expected)

    spectrum = torch.randn(3, 4, 4, 2, dtype=torch.float64)
    expected = bilinear(spectrum, (1, 2), size, True)
    torch.testing.assert_close(resize_spectrum(spectrum, size), expected)

    sides = 2 * height - 1, 2 * width - 1
    for given in (sides[::-1], (5, 9), (9, 5)):
        table = torch.randn(2, *given, dtype=torch.float64)
        expected = bilinear(table, (1, 2), sides, False)
        torch.testing.assert_close(resize_bias_table(table, size), expected)


def test_flat_tables_are_of_the_size_or_square():
    flat = torch.randn(2, 45)
    assert torch.equal(resize_bias_table(flat, (3, 5)), flat.view(2, 5, 9))
    assert torch.equal(resize_bias_table(flat, (5, 3)), flat.view(2, 9, 5))
    square = torch.randn(2, 49)
    assert torch.equal(resize_bias_table(square, (4, 4)), square.view(2, 7, 7))
    assert resize_bias_table(square, (3, 5)).shape == (2, 5, 9)
    with pytest.raises(ValueError, match='a table of 45 offsets is neither one of 3 x 7 nor of a'):
        resize_bias_table(flat, (2, 4))


def test_absolute_positions_are_of_our_map_or_square():
    table = torch.randn(1, 17, 4)
    assert fit_position_embedding(table, (2, 8), 1, 'bicubic', 'img_size') is table
    found = fit_position_embedding(table, (3, 5), 1, 'bicubic', 'img_size')
    assert torch.equal(found, resize_position_embedding(table, (3, 5), 1, 'bicubic', (4, 4)))
    for entries, extra in ((16, 1), (1, 1), (0, 0), (15, 0)):
        with pytest.raises(ValueError, match=f'^{entries} absolute positions are .* the img_size'):
            fit_position_embedding(table[:, :entries], (2, 8), extra, 'bicubic', 'img_size')


def test_coordinates():
    """x in -1..1 along columns is the first channel, y along rows the second; full precision."""
    position = torch.nn.Conv2d(2, 3, 1)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        found = encode_coordinates(position, 4, 7)
    y, x = torch.linspace(-1, 1, 4)[:, None], torch.linspace(-1, 1, 7)
    weight = position.weight[:, :, 0, 0]
    for c in range(3):
        expected = weight[c, 0] * x + weight[c, 1] * y + position.bias[c]
        torch.testing.assert_close(found[c], expected)
    assert encode_coordinates(position, 1, 1).shape == (3, 1, 1)


def test_tables_of_a_state_are_brought_to_the_sizes_of_a_model():
    """Each by the rule of its kind, and rows and columns each to its own length."""

    def net(size):
        return torch.nn.ModuleDict(
            dict(
                plain=RelativePosition2d(size, 4),
                bias=RelativeBias2d(size, 2),
                pooled=DecomposedPosition2d(size, (2, 2), 4, std=1.0),
                other=torch.nn.Linear(2, 2),
            )
        )

    small, model = net((3, 5)).state_dict(), net((6, 4))
    fitted, _ = fitted_weights(model, small)
    model.load_state_dict(fitted)
    assert torch.equal(fitted['other.weight'], small['other.weight'])
    expected = resize_relative_table(small['plain.rel_h'], 6)
    assert torch.equal(fitted['plain.rel_h'], expected)
    assert torch.equal(fitted['plain.rel_w'], small['plain.rel_w'][:, 1:-1])
    assert torch.equal(fitted['bias.table'], resize_bias_table(small['bias.table'], (6, 4)))
    wanted = stretched(small['pooled.rel_h'].double(), 0, 11, False).float()
    torch.testing.assert_close(fitted['pooled.rel_h'], wanted)


def cubic(x, dim, length):
    """Cubic convolution with a = -0.75 at centres of pixels, the border repeated."""
    old = x.shape[dim]
    place = (torch.arange(length).double() + 0.5) * old / length - 0.5
    low, total = place.floor(), 0
    shape = [1] * x.ndim
    shape[dim] = -1
    for tap in range(-1, 3):
        d = (place - low - tap).abs()
        near = 1.25 * d**3 - 2.25 * d**2 + 1
        far = -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
        weight = torch.where(d <= 1, near, far).view(shape)
        total = total + weight * x.index_select(dim, (low + tap).long().clamp(0, old - 1))
    return total


@pytest.mark.parametrize('window', [5, 12])
def test_window_tables_are_bicubic(window):
    table = torch.randn(2, 13, 13, dtype=torch.float64)
    expected = cubic(cubic(table, 1, 2 * window - 1), 2, 2 * window - 1)
    torch.testing.assert_close(resize_window_table(table, window), expected)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize(
    ('mode', 'size', 'target'),
    [('linear', (9,), 14), ('linear', (9,), 4), ('linear', (1,), 3)]
    + [('bicubic', (5, 7), target) for target in ((9, 7), (3, 12), (1, 1))],
)
def test_interpolation_by_matrices_is_that_of_torch(mode, size, target, align_corners, monkeypatch):
    table = torch.randn(2, 3, *size, dtype=torch.float64)
    found = []
    for matrices in (False, True):
        monkeypatch.setattr(positions, '_needs_matrices', lambda *_, choice=matrices: choice)
        leaf = table.clone().requires_grad_()
        out = interpolate(leaf, target, mode, align_corners)
        weights = torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)
        (out * weights).sum().backward()
        found.append((out, leaf.grad))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize('size', [(1, 1), (4, 1), (3, 5)])
def test_table_by_distance_as_one_by_offset(size):
    """By its definition, by reflection as on GPUs and by flips."""
    height, width = size
    table = torch.rand(2, height, width)
    rows = torch.arange(1 - height, height).abs()
    columns = torch.arange(1 - width, width).abs()
    expected = table[:, rows[:, None], columns]
    for reflect in (True, False):
        assert torch.equal(_mirrored(table, reflect), expected)
