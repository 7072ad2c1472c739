"""ACmix: one set of projections feeds self-attention and a convolution, and both are added.

Source: "On the Integration of Self-Attention and Convolution" (arXiv 2111.14556), section 4 and
its code, which the checkpoints follow where it differs from the text.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.attention_axes import mirrored
from hybrid_mm.layers.heads import merge_heads
from hybrid_mm.layers.local_attention import local_attention, partition_attention
from hybrid_mm.layers.mixed_shift import MixedShift, check_impl
from hybrid_mm.layers.relative_position import encode_coordinates, window_index

_LARGE = 2**13  # pixels of a map from which memory counts more than time


class ACmix2d(nn.Module):
    """ACmix in the place of a convolution (form of ResNet).

    ``rate1 * attention + rate2 * convolution`` with rates that are learnt from 0.5 each. Attention
    goes to the window around a pixel, mirrored at the border; its logit for the key at p + t is
    ``d^-0.5 q_p.(k_{p+t} + e_p - e_{p+t})``, e being a 1x1 convolution of the pixel's coordinates
    in -1..1. Softmax cancels e_p: e is subtracted from the keys, and nothing else is computed.
    Multiplications per pixel: 3 C_in C + 2 k^2 C for attention, see :class:`MixedShift` for the
    rest. Kept for the backward pass: six maps of C channels.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels C of the output.
        kernel_att: Window of the attention, odd.
        heads: Number of heads; d = C / heads.
        kernel_conv: Kernel of the convolution, odd.
        stride: Stride; attention of every ``stride``-th query.
        dilation: Distance of the pixels of a window.
        impl: 'engine', or 'reference', the published formulation step by step, which keeps k^2
            copies of keys, values and positions.

    Raises:
        ValueError: Heads that do not divide C, an even window or kernel, an unknown impl.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_att: int = 7,
        heads: int = 4,
        kernel_conv: int = 3,
        stride: int = 1,
        dilation: int = 1,
        impl: str = 'engine',
    ) -> None:
        super().__init__()
        check_impl(impl)
        if heads < 1 or out_channels % heads:
            raise ValueError(f'heads must divide the {out_channels} output channels, got {heads}')
        if kernel_att % 2 == 0:
            raise ValueError(f'kernel_att must be odd, got {kernel_att}')
        self.heads, self.dim = heads, out_channels // heads
        self.kernel_att, self.stride, self.dilation, self.impl = kernel_att, stride, dilation, impl
        # output channel (j, which of q, k, v, head): what the convolution path reads side by side
        self.qkv = nn.Conv2d(in_channels, 3 * out_channels, 1)
        self.position = nn.Conv2d(2, self.dim, 1)
        self.mix = MixedShift(3 * heads, self.dim, heads, kernel_conv, stride, impl=impl)
        self.rate1 = nn.Parameter(torch.full((1,), 0.5))
        self.rate2 = nn.Parameter(torch.full((1,), 0.5))

    def he_init(self, shift: bool = True) -> None:
        """He's initial values of a ResNet, by fan-out; queries, keys and values on their own.

        Args:
            shift: Leave the kernels of the convolution path shifts.
        """
        nn.init.normal_(self.qkv.weight, std=(2 / (self.heads * self.dim)) ** 0.5)
        layers = [self.position, self.mix.fc, *(() if shift else [self.mix.dep_conv])]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, C, ceil(H / stride), ceil(W / stride))."""
        n, _, height, width = x.shape
        maps = self.qkv(x).view(n, self.dim, 3, self.heads, height, width)
        q, k, v = maps.permute(2, 0, 3, 4, 5, 1)
        position = encode_coordinates(self.position, height, width).permute(1, 2, 0)
        q = q[:, :, :: self.stride, :: self.stride]
        attend = self._reference if self.impl == 'reference' else self._engine
        attention = merge_heads(attend(q, k, v, position))
        conv = self.mix(maps.flatten(2, 3).transpose(1, 2), self.rate2)
        return torch.addcmul(conv, attention, self.rate1.to(conv.dtype))

    def _engine(self, q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> Tensor:
        return local_attention(
            q, (k - position).to(k.dtype), v, self.kernel_att, dilation=self.dilation,
            stride=self.stride, border='reflect',
        )  # fmt: skip

    def _reference(self, q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> Tensor:
        """Unfold keys, values and positions, (N, heads, H, W, k^2, d) each."""
        s = self.stride
        place = position[::s, ::s]
        position = self._unfold(position[None, None])
        keys, values = self._unfold(k), self._unfold(v)
        scaled = (q * self.dim**-0.5).unsqueeze(-2)
        logits = (scaled * (keys + place.unsqueeze(-2) - position)).sum(-1)
        weights = logits.softmax(-1)
        return (weights.unsqueeze(-1).to(values.dtype) * values).sum(-2)

    def _unfold(self, x: Tensor) -> Tensor:
        """Windows of (N, heads, H, W, d), mirrored at the border: (N, heads, H', W', k^2, d)."""
        reach = self.dilation * (self.kernel_att // 2)
        x = mirrored(x, reach)
        span = 2 * reach + 1
        x = x.unfold(2, span, self.stride).unfold(3, span, self.stride)
        x = x[..., :: self.dilation, :: self.dilation]
        return x.flatten(-2).transpose(-1, -2)

    def extra_repr(self) -> str:
        """Window and heads, for printing."""
        return f'kernel_att={self.kernel_att}, heads={self.heads}, stride={self.stride}'


class ACmixWindowAttention(nn.Module):
    """ACmix in the place of Swin's window attention (form of Swin).

    ``rate1 * projection(attention) + rate2 * convolution``. The convolution path reads queries,
    keys and values of the whole map, rolled in a shifted block: it convolves over the seam and sees
    zeros at the border of the rolled map, as the published weights do.

    Args:
        dim: Channels C.
        window: Pixels of a window on each side.
        heads: Number of heads.
        qkv_bias: Bias of the projection to queries, keys and values.
        qk_scale: Factor of the logits, by default (C / heads)^-0.5.
        attn_drop: Dropout rate of the attention weights; above 0, attention is not the engine's.
        proj_drop: Dropout rate of the result.
        impl: 'engine', or 'reference', the published formulation step by step.

    Raises:
        ValueError: Heads that do not divide C, an unknown impl.
    """

    def __init__(
        self,
        dim: int,
        window: int,
        heads: int,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        impl: str = 'engine',
    ) -> None:
        super().__init__()
        check_impl(impl)
        if heads < 1 or dim % heads:
            raise ValueError(f'heads must divide the {dim} channels, got {heads}')
        self.window, self.heads, self.width, self.impl = window, heads, dim // heads, impl
        self.scale = self.width**-0.5 if qk_scale is None else qk_scale
        self.attn_drop, self.proj_drop = attn_drop, proj_drop
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.relative_bias = nn.Parameter(torch.empty(heads, 2 * window - 1, 2 * window - 1))
        self.mix = MixedShift(3 * heads, self.width, heads, bias=True, impl=impl)
        self.rate1 = nn.Parameter(torch.full((1,), 0.5))
        self.rate2 = nn.Parameter(torch.full((1,), 0.5))
        nn.init.trunc_normal_(self.relative_bias, std=0.02)

    def forward(self, x: Tensor, shift: int = 0) -> Tensor:
        """Map (N, H, W, C), H and W multiples of the window, to the same shape.

        Args:
            x: Normalised tokens.
            shift: By how much the windows are shifted, 0..window - 1.

        Raises:
            ValueError: H or W is no multiple of the window.
        """
        n, height, width, dim = x.shape
        if height % self.window or width % self.window:
            raise ValueError(
                f'H and W must be multiples of the window {self.window}, got {height} x {width}'
            )
        if shift:
            x = x.roll((-shift, -shift), (1, 2))
        maps = self.qkv(x).view(n, height, width, 3, self.heads, self.width)
        attend = self._engine if height * width > _LARGE else self._batched
        if self.impl == 'reference' or self.attn_drop:
            attend = self._reference
        attention = attend(*maps.permute(3, 0, 4, 1, 2, 5), shift)
        attention = self.proj(attention.permute(0, 2, 3, 1, 4).reshape(n, height, width, dim))
        conv = self.mix(maps.flatten(3, 4).permute(0, 3, 4, 1, 2), self.rate2)
        out = torch.addcmul(conv.permute(0, 2, 3, 1), attention, self.rate1.to(conv.dtype))
        if shift:
            out = out.roll((shift, shift), (1, 2))
        return F.dropout(out, self.proj_drop, self.training)

    def _engine(self, q: Tensor, k: Tensor, v: Tensor, shift: int) -> Tensor:
        return partition_attention(
            q, k, v, self.window, shift=shift, scale=self.scale, bias=self.relative_bias
        )

    def _batched(self, q: Tensor, k: Tensor, v: Tensor, shift: int) -> Tensor:
        """All windows at once, for small maps: it keeps the weights and is faster there."""
        logits = (self._cut(q) * self.scale) @ self._cut(k).transpose(-1, -2)
        logits += self._bias().to(logits.dtype)
        if shift:
            logits += self._mask(q, shift)
        return self._uncut(logits.softmax(-1).to(v.dtype) @ self._cut(v))

    def _reference(self, q: Tensor, k: Tensor, v: Tensor, shift: int) -> Tensor:
        """The published formulation: windows, bias, Swin's mask, softmax."""
        logits = (self._cut(q) * self.scale) @ self._cut(k).transpose(-1, -2)
        logits = logits + self._bias()
        if shift:
            logits = logits + self._mask(q, shift)
        weights = F.dropout(logits.softmax(-1), self.attn_drop, self.training)
        return self._uncut(weights.to(v.dtype) @ self._cut(v))

    def _cut(self, x: Tensor) -> Tensor:
        """(N, heads, H, W, d) to (N, heads, rows, columns of windows, window^2, d)."""
        x = x.unflatten(3, (-1, self.window)).unflatten(2, (-1, self.window))
        return x.transpose(3, 4).flatten(4, 5)

    def _uncut(self, x: Tensor) -> Tensor:
        """The reverse."""
        x = x.unflatten(4, (self.window, self.window))
        return x.transpose(3, 4).flatten(4, 5).flatten(2, 3)

    def _bias(self) -> Tensor:
        """Bias of query and key, (heads, 1, 1, window^2, window^2)."""
        index = window_index(self.window).t()  # Swin's counts query minus key, ours key minus query
        bias = self.relative_bias.flatten(1)[:, index.to(self.relative_bias.device)]
        return bias[:, None, None]

    def _mask(self, q: Tensor, shift: int) -> Tensor:
        """-100 for pixels that the roll made neighbours, (rows, columns, window^2, window^2)."""
        rows, columns = (
            (torch.arange(s, device=q.device) >= s - self.window).long()
            + (torch.arange(s, device=q.device) >= s - shift)
            for s in q.shape[2:4]
        )
        region = self._cut((3 * rows[:, None] + columns)[None, None, :, :, None])[0, 0, ..., 0]
        return ((region.unsqueeze(-1) != region.unsqueeze(-2)) * -100.0).to(q.dtype)
