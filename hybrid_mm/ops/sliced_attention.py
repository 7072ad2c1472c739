"""Full-width attention with logits by relative position, a slice of the queries at a time.

For any logits; where the softmax is a product of two, :mod:`hybrid_mm.ops.separable_attention`
needs less.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.recompute import recomputed

__all__ = ['sliced_attention']


def sliced_attention(
    x: Tensor,
    rows: Tensor,
    columns: Tensor,
    weight: Tensor | None,
    bias: Tensor | None = None,
    *,
    cross: tuple[Tensor, Tensor] | None = None,
    q: Tensor | None = None,
    k: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Average the map with weights of every head, and mix the heads (arXiv 1911.03584).

    The logit of query (i, j) and key (y, x) is ``rows[i, y] + columns[j, x]``, with ``cross`` plus
    ``cross[0][i, y] * cross[1][j, x]``, with ``q`` and ``k`` plus their product by C^-0.5. heads *
    C * H' * W' * H * W multiplications; kept for the backward pass are the inputs only.

    Args:
        x: (N, H, W, C).
        rows: Row term (heads, H', H).
        columns: Column term (heads, W', W).
        weight: Mixing weights (C_out, heads * C); None leaves the heads side by side.
        bias: (C_out,) or None.
        cross: Factors (heads, H', H) and (heads, W', W), or None.
        q: Queries (N, heads, H' * W', C), or None.
        k: Keys (N, heads, C, H * W), or None.
        dropout: Dropout rate of the weights; images share a mask if they share the weights.

    Returns:
        (N, H', W', C_out), without mixing heads * C channels.
    """
    n, height, width, channels = x.shape
    heads, shape = len(rows), (rows.shape[1], columns.shape[1])
    queries, length = shape[0] * shape[1], height * width
    tokens = x.reshape(n, length, channels)
    one = heads * length * (1 if q is None else n)
    size = budget.fitting(queries, one, x.device)

    def attend(part: slice, tokens: Tensor, q: Tensor | None, k: Tensor | None) -> Tensor:
        place = torch.arange(part.start, part.stop, device=tokens.device)
        i, j = place // shape[1], place % shape[1]
        logits = rows[:, i, :, None] + columns[:, j, None]
        if cross is not None:
            logits = logits + cross[0][:, i, :, None] * cross[1][:, j, None]
        logits = logits.flatten(2)  # (heads, queries of the slice, H W)
        if q is not None and k is not None:
            products = torch.matmul(q[:, :, part], k)
            logits = logits + products.to(logits.dtype) * channels**-0.5
        p = F.dropout(logits.softmax(-1), dropout, dropout > 0)
        if q is None and n > 1:
            # one product for all images: (heads, queries, H W) x (H W, N C)
            flat = tokens.transpose(0, 1).flatten(1)
            out = torch.matmul(p.to(flat.dtype), flat).unflatten(-1, (n, -1))
            out = out.permute(2, 1, 0, 3)
        else:
            p = p[None] if q is None else p
            out = torch.matmul(p.to(tokens.dtype), tokens[:, None]).transpose(1, 2)
        out = out.flatten(2)
        return out if weight is None else F.linear(out, weight, bias)

    slices = [
        recomputed(attend, part, tokens, q, k, random=True) for part in budget.chunks(queries, size)
    ]
    return torch.cat(slices, 1).unflatten(1, shape)
