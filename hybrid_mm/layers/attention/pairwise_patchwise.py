"""Pairwise and patchwise self-attention of SAN: weights of their own for groups of channels.

Source: "Exploring Self-attention for Image Recognition" (arXiv 2004.13621), section 3 and its code.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hybrid_mm.layers.convolution.mixed_shift_conv import MixedShift
from hybrid_mm.ops import budget
from hybrid_mm.ops.dispatch import check_impl, is_reference
from hybrid_mm.ops.export import exporting, require_fixed_size
from hybrid_mm.ops.implicit_norm import merged_statistics, normalisation
from hybrid_mm.ops.local_attention.axes import mirrored
from hybrid_mm.ops.positions import encode_coordinates
from hybrid_mm.ops.precision import accurate
from hybrid_mm.ops.vector_attention import aggregate_taps, tap_views


class VectorAttention2d(nn.Module):
    """What both kinds share: ``y[c, p] = sum_t w[c mod G, t, p] v[c, p + t]`` with G weights.

    The taps t are a k x k window around a pixel, mirrored at the border of a map of any size. What
    exists for every tap is computed for some rows at a time, and again in the backward pass: kept
    are maps of the size of queries, keys and values. Batch norms over all taps have exact
    statistics.

    With ``mix``, ACmix adds the convolution path (arXiv 2111.14556): queries, keys and values are
    ``2 + out_channels / rel_channels`` maps of ``rel_channels``, and the result is ``rate1 *
    attention + rate2 * convolution``. Its authors published no code of this host.

    Args:
        in_channels: Channels of the input.
        rel_channels: Channels of queries and of keys.
        out_channels: Channels C of values and result.
        share: Channels that share a weight; G = C / share.
        kernel_size: Window k, odd.
        stride: Distance of the pixels that attend.
        dilation: Distance of the pixels of a window.
        mix: Add the convolution path of ACmix.
        norm: Makes the batch norm of a number of channels.
        impl: 'tiled' (and 'auto'), or 'reference', the published formulation step by step, which
            keeps k^2 copies.

    Raises:
        ValueError: An even window, channels that do not divide, or an unknown impl.
    """

    def __init__(
        self,
        in_channels: int,
        rel_channels: int,
        out_channels: int,
        share: int = 8,
        kernel_size: int = 7,
        stride: int = 1,
        dilation: int = 1,
        mix: bool = False,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd, got {kernel_size}')
        if out_channels % share or (mix and out_channels % rel_channels):
            raise ValueError(
                f'out_channels must be a multiple of share, and with mix of rel_channels, got '
                f'{out_channels}, {share} and {rel_channels}'
            )
        check_impl(impl, 'vector_attention')
        self.rel_channels, self.groups = rel_channels, out_channels // share
        self.kernel_size, self.stride, self.dilation = kernel_size, stride, dilation
        self.impl = impl
        self.query_conv = nn.Conv2d(in_channels, rel_channels, 1)
        self.key_conv = nn.Conv2d(in_channels, rel_channels, 1)
        self.value_conv = nn.Conv2d(in_channels, out_channels, 1)
        self.mix = None
        if mix:
            heads = out_channels // rel_channels
            self.mix = MixedShift(2 + heads, rel_channels, heads, stride=stride, impl=impl)
            self.rate1 = nn.Parameter(torch.full((1,), 0.5))
            self.rate2 = nn.Parameter(torch.full((1,), 0.5))
        self.make_weighting(norm)

    def make_weighting(self, norm: Callable[[int], nn.Module]) -> None:
        """Build the layers from queries and keys to weights."""
        raise NotImplementedError

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Map queries (N, R, H', W') and keys and values (N, R or C, H, W) to (N, C, H', W')."""
        raise NotImplementedError

    def reference_weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Weights (N, G, k^2, H'W'), step by step."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        require_fixed_size(x.shape[2:], 'vector attention')
        q, k, v = self.query_conv(x), self.key_conv(x), self.value_conv(x)
        queries = q[:, :, :: self.stride, :: self.stride]
        attend = (
            self._reference
            if is_reference(self.impl, 'vector_attention') or exporting()
            else self.attend
        )
        out = attend(queries, k, v)
        if self.mix is None:
            return out
        maps = torch.cat([q, k, v], 1).unflatten(1, (-1, self.rel_channels))
        conv = self.mix(maps, self.rate2)
        return torch.addcmul(conv, out.to(conv.dtype), self.rate1.to(conv.dtype))

    def _reference(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = self.reference_weights(q, k).to(v.dtype).unsqueeze(1)
        values = self.unfold(self.pad(v)).unflatten(1, (-1, self.groups))
        return (weights * values).sum(3).flatten(1, 2).unflatten(2, q.shape[2:])

    # -- taps ------------------------------------------------------------------------------------

    def pad(self, x: Tensor) -> Tensor:
        """Mirror (N, C, H, W) at its border by the reach of the window."""
        reach = self.dilation * (self.kernel_size // 2)
        if reach < min(x.shape[2:]):
            return F.pad(x, (reach,) * 4, mode='reflect')
        return mirrored(x, reach)

    def unfold(self, padded: Tensor) -> Tensor:
        """Taps (N, C, k^2, H'W') of a padded map."""
        taps = F.unfold(padded, self.kernel_size, self.dilation, stride=self.stride)
        return taps.unflatten(1, (padded.shape[1], -1))

    def rows(self, q: Tensor, channels: int, *padded: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Cut queries, and padded maps to what they see, into rows for a chunk of numbers."""
        row = q.shape[0] * channels * self.kernel_size**2 * q.shape[3]
        count = budget.fitting(q.shape[2], row, q.device)
        reach = self.dilation * (self.kernel_size - 1) + 1
        start = 0
        for part in q.split(count, 2):
            length = (part.shape[2] - 1) * self.stride + reach
            yield part, *(x.narrow(2, start * self.stride, length) for x in padded)
            start += part.shape[2]

    def aggregate(self, weights: Tensor, values: Tensor, size: torch.Size) -> Tensor:
        """Weights (N, G, k^2, H'W') and a padded map to (N, C, H', W')."""
        weights = weights.to(values.dtype).unflatten(3, size)
        return aggregate_taps(weights, values, self.kernel_size, self.stride, self.dilation)

    def extra_repr(self) -> str:
        """Window and groups, for printing."""
        return f'kernel_size={self.kernel_size}, groups={self.groups}, dilation={self.dilation}'


class PairwiseAttention2d(VectorAttention2d):
    """Weights of a tap come from the difference of its key to the query, and of their positions.

    ``w = softmax_t(gamma([q_p - k_{p+t}, e_p - e_{p+t}]))``; gamma is norm, ReLU, 1x1, norm, ReLU,
    1x1, and e a 1x1 convolution of the coordinates in -1..1. Multiplications per pixel and tap:
    R (R + 2) + R G + C. Both norms take their statistics over all taps, in passes of their own.

    See :class:`VectorAttention2d` for the arguments.
    """

    def make_weighting(self, norm: Callable[[int], nn.Module]) -> None:
        """Encoding of the position, and gamma."""
        channels = self.rel_channels
        self.position = nn.Conv2d(2, 2, 1)
        self.norm1, self.norm2 = norm(channels + 2), norm(channels)
        self.conv1 = nn.Conv2d(channels + 2, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, self.groups, 1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See the base class."""
        q, k = self._with_position(q, k)
        k, v = self.pad(k), self.pad(v)

        def statistics(function: Callable[..., Tensor], *affine: Tensor) -> tuple[Tensor, ...]:
            def part(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
                return torch.var_mean(accurate(function(q, k, *affine)), (0, 2, 3), correction=0)

            parts = list(self.rows(q, q.shape[1], k))
            found = [_recomputed(part, *x) for x in parts]
            counts = [x.shape[0] * self.kernel_size**2 * x[0, 0].numel() for x, _ in parts]
            return merged_statistics(found, counts)

        first = normalisation(self.norm1, lambda: statistics(self._relation))
        second = normalisation(self.norm2, lambda: statistics(self._hidden, *first))

        def part(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            hidden = self._hidden(q, k, *first)
            weights = _pointwise(self.conv2, _activated(hidden, *second)).softmax(2)
            return self.aggregate(weights, v, q.shape[2:])

        return torch.cat([_recomputed(part, *x) for x in self.rows(q, q.shape[1], k, v)], 2)

    def reference_weights(self, q: Tensor, k: Tensor) -> Tensor:
        """See the base class."""
        q, k = self._with_position(q, k)
        hidden = self.conv1(F.relu(self.norm1(self._relation(q, self.pad(k)))))
        return self.conv2(F.relu(self.norm2(hidden))).softmax(2)

    def _with_position(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Add the two channels of the position to queries and keys, in full precision."""
        place = encode_coordinates(self.position, *k.shape[2:]).expand(k.shape[0], -1, -1, -1)
        centre = place[:, :, :: self.stride, :: self.stride]
        q, k = q.to(place.dtype), k.to(place.dtype)
        return torch.cat([q, centre], 1), torch.cat([k, place], 1)

    def _relation(self, q: Tensor, k: Tensor) -> Tensor:
        """Difference of queries to padded keys, (N, R + 2, k^2, H'W')."""
        return q.flatten(2).unsqueeze(2) - self.unfold(k)

    def _hidden(self, q: Tensor, k: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return _pointwise(self.conv1, _activated(self._relation(q, k), scale, shift))


class PatchwiseAttention2d(VectorAttention2d):
    """Weights of all taps come together from the query and all keys of the window.

    ``w = gamma([q_p, k_{p+t} for all t])``, without softmax; gamma is norm, ReLU, 1x1 to G, norm,
    ReLU, 1x1 to k^2 G. Multiplications per pixel: R (k^2 + 1) G + k^2 G^2 + k^2 C.

    See :class:`VectorAttention2d` for the arguments.
    """

    def make_weighting(self, norm: Callable[[int], nn.Module]) -> None:
        """Gamma."""
        taps = self.kernel_size**2
        channels = self.rel_channels * (taps + 1)
        self.norm1, self.norm2 = norm(channels), norm(self.groups)
        self.conv1 = nn.Conv2d(channels, self.groups, 1, bias=False)
        self.conv2 = nn.Conv2d(self.groups, taps * self.groups, 1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """See the base class."""
        k, v = self.pad(k), self.pad(v)
        scale, shift = normalisation(self.norm1, lambda: self._statistics(q, k))

        def hidden(q: Tensor, k: Tensor) -> Tensor:
            patch = self._patch(q, k)
            return _pointwise(self.conv1, _activated(patch, scale, shift)).unflatten(3, q.shape[2:])

        parts = self.rows(q, self.rel_channels, k)
        mid = torch.cat([_recomputed(hidden, *x) for x in parts], 3).squeeze(2)
        mid = F.relu(self.norm2(mid))

        def result(mid: Tensor, v: Tensor) -> Tensor:
            weights = _pointwise(self.conv2, mid.flatten(2).unsqueeze(2))
            return self.aggregate(
                weights.squeeze(2).unflatten(1, (self.groups, -1)), v, mid.shape[2:]
            )

        return torch.cat([_recomputed(result, *x) for x in self.rows(mid, self.groups, v)], 2)

    def reference_weights(self, q: Tensor, k: Tensor) -> Tensor:
        """See the base class."""
        hidden = self.conv1(F.relu(self.norm1(self._patch(q, self.pad(k)))))
        weights = self.conv2(F.relu(self.norm2(hidden)))
        return weights.squeeze(2).unflatten(1, (self.groups, -1))

    def _patch(self, q: Tensor, k: Tensor) -> Tensor:
        """Queries beside all taps of padded keys, (N, R (k^2 + 1), 1, H'W')."""
        return torch.cat([q.flatten(2), self.unfold(k).flatten(1, 2)], 1).unsqueeze(2)

    def _statistics(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, int]:
        """Variance and mean of queries and of every tap, without a copy of the taps."""
        # the reduction keeps its input only, here views of the padded keys
        views = tap_views(accurate(k), self.kernel_size, self.stride, self.dilation, q.shape[2:])
        query = torch.var_mean(accurate(q), (0, 2, 3), correction=0)
        taps = [torch.var_mean(view, (0, 2, 3), correction=0) for view in views]
        var, mean = (
            torch.cat([a, torch.stack(b, 1).flatten()])
            for a, b in zip(query, zip(*taps, strict=True), strict=True)
        )
        return var, mean, q.shape[0] * q[0, 0].numel()


# -- parts of gamma --------------------------------------------------------------------------------


def _recomputed(function: Callable, *tensors: Tensor):
    """Call a function whose intermediate results are not kept for the backward pass."""
    if not torch.is_grad_enabled():
        return function(*tensors)
    return checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)


def _activated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``relu(scale x + shift)`` with the scale and shift of each channel of (N, C, T, L)."""
    return torch.addcmul(shift[:, None, None], x.to(scale.dtype), scale[:, None, None]).relu_()


def _pointwise(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """1x1 convolution of (N, C, T, L) as a matrix product."""
    out = torch.matmul(conv.weight.flatten(1), x.flatten(2)).unflatten(2, x.shape[2:])
    return out if conv.bias is None else out + conv.bias[:, None, None].to(out.dtype)
