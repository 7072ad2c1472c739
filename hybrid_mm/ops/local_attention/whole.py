"""Attention of every pixel of a small map to all, in two products whose weights are kept.

On a CPU, for maps of up to 14 x 14, this is 1.1 to 1.6 times as fast as tiles of torch's products,
which compute the weights again in the backward pass, and for heads of 128 and more channels up to
1.2 times as fast as tiles in C. The weights are as large as the queries where heads are 196 wide.
"""

import torch
from torch import Tensor

from hybrid_mm.ops.local_attention.pattern import Pattern, PatternType, Tables, about_middle
from hybrid_mm.ops.positions import bias_matrix
from hybrid_mm.ops.precision import accurate_dtype

_SMALL = 14**2  # pixels
_WIDE = 128  # channels of a head


def is_faster(q: Tensor, pattern: Pattern, compiled: bool) -> bool:
    """Whether this is faster than tiles.

    Args:
        q: Queries, (N, heads, H', W', d).
        pattern: Which keys they see.
        compiled: The tiles would be those in C.
    """
    everything = pattern.type == PatternType.WHOLE and pattern.rows.stride == 1
    if not (everything and pattern.columns.stride == 1 and q.device.type == 'cpu'):
        return False
    if q.dtype != accurate_dtype(q.dtype) or (compiled and q.shape[4] < _WIDE):
        return False
    return q.shape[2] * q.shape[3] <= _SMALL


def forward(q: Tensor, k: Tensor, v: Tensor, tables: Tables, scale: float) -> Tensor:
    """Output (N, heads, H, W, d_v).

    Args:
        q: Queries, (N, heads, H, W, d).
        k: Keys, likewise.
        v: Values, (N, heads, H, W, d_v).
        tables: Bias and relative tables.
        scale: Factor of q.k.
    """
    size = q.shape[2:4]
    terms: list[Tensor] = []
    if tables.rel_h is not None:
        rows = torch.einsum('nhyxd,hydu->nhyxu', q, _by_pair(tables.rel_h, size[0], q))
        terms.append(rows.unsqueeze(-1))
    if tables.rel_w is not None:
        columns = torch.einsum('nhyxd,hxdu->nhyxu', q, _by_pair(tables.rel_w, size[1], q))
        terms.append(columns.unsqueeze(-2))
    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    logits = q @ k.transpose(-1, -2)
    if terms:
        position = terms[0] if len(terms) == 1 else terms[0] + terms[1]
        position = position.expand(-1, -1, -1, -1, *size).flatten(4).flatten(2, 3)
        logits = torch.add(position, logits, alpha=scale)
    else:
        logits = logits * scale
    if tables.bias is not None:
        logits = logits + bias_matrix(about_middle(tables.bias, size).to(q.dtype))
    return (logits.softmax(-1) @ v).unflatten(2, size)


def _by_pair(table: Tensor, length: int, like: Tensor) -> Tensor:
    """A table (heads or 1, entries, d) as a view by query and key, (heads or 1, L, d, L)."""
    table = about_middle(table.to(like.dtype), (length,))
    return table.unfold(1, length, 1).flip(1)
