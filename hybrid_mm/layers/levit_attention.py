"""Attention with a bias per distance, between linear layers with batch norm.

Source: "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference" (arXiv 2104.01136),
sections 4.2 and 4.3, and its code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.layers.exporting import require_fixed_size
from hybrid_mm.layers.folded_norm import LinearNorm
from hybrid_mm.layers.local_attention import global_attention

IMPLS = ('auto', 'tiled', 'mask')
_MASK_LIMIT = 2**16  # pairs of a query and a key up to which a map is small


def resize_distance_table(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Fit a table of distances to a map of another size.

    Bilinear with aligned corners: distance 0 and the farthest distance keep their entries.

    Args:
        table: (heads, R, C), by distance in rows and in columns.
        size: Rows H and columns W of the map.

    Returns:
        (heads, H, W).
    """
    if tuple(table.shape[1:]) == tuple(size):
        return table
    return F.interpolate(table[None], size=size, mode='bilinear', align_corners=True)[0]


def _distances(length: int, stride: int, like: Tensor) -> Tensor:
    """Distance of every ``stride``-th position to every position, (queries, length)."""
    place = torch.arange(length, device=like.device)
    return (place[::stride, None] - place).abs()


def distance_attention(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, stride: int = 1, impl: str = 'auto'
) -> Tensor:
    """Attention of every pixel to all; the logits get a bias by distance in rows and columns.

    Args:
        q: Queries, (N, heads, ceil(H / stride), ceil(W / stride), d).
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        table: (heads, H, W): b[h, |i - y|, |j - x|].
        stride: Distance of the queries in pixels.
        impl: 'mask' spreads the table over all pairs of pixels for torch's attention and keeps the
            attention weights for the backward pass; 'tiled' keeps q, k, v and the table, and is
            faster on large maps; 'auto' takes 'mask' on maps of classification size (measured:
            14 x 14 pixels) and 'tiled' above.

    Returns:
        (N, heads, ceil(H / stride), ceil(W / stride), d_v).

    Raises:
        ValueError: Unknown impl.
    """
    if impl not in IMPLS:
        raise ValueError(f'impl must be one of {", ".join(IMPLS)}, got {impl!r}')
    height, width = k.shape[2:4]
    pairs = q.shape[2] * q.shape[3] * height * width
    if impl == 'mask' or (impl == 'auto' and pairs <= _MASK_LIMIT):
        rows, columns = _distances(height, stride, k), _distances(width, stride, k)
        entry = rows[:, None, :, None] * width + columns[:, None]
        mask = table.to(q.dtype).flatten(1)[:, entry.flatten(2).flatten(0, 1)]
        q, k, v = (x.flatten(2, 3) for x in (q, k, v))
        if q.is_cuda:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:  # torch's would take the same steps, and look for rows without any key besides
            y = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3) + mask).softmax(-1).to(v.dtype) @ v
        return y.unflatten(2, (-(-height // stride), -(-width // stride)))
    # by offset: distances backwards, then forwards
    bias = torch.cat([table[:, 1:].flip(1), table], 1)
    bias = torch.cat([bias[:, :, 1:].flip(2), bias], 2)
    return global_attention(q, k, v, stride=stride, bias=bias)


class LeViTAttention(nn.Module):
    """Attention of every pixel to all, with narrow queries and keys and wide values.

    Linear layers have a batch norm and no bias; Hardswish stands before the last one. With a
    stride, queries come from every second row and column: the shrinking attention between stages.

    Costs (d + d_v) heads (H W)^2 / s^2 multiplications besides the linear layers.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        key_dim: Width d of a head's queries and keys.
        heads: Number of heads.
        value_ratio: Width of a head's values as a multiple of d.
        resolution: Rows and columns (R, R) of the map that the table of biases is made for; it is
            interpolated for others.
        stride: Distance s of the queries.
        norm_weight: Initial scale of the last norm.
        impl: See :func:`distance_attention`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        key_dim: int,
        heads: int,
        value_ratio: float,
        resolution: int,
        stride: int = 1,
        norm_weight: float = 1.0,
        impl: str = 'auto',
    ) -> None:
        super().__init__()
        self.key_dim, self.heads, self.stride, self.impl = key_dim, heads, stride, impl
        self.value_dim = int(value_ratio * key_dim)
        width = key_dim + self.value_dim
        if stride == 1:
            self.qkv = LinearNorm(in_channels, heads * (key_dim + width))
        else:
            self.q = LinearNorm(in_channels, heads * key_dim)
            self.kv = LinearNorm(in_channels, heads * width)
        self.proj = LinearNorm(heads * self.value_dim, out_channels, norm_weight)
        self.distance_bias = nn.Parameter(torch.zeros(heads, resolution, resolution))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, H, W, C) to (N, ceil(H / s), ceil(W / s), C')."""
        require_fixed_size(x.shape[1:3], 'attention with a bias by distance')
        widths = [self.key_dim, self.value_dim]
        if self.stride == 1:
            q, k, v = self._heads(self.qkv(x)).split([self.key_dim, *widths], -1)
        else:
            q = self._heads(self.q(x[:, :: self.stride, :: self.stride]))
            k, v = self._heads(self.kv(x)).split(widths, -1)
        table = resize_distance_table(self.distance_bias, x.shape[1:3])
        y = distance_attention(q, k, v, table, self.stride, self.impl)
        return self.proj(F.hardswish(y.permute(0, 2, 3, 1, 4).flatten(3)))

    def _heads(self, x: Tensor) -> Tensor:
        """(N, H, W, heads * d) as (N, heads, H, W, d)."""
        return x.unflatten(3, (self.heads, -1)).permute(0, 3, 1, 2, 4)
