"""Windows of vector attention: what they see of a map that is mirrored at its border."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.local_attention.axes import mirrored
from hybrid_mm.ops.precision import accurate


def _deterministic() -> bool:
    """Whether gradients must be: that of torch's reflection padding is not on a GPU."""
    return torch.are_deterministic_algorithms_enabled()


def channel_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Variance (biased) and mean of each channel of (N, C, H, W), 0 for an empty batch."""
    if not x.numel():
        return x.sum((0, 2, 3)), x.sum((0, 2, 3))
    return torch.var_mean(x, (0, 2, 3), correction=0)


class Window(NamedTuple):
    """A k x k window around every ``stride``-th pixel, mirrored at the border of the map.

    Attributes:
        kernel_size: Odd size k.
        stride: Distance of the windows in pixels.
        dilation: Distance of the taps in pixels.
    """

    kernel_size: int
    stride: int
    dilation: int

    def pad(self, x: Tensor) -> Tensor:
        """Mirror (N, C, H, W) at its border by the reach of the window."""
        reach = self.dilation * (self.kernel_size // 2)
        if reach < min(x.shape[2:]) and not (x.is_cuda and _deterministic()):
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

    def statistics(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, int]:
        """Variance (biased), mean and count of each channel of :func:`patch`, without the copy.

        Args:
            q: Queries (N, R, H', W').
            k: Padded keys (N, R, H, W).
        """
        query = channel_moments(accurate(q))
        pooled = k.is_cuda and self.stride == 1
        keys = (self.pooled_moments if pooled else self.moments)(accurate(k), q.shape[2:])
        var, mean = (torch.cat([a, b.flatten()]) for a, b in zip(query, keys, strict=True))
        return var, mean, q.shape[0] * q.shape[2:].numel()

    def moments(self, k: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
        """Variance and mean (R, k^2) of each tap of padded keys (N, R, H, W), tap by tap."""
        # the reduction keeps its input only, here views of the padded keys
        taps = [channel_moments(x) for x in self.views(k, size)]
        var, mean = (torch.stack(x, 1) for x in zip(*taps, strict=True))
        return var, mean

    def pooled_moments(self, k: Tensor, size: torch.Size) -> tuple[Tensor, Tensor]:
        """The same of all taps at once, for windows around every pixel.

        What a tap sees is the map but for a few rows and columns: two poolings by the size of the
        map add up all taps in a few launches, where a GPU would wait for k^2 small ones.
        """
        centre = k.detach().mean((0, 2, 3), keepdim=True)
        x = k - centre
        x = torch.cat([x, x.square()], 1)
        x = F.avg_pool2d(x, (1, size[1]), (1, self.dilation))
        x = F.avg_pool2d(x, (size[0], 1), (self.dilation, 1))
        mean, square = x.mean(0).flatten(1).chunk(2)
        return (square - mean.square()).clamp_min(0), mean + centre.flatten()[:, None]

    def relation_moments(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Variance and mean (R,) of :func:`relation`, without forming it.

        For windows of neighbours around every pixel, whose sums are poolings. Not for maps that
        vary much more than the differences within a window: they cancel out.

        Args:
            q: Queries (N, R, H, W) in single precision.
            k: Padded keys of the same type.
        """
        middles = [x.detach().mean((0, 2, 3), keepdim=True) for x in (q, k)]
        q, k = q - middles[0], k - middles[1]
        near = F.avg_pool2d(torch.cat([k, k.square()], 1), self.kernel_size, 1)
        key, square = near.chunk(2, 1)
        mean = (q - key).mean((0, 2, 3))
        square = (q.square() - 2 * q * key + square).mean((0, 2, 3))
        return (square - mean.square()).clamp_min(0), mean + (middles[0] - middles[1]).flatten()

    def relation(self, q: Tensor, k: Tensor) -> Tensor:
        """Difference of queries (N, R, H', W') to padded keys, (N, R, k^2, H' * W')."""
        return q.flatten(2).unsqueeze(2) - self.unfold(k)

    def patch(self, q: Tensor, k: Tensor) -> Tensor:
        """Queries (N, R, H', W') beside all taps of padded keys, (N, R * (k^2 + 1), 1, H' * W')."""
        return torch.cat([q.flatten(2), self.unfold(k).flatten(1, 2)], 1).unsqueeze(2)
