"""Pairwise and patchwise self-attention of SAN: weights of their own for groups of channels.

Source: "Exploring Self-attention for Image Recognition" (arXiv 2004.13621), section 3 and its code.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.convolution.mixed_shift_conv import MixedShift
from hybrid_mm.ops.argument_types import sized_arguments
from hybrid_mm.ops.dispatch import check_impl
from hybrid_mm.ops.export import exporting, numbers, require_fixed_size
from hybrid_mm.ops.fusing import is_plain
from hybrid_mm.ops.implicit_norm import is_settled, merged_statistics, normalisation, settled
from hybrid_mm.ops.positions import encode_coordinates
from hybrid_mm.ops.precision import accurate
from hybrid_mm.ops.recompute import recomputed
from hybrid_mm.ops.vector_attention import (
    Window,
    activated_product,
    aggregate,
    algorithm,
    exported,
    pointwise,
    weighted_taps,
)
from hybrid_mm.ops.vector_attention.window import channel_moments


class VectorAttention2d(nn.Module):
    """Base of both: ``y[c, p] = sum_t w[c mod G, t, p] v[c, p + t]`` with G weights.

    The taps t are a k x k window around a pixel, mirrored at the border of a map of any size. What
    exists for every tap is computed for a few rows at a time, and again in the backward pass: kept
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
        impl: 'tiled', 'triton' (what 'auto' is on a GPU), or 'reference', the published formulation
            step by step, which keeps k^2 copies.

    Raises:
        ValueError: An even window, channels that do not divide, or an unknown impl.
    """

    norm1: nn.Module
    norm2: nn.Module
    conv1: nn.Conv2d
    conv2: nn.Conv2d

    block_size = 8  # pixels of a row that exported graphs take at a time

    @sized_arguments
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
        self.impl, self._window = impl, Window(kernel_size, stride, dilation)
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

    def attend(self, q: Tensor, k: Tensor, v: Tensor, impl: str) -> Tensor:
        """Map queries (N, R, H', W') and keys and values (N, R or C, H, W) to (N, C, H', W')."""
        raise NotImplementedError

    def reference_weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Weights (N, G, k^2, H' * W'), step by step."""
        raise NotImplementedError

    def exported_weights(self, tiles: exported.Tiles, q: Tensor, k: Tensor) -> Tensor:
        """Weights (N, G, queries, k^2) of the queries of tiles, of maps q and k (N, R, H, W)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        q, k, v = self.query_conv(x), self.key_conv(x), self.value_conv(x)
        queries = self._centres(q)
        fused = is_plain(self.norm1, self.norm2, self.conv1, self.conv2)
        impl = algorithm(self.impl, q, k, v) if fused else 'reference'
        if fused and exporting() and is_settled(self.norm1) and is_settled(self.norm2):
            tiles = exported.tiles_of(self._window, k)
            weights = self.exported_weights(tiles, q, k)
            out = exported.aggregate(self._window, tiles, weights, v)
        elif impl == 'reference':
            require_fixed_size(x.shape[2:], 'vector attention with layers of other types')
            out = self._reference(queries, k, v)
        else:
            out = self.attend(queries, k, v, impl)
        if self.mix is None:
            return out
        maps = torch.cat([q, k, v], 1).unflatten(1, (-1, self.rel_channels))
        conv = self.mix(maps, self.rate2)
        return torch.addcmul(conv, out.to(conv.dtype), self.rate1.to(conv.dtype))

    def _centres(self, x: Tensor) -> Tensor:
        """The pixels (N, C, H', W') of a map that attend."""
        return x[:, :, :: self.stride, :: self.stride]

    def _reference(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = self.reference_weights(q, k)
        taps = self._window.unfold(self._window.pad(v))
        return weighted_taps(weights, taps).unflatten(2, q.shape[2:])

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
        """Build the encoding of the position, and the network gamma of the paper."""
        channels = self.rel_channels
        self.position = nn.Conv2d(2, 2, 1)
        self.norm1, self.norm2 = norm(channels + 2), norm(channels)
        self.conv1 = nn.Conv2d(channels + 2, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, self.groups, 1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, impl: str) -> Tensor:
        """Chunk by chunk of rows: statistics of either norm, then weights and their sums."""
        window = self._window
        q, k = self._with_position(q, k)
        k, v = window.pad(k), window.pad(v)

        def hidden(q: Tensor, k: Tensor) -> Tensor:
            """Input of the second norm, (N, R, k^2, H' * W')."""
            relation = window.relation(q, k)
            return activated_product(relation, *first, self.conv1.weight, impl=impl)

        def statistics(function: Callable[[Tensor, Tensor], Tensor]) -> tuple:
            def part(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
                return channel_moments(accurate(function(q, k)))

            parts = list(window.rows(q, q.shape[1], k))
            found = [recomputed(part, *x) for x in parts]
            counts = [len(x) * window.kernel_size**2 * x.shape[2:].numel() for x, _ in parts]
            return merged_statistics(found, counts)

        def first_statistics() -> tuple:
            if impl == 'triton' and window.stride == window.dilation == 1:
                return self._pooled_statistics(q, k)
            return statistics(window.relation)

        first = normalisation(self.norm1, first_statistics)
        second = normalisation(self.norm2, lambda: statistics(hidden))

        def part(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            last = self.conv2.weight, self.conv2.bias
            weights = activated_product(hidden(q, k), *second, *last, impl=impl).softmax(2)
            return aggregate(window, weights, v, q.shape[2:], impl)

        return torch.cat([recomputed(part, *x) for x in window.rows(q, q.shape[1], k, v)], 2)

    def _pooled_statistics(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, int]:
        """Variance, mean and count of the input of the first norm in a few launches.

        Positions are the same in all images, and too close together for that: theirs are formed.
        """
        relation = self._window.relation(q[:1, -2:], k[:1, -2:])
        place = channel_moments(relation)
        pairs = zip(self._window.relation_moments(q[:, :-2], k[:, :-2]), place, strict=True)
        var, mean = (torch.cat(pair) for pair in pairs)
        return var, mean, len(q) * relation.shape[2:].numel()

    def reference_weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Weights (N, G, k^2, H' * W'), step by step."""
        q, k = self._with_position(q, k)
        relation = self._window.relation(q, self._window.pad(k))
        hidden = self.conv1(F.relu(self.norm1(relation)))
        return self.conv2(F.relu(self.norm2(hidden))).softmax(2)

    def exported_weights(self, tiles: exported.Tiles, q: Tensor, k: Tensor) -> Tensor:
        """Weights (N, G, queries, k^2) of the queries of tiles, of maps q and k (N, R, H, W)."""
        place = encode_coordinates(self.position, *numbers(k.shape[2:]))[None]
        place = place.expand(k.shape[0], -1, -1, -1)
        scale, shift = (x[:, None, None] for x in settled(self.norm1))
        # the norm of a difference by maps, which are small
        q = exported.vectors(torch.cat([q, place], 1) * scale + shift, tiles.query)
        k = exported.vectors(torch.cat([k, place], 1) * scale, tiles.taps)
        scale, shift = settled(self.norm2)
        weight = self.conv1.weight.flatten(1) * scale[:, None]
        hidden = F.relu(F.linear(F.relu(q.unsqueeze(2) - k), weight, shift))
        weights = F.linear(hidden, self.conv2.weight.flatten(1), self.conv2.bias)
        return weights.permute(0, 3, 1, 2).softmax(-1)

    def _with_position(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Add the two channels of the position to queries and keys, in full precision."""
        place = encode_coordinates(self.position, *k.shape[2:]).expand(k.shape[0], -1, -1, -1)
        q, k = q.to(place.dtype), k.to(place.dtype)
        return torch.cat([q, self._centres(place)], 1), torch.cat([k, place], 1)


class PatchwiseAttention2d(VectorAttention2d):
    """Weights of all taps come together from the query and all keys of the window.

    ``w = gamma([q_p, k_{p+t} for all t])``, without softmax; gamma is norm, ReLU, 1x1 to G, norm,
    ReLU, 1x1 to k^2 G. Multiplications per pixel: R (k^2 + 1) G + k^2 G^2 + k^2 C.

    See :class:`VectorAttention2d` for the arguments.
    """

    def make_weighting(self, norm: Callable[[int], nn.Module]) -> None:
        """Build the network gamma of the paper."""
        taps = self.kernel_size**2
        channels = self.rel_channels * (taps + 1)
        self.norm1, self.norm2 = norm(channels), norm(self.groups)
        self.conv1 = nn.Conv2d(channels, self.groups, 1, bias=False)
        self.conv2 = nn.Conv2d(self.groups, taps * self.groups, 1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, impl: str) -> Tensor:
        """The small map before the second norm chunk by chunk of rows, then weights and sums."""
        window = self._window
        k, v = window.pad(k), window.pad(v)
        scale, shift = normalisation(self.norm1, lambda: window.statistics(q, k))

        def hidden(q: Tensor, k: Tensor) -> Tensor:
            patch = window.patch(q, k)
            mid = activated_product(patch, scale, shift, self.conv1.weight, impl=impl)
            return mid.unflatten(3, q.shape[2:])

        parts = window.rows(q, self.rel_channels, k)
        mid = torch.cat([recomputed(hidden, *x) for x in parts], 3).squeeze(2)
        mid = F.relu(self.norm2(mid))

        def result(mid: Tensor, v: Tensor) -> Tensor:
            weights = pointwise(mid.flatten(2).unsqueeze(2), self.conv2.weight, self.conv2.bias)
            weights = weights.squeeze(2).unflatten(1, (self.groups, -1))
            return aggregate(window, weights, v, mid.shape[2:], impl)

        return torch.cat([recomputed(result, *x) for x in window.rows(mid, self.groups, v)], 2)

    def reference_weights(self, q: Tensor, k: Tensor) -> Tensor:
        """Weights (N, G, k^2, H' * W'), step by step."""
        patch = self._window.patch(q, self._window.pad(k))
        hidden = self.conv1(F.relu(self.norm1(patch)))
        weights = self.conv2(F.relu(self.norm2(hidden)))
        return weights.squeeze(2).unflatten(1, (self.groups, -1))

    def exported_weights(self, tiles: exported.Tiles, q: Tensor, k: Tensor) -> Tensor:
        """Weights (N, G, queries, k^2) of the queries of tiles, of maps q and k (N, R, H, W)."""
        widths = (self.rel_channels, self.rel_channels * self.kernel_size**2)
        (scale_q, scale_k), (shift_q, shift_k) = (x.split(widths) for x in settled(self.norm1))
        scale, shift = settled(self.norm2)
        weight_q, weight_k = (self.conv1.weight.flatten(1) * scale[:, None]).split(widths, 1)
        # channels of the keys: taps of a channel side by side, here channels of a tap
        scale_k, shift_k = (x.unflatten(0, (self.rel_channels, -1)).t() for x in (scale_k, shift_k))
        weight_k = weight_k.unflatten(1, (self.rel_channels, -1)).transpose(1, 2).flatten(1)
        own = F.relu(exported.vectors(q, tiles.query) * scale_q + shift_q)
        near = F.relu(exported.vectors(k, tiles.taps) * scale_k + shift_k)
        mid = F.linear(own, weight_q, shift) + F.linear(near.flatten(2), weight_k)
        weights = F.linear(F.relu(mid), self.conv2.weight.flatten(1), self.conv2.bias)
        return weights.unflatten(2, (self.groups, -1)).transpose(1, 2)
