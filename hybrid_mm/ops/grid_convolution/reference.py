"""Depthwise convolution with shared taps by torch's own, weights repeated over their taps."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.grid_convolution.axes import expand
from hybrid_mm.ops.precision import no_autocast


def convolve(x: Tensor, weight: Tensor, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
    """Convolve maps (N, C, H, W) with weights (C, row groups, column groups).

    On a GPU in the type of the maps, with sums in float32; elsewhere in that of the weights, as
    sums in half precision are.
    """
    dtype = x.dtype if x.is_cuda else weight.dtype
    padding = sum(rows) // 2, sum(columns) // 2
    dense = expand(weight, rows, columns).unsqueeze(1)
    with no_autocast(x):
        out = F.conv2d(x.to(dtype), dense.to(dtype), None, 1, padding, groups=len(dense))
    return out.to(x.dtype)
