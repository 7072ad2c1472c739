"""Evolving attention: the logits of a layer are mixed with those of the one before and convolved.

Source: "Evolving Attention with Residual Convolutions" (arXiv 2102.12895), section 3, and its
published code, whose names alpha and beta are used here (the paper swaps them).

The (H W)^2 logits of every head have to exist, for the next layer convolves them. They are kept
once per layer: the backward pass recomputes weights and mixed logits, a few rows of queries at a
time. In float32 a layer keeps 4 * heads * (H W)^2 bytes per image for the backward
pass, and while it runs two more maps of that size exist (the gradients of the logits of the layer
and of the one before). With 8 heads:

====== ============ ================ =============
tokens e.g.         per layer, image its 10 layers
====== ============ ================ =============
196    14 x 14      1.2 MB           12 MB
1024   32 x 32      34 MB            336 MB
1050   25 x 42      35 MB            353 MB
2048   -            134 MB           1.3 GB
4200   50 x 84      564 MB           5.6 GB
====== ============ ================ =============

(10 layers are a chain of the ResNet-50, 27 of the ResNet-101; gradient checkpointing changes
nothing, for the logits are what the layers pass to each other.) Without gradients two layers exist
at a time.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from hybrid_mm.ops.dispatch import resolve
from hybrid_mm.ops.evolving_attention import reference, tiled, triton
from hybrid_mm.ops.export import has_symbols
from hybrid_mm.ops.kernels import available, check_available
from hybrid_mm.ops.precision import accurate_dtype, no_autocast

__all__ = ['evolving_attention']

_ALGORITHMS = {'tiled': tiled.attend, 'reference': reference.attend, 'triton': triton.attend}
_HALF = (torch.float16, torch.bfloat16)


def evolving_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_h: Tensor | None = None,
    rel_w: Tensor | None = None,
    previous: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 0.5,
    impl: str = 'auto',
) -> tuple[Tensor, Tensor]:
    """Attention of every pixel to all, with logits that grow out of those of the layer before.

    L = q.k + q.rel_h[row offset] + q.rel_w[column offset]; with ``previous`` logits P it becomes
    M = (1 - beta) L + beta P, and L = alpha ReLU(conv(M) + bias) + (1 - alpha) M, a 3x3 convolution
    over the map of queries and keys whose channels are the heads. Then out = softmax(L) v.

    Multiplications: (H W)^2 (d + d_v + 9 heads) per head. Logits are float32 (or float64) under
    autocast too: the ReLU leaves them without upper bound.

    Args:
        q: Queries, scaled already, (N, heads, H, W, d).
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        rel_h: Row table for all heads, (2 H - 1, d), by key - query + H - 1; None leaves both out.
        rel_w: Column table, (2 W - 1, d).
        previous: Logits of the layer before, (N, heads, H W, H W).
        weight: Kernel of the convolution, (heads, heads, 3, 3); with ``previous`` only.
        bias: Its bias, (heads,).
        alpha: Weight of the convolution.
        beta: Weight of the logits of the layer before.
        impl: 'tiled', which keeps the logits and nothing else of their size; 'triton', the same in
            a few kernels on a GPU, for maps of at most 128 pixels a side, with products in the type
            of the queries; or 'reference', the formulas one by one, which keep three such maps in a
            chain.

    Returns:
        The result (N, heads, H, W, d_v), and the logits L (N, heads, H W, H W) for the next layer.

    Raises:
        ValueError: Logits or tables of another size, one of ``previous``, ``weight`` and ``bias``
            without the others, an unknown impl.
        RuntimeError: 'triton' where it does not work.
    """
    n, heads, height, width, _ = q.shape

    def fastest() -> str:
        works = fits and available('evolving_attention', q, k, v)
        return 'triton' if works else 'tiled'

    known = not has_symbols((height, width))
    fits = known and max(height, width) <= triton.LONGEST
    impl = resolve(impl, 'evolving_attention', fastest)
    tokens = height * width
    given = [x is not None for x in (previous, weight, bias)]
    if any(given) != all(given):
        raise ValueError('previous logits, weight and bias go together: give all of them or none')
    if known and previous is not None and previous.shape != (n, heads, tokens, tokens):
        raise ValueError(
            f'previous logits of shape {(n, heads, tokens, tokens)} expected for a {height} x '
            f'{width} map, got {tuple(previous.shape)}: the layers of a chain see maps of one size'
        )
    dtype = accurate_dtype(q.dtype)
    out_dtype = v.dtype
    if impl == 'triton':
        check_available('evolving_attention', q, k, v)
        if not fits:
            raise RuntimeError(f"impl='triton' of evolving_attention: a map of {height} x {width}")
        dtype = torch.float32
        q, k, v = (x.to(q.dtype if q.dtype in _HALF else dtype) for x in (q, k, v))
    else:
        q, k, v = (x.to(dtype) for x in (q, k, v))
    previous, weight, bias = (None if x is None else x.to(dtype) for x in (previous, weight, bias))
    with no_autocast(q):
        out, logits = _ALGORITHMS[impl](q, k, v, rel_h, rel_w, previous, weight, bias, alpha, beta)
    return out.unflatten(2, (height, width)).to(out_dtype), logits


def evolving_with(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    previous: Tensor,
    convolve: Callable[[Tensor], Tensor],
    *,
    alpha: float,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """:func:`evolving_attention` by the plain formulas, with any layer as the convolution."""
    size, out_dtype, dtype = q.shape[2:4], v.dtype, accurate_dtype(q.dtype)
    q, k, v, previous = (x.to(dtype) for x in (q, k, v, previous))
    with no_autocast(q):
        own = reference.logits_of(q, k, rel_h, rel_w)
        logits = reference.evolved(own, previous, convolve, alpha, beta)
        out = logits.softmax(-1) @ v.flatten(2, 3)
    return out.unflatten(2, size).to(out_dtype), logits
