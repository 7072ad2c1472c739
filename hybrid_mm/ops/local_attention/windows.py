"""Attention within windows side by side or grids, all of them at once.

The weights, one per pixel and pixel of its window, are kept for the backward pass where the bias is
learned: faster than tiles for small windows, and the published formulation.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.export import has_symbols, known, once_per_graph
from hybrid_mm.ops.local_attention.pattern import Pattern, PatternType, about_middle
from hybrid_mm.ops.positions import bias_matrix
from hybrid_mm.ops.windows import cut_windows, join_windows, missing, window_view

_LARGE = 14**2  # pixels of a window above which its weights are not kept
_LARGE_MAP = 2**13  # pixels of a map above which memory counts more than time
_FEW = 4  # windows of a map up to which the bias of all their pairs costs more than it saves


def fastest(q: Tensor, pattern: Pattern) -> str:
    """Whether 'windows' or 'tiled' is better without a kernel for GPUs or in C.

    Args:
        q: Queries, (N, heads, H, W, d).
        pattern: Windows side by side or grids.
    """
    if q.is_cuda:  # fused attention, which keeps no weights, in a few launches
        return 'windows'
    height, width = q.shape[2:4]
    size = math.prod(window_size(pattern, height, width))
    few = height * width <= _FEW * size
    differentiated = torch.is_grad_enabled() and q.requires_grad
    if height * width > _LARGE_MAP:
        return 'tiled'
    return 'tiled' if size > _LARGE and (few or differentiated) else 'windows'


def of_symbols(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    scale: float,
    sides: tuple[int, int],
    shift: int,
    grid: bool,
) -> Tensor:
    """The same in a graph that takes maps of any size: windows at the border are padded.

    Args:
        q: Queries, (N, heads, H, W, d).
        k: Keys, likewise.
        v: Values, (N, heads, H, W, d_v).
        bias: By key minus query, (heads or 1, rows, columns), or None.
        scale: Factor of q.k.
        sides: Rows and columns of a window; symbols for the whole map.
        shift: By how much the map was rolled; may be symbolic.
        grid: Grids instead of windows side by side.
    """
    size = q.shape[2], q.shape[3]
    pairs = None if bias is None else bias_matrix(bias)
    if has_symbols(sides):
        q, k, v = (x.flatten(2, 3) for x in (q, k, v))
        return (_weights(q, k, pairs, None, scale) @ v).unflatten(2, size)
    cut = functools.partial(_cut, window=sides, grid=grid)
    hidden = _hidden_of_symbols(*size, sides, shift, grid, q.dtype, q.device)
    out = _weights(cut(q), cut(k), pairs, hidden, scale) @ cut(v)
    out = out.flatten(0, 1).transpose(1, 2).unflatten(1, sides)
    return join_windows(out, size, grid).permute(0, 3, 1, 2, 4)


@once_per_graph
def _hidden_of_symbols(
    height: int,
    width: int,
    sides: tuple[int, int],
    shift: int,
    grid: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor | None:
    """:func:`_hidden`, (windows, 1, L or 1, L); without a shift, padding is hidden from itself."""
    rows, columns = (torch.arange(n, device=device) for n in (height, width))
    if has_symbols((shift,)) or shift:  # a map of whole windows, all of whose pixels are seen
        region = 2 * (rows > rows[-1] - shift)[:, None].long() + (columns > columns[-1] - shift)
        region = cut_windows(region[None], sides).flatten(1)
        hidden = (region[:, :, None] != region[:, None])[:, None]
    elif any(known(missing(n, side)) != 0 for n, side in zip((height, width), sides, strict=True)):
        seen = cut_windows(torch.ones_like(rows[None, :, None] + columns), sides, grid)
        hidden = seen.flatten(1)[:, None, None] == 0
    else:
        return None
    return torch.where(hidden, -math.inf, 0.0).to(dtype)


def window_size(pattern: Pattern, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of a window on a map, no more than the map has."""
    if pattern.type == PatternType.WHOLE:
        return height, width
    return min(pattern.rows.size, height), min(pattern.columns.size, width)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    scale: float,
    pattern: Pattern,
    dropout: float = 0.0,
    fused: bool = True,
) -> Tensor:
    """Output (N, heads, H, W, d_v).

    Args:
        q: Queries, (N, heads, H, W, d).
        k: Keys, likewise.
        v: Values, (N, heads, H, W, d_v).
        bias: By key minus query, (heads or 1, rows, columns), or None.
        scale: Factor of q.k.
        pattern: Windows side by side, grids, or the whole map.
        dropout: Rate at which weights are dropped.
        fused: Allow torch's fused attention; without, standard products and a softmax, as for a
            learned bias on a CPU.
    """
    size = q.shape[2], q.shape[3]
    window = window_size(pattern, *size)
    grid = pattern.type == PatternType.GRID
    bias = None if bias is None else bias_matrix(about_middle(bias, window))
    hidden = _hidden(pattern, size, window, q)
    cut = functools.partial(_cut, window=window, grid=grid)
    learned = bias is not None and bias.requires_grad and torch.is_grad_enabled()
    if fused and not dropout and (q.is_cuda or not learned):
        out = _fused(cut(q), cut(k), cut(v), bias, hidden, scale)
    else:
        weights = _weights(cut(q), cut(k), bias, hidden, scale)
        out = F.dropout(weights, dropout).to(v.dtype) @ cut(v)
    # (N, windows, heads, L, d) to (N * windows, P, Q, heads, d)
    out = out.flatten(0, 1).transpose(1, 2).unflatten(1, window)
    return join_windows(out, size, grid).permute(0, 3, 1, 2, 4)


