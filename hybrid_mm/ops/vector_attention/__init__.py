"""Vector attention: weights of a window that differ between groups of channels.

Source: "Exploring Self-attention for Image Recognition" (arXiv 2004.13621), section 3 and its code.
Here are the windows, the weighted sum over their taps, and the steps of the network gamma that
makes weights of queries and keys; what exists for every tap is (N, C, k^2, L), L pixels.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.local_attention.axes import mirrored
from hybrid_mm.ops.precision import accurate


class Window(NamedTuple):
    """A k x k window around every ``stride``-th pixel, mirrored at the border of the map."""

    kernel_size: int
    stride: int
    dilation: int

    def pad(self, x: Tensor) -> Tensor:
        """Mirror (N, C, H, W) at its border by the reach of the window."""
        reach = self.dilation * (self.kernel_size // 2)
        if reach < min(x.shape[2:]):
            return F.pad(x, (reach,) * 4, mode='reflect')
        return mirrored(x, reach)

    def unfold(self, padded: Tensor) -> Tensor:
        """Taps (N, C, k^2, H' * W') of a padded map."""
        taps = F.unfold(padded, self.kernel_size, self.dilation, stride=self.stride)
        return taps.unflatten(1, (padded.shape[1], -1))

    def views(self, padded: Tensor, size: torch.Size) -> Iterator[Tensor]:
        """Views (..., H', W') of a padded map (..., H, W), one for each tap by rows."""
        height, width = ((n - 1) * self.stride + 1 for n in size)
        for y in range(0, self.kernel_size * self.dilation, self.dilation):
            for x in range(0, self.kernel_size * self.dilation, self.dilation):
                yield padded[..., y : y + height : self.stride, x : x + width : self.stride]

    def rows(self, q: Tensor, channels: int, *padded: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Cut queries, and padded maps to what they see, into rows that fit the working memory.

        Args:
            q: (N, any, H', W').
            channels: Channels of what exists for every tap.
            padded: Padded maps (N, any, H, W).
        """
        row = q.shape[0] * channels * self.kernel_size**2 * q.shape[3]
        count = budget.fitting(q.shape[2], row, q.device)
        reach = self.dilation * (self.kernel_size - 1) + 1
        for rows in budget.chunks(q.shape[2], count):
            first, last = rows.start * self.stride, (rows.stop - 1) * self.stride + reach
            yield q[:, :, rows], *(x[:, :, first:last] for x in padded)

    def aggregate(self, weights: Tensor, values: Tensor, size: torch.Size) -> Tensor:
        """Weighted sum of taps: weights (N, G, k^2, H' * W') and a padded map to (N, C, H', W')."""
        weights = weights.to(values.dtype).unflatten(3, size)
        return aggregate_taps(weights, values, *self)

    def statistics(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, int]:
        """Variance (biased), mean and count of each channel of :func:`patch`, without the copy.

        Args:
            q: Queries (N, R, H', W').
            k: Padded keys (N, R, H, W).
        """
        # the reduction keeps its input only, here views of the padded keys
        query = torch.var_mean(accurate(q), (0, 2, 3), correction=0)
        taps = [
            torch.var_mean(view, (0, 2, 3), correction=0)
            for view in self.views(accurate(k), q.shape[2:])
        ]
        var, mean = (
            torch.cat([a, torch.stack(b, 1).flatten()])
            for a, b in zip(query, zip(*taps, strict=True), strict=True)
        )
        return var, mean, q.shape[0] * q[0, 0].numel()

    def relation(self, q: Tensor, k: Tensor) -> Tensor:
        """Difference of queries (N, R, H', W') to padded keys, (N, R, k^2, H' * W')."""
        return q.flatten(2).unsqueeze(2) - self.unfold(k)

    def patch(self, q: Tensor, k: Tensor) -> Tensor:
        """Queries (N, R, H', W') beside all taps of padded keys, (N, R * (k^2 + 1), 1, H' * W')."""
        return torch.cat([q.flatten(2), self.unfold(k).flatten(1, 2)], 1).unsqueeze(2)


def scaled_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``relu(scale x + shift)`` with a scale and shift for each channel of (N, C, T, L)."""
    return torch.addcmul(shift[:, None, None], x.to(scale.dtype), scale[:, None, None]).relu_()


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """1x1 convolution of (N, C, T, L) by weights (C', C, 1, 1), as a matrix product."""
    out = torch.matmul(weight.flatten(1), x.flatten(2)).unflatten(2, x.shape[2:])
    return out if bias is None else out + bias[:, None, None].to(out.dtype)


def weighted_taps(weights: Tensor, taps: Tensor) -> Tensor:
    """Sum of weights (N, G, k^2, L) times taps (N, C, k^2, L), step by step, (N, C, L)."""
    weights = weights.to(taps.dtype).unsqueeze(1)
    return (weights * taps.unflatten(1, (-1, weights.shape[2]))).sum(3).flatten(1, 2)


def _backward(
    grad: Tensor, weights: Tensor, values: Tensor, kernel_size: int, stride: int, dilation: int
) -> list[Tensor]:
    window, groups = Window(kernel_size, stride, dilation), weights.shape[1]
    maps, grad = (x.unflatten(1, (-1, groups)) for x in (values, grad))
    grad_weights = torch.empty_like(weights, memory_format=torch.contiguous_format)
    grad_values = torch.zeros_like(accurate(maps), memory_format=torch.contiguous_format)
    views, grad_views = (window.views(x, weights.shape[3:]) for x in (maps, grad_values))
    for tap, (view, grad_view) in enumerate(zip(views, grad_views, strict=True)):
        grad_weights[:, :, tap] = (grad * view).sum(1)
        grad_view.addcmul_(grad, weights[:, None, :, tap])
    return [grad_weights, grad_values.flatten(1, 2).to(values.dtype)]


@custom_op(
    'hybrid_mm::aggregate_taps',
    fake=lambda w, v, *_: v.new_empty(*v.shape[:2], *w.shape[3:]),
    backward=_backward,
)
def aggregate_taps(
    weights: Tensor, values: Tensor, kernel_size: int, stride: int, dilation: int
) -> Tensor:
    """Weighted sum of the taps, ``y[c, p] = sum_t w[c mod G, t, p] v[c, stride p + dilation t]``.

    Args:
        weights: Weights (N, G, k^2, H', W').
        values: Padded map (N, C, H, W) of the same type, C a multiple of G.
        kernel_size: k.
        stride: Distance of the windows.
        dilation: Distance of the taps.

    Returns:
        (N, C, H', W'), summed up in single precision at least.
    """
    window = Window(kernel_size, stride, dilation)
    n, groups, _, height, width = weights.shape
    maps = values.unflatten(1, (-1, groups))
    out = accurate(values[:0]).new_zeros(n, maps.shape[1], groups, height, width)
    for tap, view in enumerate(window.views(maps, weights.shape[3:])):
        out.addcmul_(weights[:, None, :, tap], view)
    return out.flatten(1, 2).to(values.dtype)
