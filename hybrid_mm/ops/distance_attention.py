"""Attention of every pixel to all, with a bias by distance (LeViT, arXiv 2104.01136)."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.dispatch import resolve
from hybrid_mm.ops.local_attention import global_attention

_MASK_LIMIT = 2**16  # pairs of a query and a key up to which a map is small


def resize_distance_table(table: Tensor, size: Sequence[int]) -> Tensor:
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
    return F.interpolate(table[None], size=tuple(size), mode='bilinear', align_corners=True)[0]


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
        impl: 'reference' adds the table to the logits of all pairs of pixels; 'mask' does so in
            torch's attention and keeps the attention weights for the backward pass; 'tiled' keeps
            q, k, v and the table, and is faster on large maps; 'auto' takes 'mask' on maps of
            classification size (measured: 14 x 14 pixels) and 'tiled' above.

    Returns:
        (N, heads, ceil(H / stride), ceil(W / stride), d_v).

    Raises:
        ValueError: Unknown impl.
    """
    pairs = math.prod(q.shape[2:4]) * math.prod(k.shape[2:4])
    impl = resolve(impl, 'distance_attention', lambda: 'mask' if pairs <= _MASK_LIMIT else 'tiled')
    if impl == 'tiled':
        # by offset: distances backwards, then forwards
        bias = torch.cat([table[:, 1:].flip(1), table], 1)
        bias = torch.cat([bias[:, :, 1:].flip(2), bias], 2)
        return global_attention(q, k, v, stride=stride, bias=bias)
    size, mask = q.shape[2:4], _all_pairs(table.to(q.dtype), k.shape[2:4], stride)
    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    if q.is_cuda and impl == 'mask':
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    else:  # torch's would take the same steps, and look for rows without any key besides
        y = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3) + mask).softmax(-1).to(v.dtype) @ v
    return y.unflatten(2, size)


def _all_pairs(table: Tensor, size: torch.Size, stride: int) -> Tensor:
    """The table by query and key, (heads, queries, keys)."""
    rows, columns = (_distances(length, stride, table) for length in size)
    entry = rows[:, None, :, None] * size[1] + columns[:, None]
    return table.flatten(1)[:, entry.flatten(2).flatten(0, 1)]


def _distances(length: int, stride: int, like: Tensor) -> Tensor:
    """Distance of every ``stride``-th position to every position, (queries, length)."""
    place = torch.arange(length, device=like.device)
    return (place[::stride, None] - place).abs()
