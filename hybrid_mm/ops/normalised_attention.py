"""Parts of attention whose logits go through a batch norm (LESA, arXiv 2107.05637).

Shapes: N images, G heads, L = H W pixels.
"""

import torch
from torch import Tensor


def logit_moments(q: Tensor, k: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor, int]:
    """Moments of the logits of every pixel to all, by head and term, without the logits.

    The terms are q.k and q.rel_h[row offset] + q.rel_w[column offset]. Their moments follow from
    the second moments of queries and keys, and from the logits of rows and of columns.

    Args:
        q: Queries, (N, G, H, W, d).
        k: Keys, likewise.
        rel_h: Vectors by key row minus query row, (2 * H - 1, d).
        rel_w: Vectors by key column minus query column, (2 * W - 1, d).

    Returns:
        Biased variance and mean, (2 * G,) with the heads of q.k first, and their number N L^2.
    """
    n, _, height, width, _ = q.shape
    length = height * width
    a, b = q.flatten(2, 3), k.flatten(2, 3)
    grams = (a.transpose(2, 3) @ a) * (b.transpose(2, 3) @ b)
    mean_content = (a.mean(2) * b.mean(2)).sum(-1).mean(0)
    square_content = grams.sum((2, 3)).mean(0) / length**2
    rows = torch.einsum('ngxyc,xuc->ngxyu', q, rel_h[_entries(height, q.device)])
    columns = torch.einsum('ngxyc,yvc->ngxyv', q, rel_w[_entries(width, q.device)])
    mean_row, mean_column = rows.mean(-1), columns.mean(-1)
    square = rows.square().mean(-1) + columns.square().mean(-1) + 2 * mean_row * mean_column
    mean = torch.cat([mean_content, (mean_row + mean_column).mean((0, 2, 3))])
    square = torch.cat([square_content, square.mean((0, 2, 3))])
    return (square - mean.square()).clamp_min(0), mean, n * length**2


def axial_logits(q: Tensor, k: Tensor, rel_h: Tensor, rel_w: Tensor) -> Tensor:
    """The logits of which :func:`logit_moments` gives the moments, (N, 2 * G, L, L)."""
    height, width = q.shape[2:4]
    content = q.flatten(2, 3) @ k.flatten(2, 3).transpose(2, 3)
    rows = torch.einsum('ngxyc,xuc->ngxyu', q, rel_h[_entries(height, q.device)])
    columns = torch.einsum('ngxyc,yvc->ngxyv', q, rel_w[_entries(width, q.device)])
    position = (rows[..., None] + columns[..., None, :]).flatten(4).flatten(2, 3)
    return torch.cat([content, position], 1)


def _entries(length: int, device: torch.device) -> Tensor:
    """Entry of a table of offsets by query and key, (length, length)."""
    place = torch.arange(length, device=device)
    return place - place[:, None] + length - 1


def flat_tables(rel: Tensor, length: int) -> Tensor:
    """A table over the flattened map as vectors of pairs of pixels.

    Args:
        rel: (channels, 2 * L - 1), by query minus key.
        length: L.

    Returns:
        (channels, L, L), by query and key.
    """
    return rel[:, _entries(length, rel.device).t()]


def flat_logits(q: Tensor, k: Tensor, rel_q: Tensor, rel_k: Tensor) -> Tensor:
    """Logits with vectors of pairs for queries and for keys.

    Args:
        q: Queries, (N, G, d, L).
        k: Keys, likewise.
        rel_q: What meets the queries, (d, L, L), by query and key.
        rel_k: What meets the keys, (d, L, L), by key and query.

    Returns:
        (N, 3 * G, L, L) by query and key: q.k, q.rel_q and k.rel_k, all heads of a term together.
    """
    content = torch.einsum('ngci,ngcj->ngij', q, k)
    of_queries = torch.einsum('ngci,cij->ngij', q, rel_q)
    of_keys = torch.einsum('ngci,cij->ngji', k, rel_k)
    return torch.cat([content, of_queries, of_keys], 1)


def flat_context(p: Tensor, v: Tensor, rel_v: Tensor) -> Tensor:
    """Weighted sums of values and of vectors of pairs.

    Args:
        p: Weights, (N, G, L, L), by query and key.
        v: Values, (N, G, c, L).
        rel_v: (c, L, L), by query and key.

    Returns:
        (N, G, c, 2, L): the sum of values, and that of vectors.
    """
    values = torch.einsum('ngij,ngcj->ngci', p, v)
    return torch.stack((values, torch.einsum('ngij,cij->ngci', p, rel_v)), 3)
