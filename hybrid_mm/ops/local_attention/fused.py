"""Attention to moving windows in C, forward, without the products that tiles compute and hide."""

import ctypes

import torch
from torch import Tensor

from hybrid_mm.ops import native
from hybrid_mm.ops.local_attention.pattern import Pattern, PatternType, Tables, about_middle
from hybrid_mm.ops.precision import accurate, accurate_dtype

_WIDTH = 14  # queries side by side from which on it is faster than tiles


def fits(q: Tensor, tables: Tables, pattern: Pattern) -> bool:
    """Whether the kernel can do it, faster than tiles.

    It takes windows that are moved inwards, of stride 1, with a bias or without, on a CPU; lanes
    are queries of a row, of which short ones, also those of dilated windows, fill only a part.

    Args:
        q: Queries, (N, heads, H, W, d).
        tables: Bias and relative tables.
        pattern: Which keys they see.
    """
    if pattern.type != PatternType.WINDOW or q.device.type != 'cpu':
        return False
    moved = all(a.stride == 1 and a.border == 'shift' for a in (pattern.rows, pattern.columns))
    relative = tables.rel_h is not None or tables.rel_w is not None
    if -(-q.shape[3] // pattern.columns.dilation) < _WIDTH:
        return False
    return moved and not relative and _library(q) is not None


def _library(q: Tensor) -> ctypes.CDLL | None:
    return native.load('window_attention', accurate_dtype(q.dtype))


def forward(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float, pattern: Pattern
) -> Tensor:
    """Output (N, heads, H, W, d_v) in the type of the queries.

    Args:
        q: Queries, (N, heads, H, W, d).
        k: Keys, likewise.
        v: Values, (N, heads, H, W, d_v).
        bias: (heads or 1, 2 * rows - 1 or more, 2 * columns - 1 or more), or None.
        scale: Factor of q.k.
        pattern: Windows that :func:`fits`.

    Raises:
        MemoryError: No memory for the working space.
    """
    library, dtype, (rows, columns) = _library(q), q.dtype, (pattern.rows, pattern.columns)
    assert library is not None
    q, k, v = (accurate(x).contiguous() for x in (q, k, v))
    if bias is not None:
        bias = (
            about_middle(bias, (rows.size, columns.size))
            .to(q.dtype)
            .expand(q.shape[1], -1, -1)
            .contiguous()
        )
    out = q.new_empty(*q.shape[:4], v.shape[-1])
    steps = rows.size, columns.size, rows.dilation, columns.dilation
    done = library.forward(
        *(ctypes.c_void_p(None if t is None else t.data_ptr()) for t in (q, k, v, bias)),
        ctypes.c_double(scale),
        ctypes.c_void_p(out.data_ptr()),
        (ctypes.c_long * 10)(*q.shape, v.shape[-1], *steps),
        torch.get_num_threads(),
    )
    if not done:
        raise MemoryError('local_attention: no memory for the working space of a thread')
    return out.to(dtype)
