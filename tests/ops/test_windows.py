"""Maps cut into windows and grids."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hybrid_mm.ops.local_attention.pattern import AxisPattern, Pattern, PatternType
from hybrid_mm.ops.local_attention.windows import fastest
from hybrid_mm.ops.windows import cut_windows, join_windows


@pytest.mark.parametrize('size', [(8, 8), (7, 13), (1, 3), (9, 4)])
def test_windows_side_by_side(size):
    x = torch.arange(2 * size[0] * size[1] * 3.0).view(2, *size, 3) + 1
    windows = cut_windows(x, 4)
    assert torch.equal(join_windows(windows, size), x)
    rows, columns = (-(-side // 4) for side in size)
    assert windows.shape == (2 * rows * columns, 4, 4, 3)
    assert torch.equal(windows[0, : size[0], : size[1]], x[0, :4, :4])
    assert (windows == 0).sum() == windows.numel() - x.numel()


@pytest.mark.parametrize('grid', [False, True])
@pytest.mark.parametrize('size', [(6, 8), (7, 13), (1, 3)])
def test_pixels_of_windows_and_grids(size, grid):
    """Two windows of 3 x 4: pixels side by side, or spread over the map."""
    x = torch.arange(2 * size[0] * size[1] * 2.0).view(2, *size, 2) + 1
    windows = cut_windows(x, (3, 4), grid)
    rows, columns = -(-size[0] // 3), -(-size[1] // 4)
    assert windows.shape == (2 * rows * columns, 3, 4, 2)
    assert torch.equal(join_windows(windows, size, grid), x)
    windows = windows.view(2, rows, columns, 3, 4, 2)
    for i in range(size[0]):
        for j in range(size[1]):
            if grid:
                found = windows[:, i % rows, j % columns, i // rows, j // columns]
            else:
                found = windows[:, i // 3, j // 4, i % 3, j % 4]
            assert torch.equal(found, x[:, i, j])


def test_what_was_measured_on_cpus_decides_nothing_on_gpus():
    def chosen(device):
        q = torch.empty(1, 2, 40, 60, 8, device=device, requires_grad=True)
        return fastest(q, Pattern(PatternType.PARTITION, AxisPattern(20), AxisPattern(30)))

    assert chosen('cpu') == 'tiled'
    with FakeTensorMode():
        assert chosen('cuda') == 'windows'