def _cut(x: Tensor, window: tuple[int, int], grid: bool) -> Tensor:
    """Maps (N, heads, H, W, d) as (N, windows, heads, pixels L of a window, d)."""
    x = window_view(x.permute(0, 2, 3, 1, 4), window, grid)
    return x.permute(0, 1, 2, 5, 3, 4, 6).flatten(4, 5).flatten(1, 2)


def _fused(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, hidden: Tensor | None, scale: float
) -> Tensor:
    """Attention of (N, windows, heads, L, d) by torch's scaled_dot_product_attention."""
    mask = None if bias is None else bias.to(q.dtype)[None]
    dims = (0, 1)
    if hidden is not None:  # a mask per window and head, which all images share
        mask = hidden.expand(-1, q.shape[2], -1, -1) if mask is None else hidden + mask
        mask, dims = mask.flatten(0, 1)[None], (1, 2)
    sizes = q.shape[dims[0]], q.shape[dims[1]]
    q, k, v = (x.flatten(*dims) for x in (q, k, v))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.unflatten(dims[0], sizes)


def _weights(
    q: Tensor, k: Tensor, bias: Tensor | None, hidden: Tensor | None, scale: float
) -> Tensor:
    """Softmax of the logits of (N, windows, heads, L, d), step by step: (..., heads, L, L)."""
    if q.dtype in (torch.float16, torch.bfloat16):  # products may overflow unless they are scaled
        q, scale = q * scale, 1.0
    logits = q @ k.transpose(-1, -2)
    # not q * scale: that would be one more map to keep
    logits = logits * scale if bias is None else torch.add(bias, logits, alpha=scale)
    if hidden is not None:
        logits += hidden
    return logits.softmax(-1)


def _hidden(
    pattern: Pattern, size: tuple[int, int], window: tuple[int, int], like: Tensor
) -> Tensor | None:
    """What to add where pixels of a window do not see each other, (windows, 1, L, L), or None.

    That is minus infinity for pixels that a roll made neighbours, and for pixels of the map and of
    its padding.
    """
    height, width = size
    padded = any(n % side for n, side in zip(size, window, strict=True))
    if not (padded or pattern.rows.shift or pattern.columns.shift):
        return None
    rows = torch.arange(height, device=like.device) >= height - pattern.rows.shift
    columns = torch.arange(width, device=like.device) >= width - pattern.columns.shift
    region = 1 + 2 * rows[:, None].long() + columns  # 0 is the padding
    region = cut_windows(region[None], window, pattern.type == PatternType.GRID).flatten(1)
    apart = (region[:, :, None] != region[:, None])[:, None]
    return torch.zeros(apart.shape, dtype=like.dtype, device=like.device).masked_fill_(
        apart, -math.inf
    )
