import pytest
import torch
import torch.nn.functional as F

from hybrid_mm.layers.convolution.peripheral_convolution import PeripheralConv2d, sharing_grid


@pytest.mark.parametrize(
    'size, center, half',
    [
        (31, 5, [7, 4, 2, 1, 1]),
        (33, 5, [8, 4, 2, 1, 1]),
        (51, 1, [11, 8, 4, 2]),
        (51, 3, [10, 8, 4, 2, 1]),
        (51, 5, [9, 8, 4, 2, 1, 1]),
        (51, 7, [8, 8, 4, 2, 1, 1, 1]),
        (49, 5, [8, 8, 4, 2, 1, 1]),
        (47, 5, [7, 8, 4, 2, 1, 1]),
        (13, 5, [2, 2, 1, 1]),
        (101, 7, [17, 16, 8, 4, 2, 1, 1, 1]),
        (69, 7, [17, 8, 4, 2, 1, 1, 1]),
        (67, 7, [16, 8, 4, 2, 1, 1, 1]),
        (13, 7, [3, 1, 1, 1]),
        (151, 7, [42, 16, 8, 4, 2, 1, 1, 1]),
        (89, 7, [11, 16, 8, 4, 2, 1, 1, 1]),
        (87, 7, [10, 16, 8, 4, 2, 1, 1, 1]),
        (3, 5, [1]),
    ],
)
def test_grids_of_the_paper(size, center, half):
    grid = sharing_grid(size, center)
    assert grid == (*half, 1, *half[::-1])
    assert sum(grid) == size


@pytest.mark.parametrize('center', [1, 3, 5, 7])
def test_any_kernel_has_a_symmetric_grid(center):
    for size in range(1, 161, 2):
        grid = sharing_grid(size, center)
        assert sum(grid) == size and grid == grid[::-1] and min(grid) == 1, size


def literal(layer, x):
    """Equation 3 tap by tap: x + h on the padded map, or inside of it only."""
    size, (height, width) = layer.kernel_size, x.shape[2:]
    half = size // 2
    weight = layer.weight[:, 0]
    for dim in (1, 2):
        weight = weight.repeat_interleave(torch.tensor(layer.grid), dim)
    padded = F.pad(x, (half,) * 4)
    inside = F.pad(torch.ones(height, width, dtype=x.dtype), (half,) * 4)
    out = torch.zeros_like(x)
    for i in range(size):
        for j in range(size):
            part = ..., slice(i, i + height), slice(j, j + width)
            values = padded[part]
            if layer.pos_embed is not None:
                embed = layer.pos_embed[:, i, j, None, None]
                values = values + embed * (1 if layer.pos_embed_mode == 'bias' else inside[part])
            out = out + weight[:, i, j, None, None] * values
    return out


@pytest.mark.parametrize('mode', ['bias', 'valid', 'none'])
@pytest.mark.parametrize('per_channel', [False, True])
@pytest.mark.parametrize('height, width', [(14, 9), (3, 30)])
def test_equals_the_equation(mode, per_channel, height, width):
    layer = PeripheralConv2d(3, 13, pos_embed=mode, pos_embed_per_channel=per_channel).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 3, height, width, dtype=torch.float64, requires_grad=True)
    wanted = [x, *layer.parameters()]
    found, expected = layer(x), literal(layer, x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    grad = torch.randn(found.shape, dtype=torch.float64)
    pairs = zip(
        torch.autograd.grad(found, wanted, grad),
        torch.autograd.grad(expected, wanted, grad),
        strict=True,
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_wrong_arguments():
    with pytest.raises(ValueError, match='kernel_size must be odd and positive, got 12'):
        PeripheralConv2d(3, 12)
    with pytest.raises(ValueError, match='center_size must be odd and positive, got 4'):
        PeripheralConv2d(3, 13, 4)
    with pytest.raises(ValueError, match='growth must be at least 1'):
        sharing_grid(13, 5, 0)
    with pytest.raises(ValueError, match=r'symmetric and add up to kernel_size=13, got \[1, 1, 1'):
        PeripheralConv2d(3, 13, grid=[1, 1, 1])
    with pytest.raises(ValueError, match=r'symmetric.*got \[3, 1, 1'):
        PeripheralConv2d(3, 7, grid=[3, 1, 1, 2])
    with pytest.raises(ValueError, match="pos_embed must be one of bias, valid, none, got 'sin'"):
        PeripheralConv2d(3, 7, pos_embed='sin')
    with pytest.raises(ValueError, match=r"impl must be one of auto.*got 'dense'"):
        PeripheralConv2d(3, 7, impl='dense')
    with pytest.raises(ValueError, match='forward needs the position embedding'):
        PeripheralConv2d(3, 7, share_pos_embed=True)(torch.rand(1, 3, 8, 8))


def test_kernels_that_fit_into_the_centre():
    layer = PeripheralConv2d(3, 13, 5)  # taps of their own: five
    for size in (1, 3, 5):
        layer.check_center(size)
    for size in (7, 9, 15):
        with pytest.raises(ValueError, match=f'a {size}x{size} kernel cannot be merged'):
            layer.check_center(size)


@pytest.mark.parametrize('share', [False, True])
@pytest.mark.parametrize('mode', ['bias', 'valid', 'none'])
def test_folding_the_position_embedding_changes_nothing(mode, share):
    layer = PeripheralConv2d(3, 13, pos_embed=mode, share_pos_embed=share).double()
    embed = torch.randn(1, 13, 13, dtype=torch.float64) if share else None
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 3, 9, 20, dtype=torch.float64)
    expected = layer(x, embed)
    bias = layer.fold_pos_embed(embed)
    torch.testing.assert_close(layer(x) + bias[:, None, None], expected)
