"""Local attention with learned queries, without windows in memory.

Source: "Learned Queries for Efficient Local Attention" (arXiv 2112.11435), section 4.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hybrid_mm.layers.initialisation import lecun_normal_
from hybrid_mm.ops.dispatch import check_impl, is_reference
from hybrid_mm.ops.grid_convolution import grid_convolution
from hybrid_mm.ops.precision import no_autocast

_LOWEST = -60.0  # exp of less is nothing beside exp(0)


class LearnedQueryAttention2d(nn.Module):
    """QnA: every window is read by the same few learned queries (eq. 6 to 8).

    With scores ``s_j = q . k_j`` and a bias b by position in the window, the output of a head at a
    pixel is ``sum_r (sum_j exp(s_rj + b_rj) c_rj v_j) / (sum_j exp(s_rj + b_rj))`` over queries r
    and pixels j of the window, c being weights by position that may be negative. As queries do not
    depend on the pixel, both sums are depthwise convolutions of ``exp(s) v`` and ``exp(s)`` with
    kernels ``exp(b) c`` and ``exp(b)``. Keys are never formed; the queries take turns, and what
    they compute is computed again in the backward pass: beside input and output one map of values
    and one of scores is kept, whatever the window. Pixels beyond the border count for neither sum.

    The scores are shifted by their largest value per image, query and head, which cancels out.
    Computed in float32 under autocast.

    Args:
        in_channels: Channels of the input.
        channels: Channels C of queries, keys and values.
        heads: Number of heads.
        kernel_size: Odd size of the window.
        stride: Stride; the result has ceil(H / stride) rows.
        queries: Number of queries.
        normalize_queries: Whether queries have unit length in every head.
        out_channels: Channels of the result, by default C.
        impl: 'tiled' (and 'auto') as above, or 'reference', over gathered windows.

    Raises:
        ValueError: Heads that do not divide C, an even window, an unknown impl.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        heads: int,
        kernel_size: int,
        stride: int = 1,
        queries: int = 2,
        normalize_queries: bool = True,
        out_channels: int | None = None,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f'heads must divide the {channels} channels, got {heads}')
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd and positive, got {kernel_size}')
        check_impl(impl, 'learned_query_attention')
        self.heads, self.width, self.queries = heads, channels // heads, queries
        self.kernel_size, self.stride = kernel_size, stride
        self.normalize_queries, self.impl = normalize_queries, impl
        self.query = nn.Parameter(torch.empty(queries, channels))
        self.k = nn.Linear(in_channels, channels, bias=False)
        self.v = nn.Linear(in_channels, channels, bias=False)
        self.proj = nn.Linear(channels, out_channels or channels, bias=False)
        window = queries, heads, kernel_size, kernel_size
        self.relative_bias = nn.Parameter(torch.zeros(window))
        self.scale = nn.Parameter(torch.empty(window))
        std = self.width**-0.5
        nn.init.trunc_normal_(self.query, std=std, a=-2 * std, b=2 * std)
        nn.init.normal_(self.scale, std=0.02)
        for layer in (self.k, self.v, self.proj):
            lecun_normal_(layer.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, in_channels) to (N, ceil(H / stride), ceil(W / stride), out_channels)."""
        dtype = x.dtype
        values = self.v(x)
        accurate = torch.float64 if dtype == torch.float64 else torch.float32
        with no_autocast(x):
            out = self._attend(x.to(accurate), values.to(accurate))
        return self.proj(out.to(values.dtype).permute(0, 2, 3, 1))

    def _attend(self, x: Tensor, values: Tensor) -> Tensor:
        """Output of all heads before the last projection, (N, C, H', W')."""
        query = self.query.view(self.queries, self.heads, self.width)
        if self.normalize_queries:
            query = query / (query.norm(dim=-1, keepdim=True) + 1e-6)
        query = query * self.width**-0.5
        keys = self.k.weight.view(self.heads, self.width, -1)
        scores = torch.einsum('nyxi,rgi->nrgyx', x, torch.einsum('rgd,gdi->rgi', query, keys))
        scores = scores - scores.detach().amax((-2, -1), keepdim=True)
        scores = scores.clamp(min=_LOWEST)
        values = values.permute(0, 3, 1, 2)
        read = self._reference if is_reference(self.impl, 'learned_query_attention') else self._read
        total = None
        for r in range(self.queries):
            arguments = scores[:, r], values, self.relative_bias[r], self.scale[r]
            if torch.is_grad_enabled() and not is_reference(self.impl, 'learned_query_attention'):
                part = checkpoint(read, *arguments, use_reentrant=False)
            else:
                part = read(*arguments)
            total = part if total is None else total + part
        return total

    def _read(self, scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        """What a query reads: scores (N, heads, H, W), values (N, C, H, W)."""
        weights, kernel = scores.exp(), bias.exp()
        above = (values.unflatten(1, (self.heads, -1)) * weights.unsqueeze(2)).flatten(1, 2)
        above = self._convolve(above, (kernel * scale).repeat_interleave(self.width, 0))
        below = self._convolve(weights, kernel)
        return (above.unflatten(1, (self.heads, -1)) / below.unsqueeze(2)).flatten(1, 2)

    def _convolve(self, x: Tensor, kernel: Tensor) -> Tensor:
        if self.stride == 1:
            return grid_convolution(x, kernel, (1,) * self.kernel_size)
        half = self.kernel_size // 2
        return F.conv2d(x, kernel.unsqueeze(1), None, self.stride, half, groups=len(kernel))

    def _reference(self, scores: Tensor, values: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        """The same over windows (N, heads, d, k^2, pixels): softmax, then weights by position."""
        n, channels, height, _ = values.shape
        size, half = self.kernel_size, self.kernel_size // 2
        inside = F.pad(scores, (half,) * 4, value=-math.inf)
        logits = _windows(inside, size, self.stride) + bias.flatten(1)[None, :, :, None]
        weights = logits.softmax(2) * scale.flatten(1)[None, :, :, None]
        taken = _windows(F.pad(values, (half,) * 4), size, self.stride)
        taken = taken.unflatten(1, (self.heads, self.width))
        out = torch.einsum('ngdwp,ngwp->ngdp', taken, weights)
        rows = (height - 1) // self.stride + 1
        return out.reshape(n, channels, rows, -1)


def _windows(x: Tensor, size: int, stride: int) -> Tensor:
    """Windows of a padded map, (N, C, H, W) to (N, C, size^2, pixels)."""
    x = x.unfold(2, size, stride).unfold(3, size, stride)
    return x.flatten(4).flatten(2, 3).transpose(2, 3)
