"""Exact algorithms for depthwise convolutions whose taps share weights over a grid of boxes."""

from collections.abc import Callable

from torch import Tensor

from hybrid_mm.ops.grid_convolution.axes import GridAxis
from hybrid_mm.ops.grid_convolution.bmm import _bmm_forward, _bmm_weight
from hybrid_mm.ops.grid_convolution.fft import _fft_forward, _fft_weight
from hybrid_mm.ops.grid_convolution.fused import _fused_forward, _fused_weight

Algorithm = Callable[[Tensor, Tensor, GridAxis, GridAxis], Tensor]


FORWARD: dict[str, Algorithm] = {
    'bmm': _bmm_forward,
    'fft': _fft_forward,
    'fused': _fused_forward,
}


WEIGHT_GRADIENT: dict[str, Algorithm] = {
    'bmm': _bmm_weight,
    'fft': _fft_weight,
    'fused': _fused_weight,
}
