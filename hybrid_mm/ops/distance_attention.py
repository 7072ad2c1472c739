"""Attention of every pixel to all, with a bias by distance (LeViT, arXiv 2104.01136)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybrid_mm.ops.dispatch import resolve
from hybrid_mm.ops.export import has_symbols
from hybrid_mm.ops.inference_cache import from_weights, keeps
from hybrid_mm.ops.local_attention import fused, global_attention, global_pattern, launches
from hybrid_mm.ops.local_attention.pattern import Tables
from hybrid_mm.ops.positions import spread_table

__all__ = ['distance_attention', 'resize_distance_table']

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
    if not has_symbols(size) and tuple(table.shape[1:]) == tuple(size):
        return table
    return F.interpolate(table[None], size=tuple(size), mode='bilinear', align_corners=True)[0]


def distance_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    stride: int = 1,
    impl: str = 'auto',
    owner: nn.Module | None = None,
) -> Tensor:
    """Attention of every pixel to all; the logits get a bias by distance in rows and columns.

    Args:
        q: Queries, (N, heads, ceil(H / stride), ceil(W / stride), d).
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        table: (heads, H, W): ``b[h, |i - y|, |j - x|]``.
        stride: Distance of the queries in pixels.
        impl: 'reference' adds the table to the logits of all pairs of pixels; 'mask' does so in
            torch's attention and keeps the attention weights for the backward pass; 'tiled' keeps
            q, k, v and the table, and is faster on large maps; 'triton' are kernels for GPUs,
            which keep as much. 'auto' takes these where there is a GPU for them, else 'mask' on
            maps of classification size (measured on CPUs: 14 x 14 pixels) and 'tiled' on larger
            ones.
        owner: The layer whose parameter the table is: 'reference' and 'mask' may keep the biases of
            all pairs then, 'tiled' as its kernel in C reads them, see
            :func:`~hybrid_mm.ops.inference_cache.from_weights`; 'auto' takes that where it is
            possible.

    Returns:
        (N, heads, ceil(H / stride), ceil(W / stride), d_v).

    Raises:
        ValueError: Unknown impl.
        RuntimeError: 'triton' on tensors that its kernels cannot work on.
    """
    impl = resolve(impl, 'distance_attention', lambda: _fastest(q, k, v, table, stride, owner))
    prepared = _prepared(q, k, v, table, stride, owner) if impl == 'tiled' else None
    if prepared is not None:
        return prepared(q, k, v)
    if impl == 'triton':
        launches.check_available('distance_attention', q, k, v, table)
    if impl in ('tiled', 'triton'):
        return _by_offset(q, k, v, table, stride, impl)
    bias = _bias_of_pairs(table, stride, k, owner)
    if impl == 'reference':
        return _reference(q, k, v, bias)
    in_place = owner is not None and keeps(owner)
    return (_in_place if in_place else _mask)(q, k, v, bias)


def _fastest(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, stride: int, owner: nn.Module | None
) -> str:
    """What 'auto' takes."""
    if launches.available(q, k, v, table):
        return 'triton'
    if _prepared(q, k, v, table, stride, owner) is not None:
        return 'tiled'
    pairs = q.shape[2] * q.shape[3] * k.shape[2] * k.shape[3]
    return 'mask' if pairs <= _MASK_LIMIT else 'tiled'


def _reference(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Logits of all pairs, softmax, weighted sum."""
    size = q.shape[2:4]
    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    weights = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3) + bias).softmax(-1)
    return (weights.to(v.dtype) @ v).unflatten(2, size)


def _mask(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """Fused attention on a GPU; on a CPU torch would do what the reference does, and checks."""
    if not q.is_cuda:
        return _reference(q, k, v, bias)
    size = q.shape[2:4]
    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias).unflatten(2, size)


def _in_place(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """The reference in inference: new memory for each step would cost as much as the step."""
    size = q.shape[2:4]
    q, k, v = (x.flatten(2, 3) for x in (q, k, v))
    logits = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).add_(bias)
    return (torch.softmax(logits, -1, out=logits) @ v).unflatten(2, size)


def _prepared(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, stride: int, owner: nn.Module | None
) -> fused.Prepared | None:
    """The kernel in C with the biases of a layer, where they may be kept and it fits."""
    if owner is None or not keeps(owner) or any(x.dtype != torch.float32 for x in (q, k, v)):
        return None

    def prepare() -> fused.Prepared | None:
        bias, pattern = _mirrored(table, False), global_pattern(stride)
        if not fused.fits(q, k, Tables(bias, None, None), pattern):
            return None
        return fused.Prepared(q, k, v, bias, q.shape[-1] ** -0.5, pattern)

    return from_weights(owner, ('tiled', stride, k.shape[2:4]), prepare)


def _by_offset(q: Tensor, k: Tensor, v: Tensor, table: Tensor, stride: int, impl: str) -> Tensor:
    """Local attention, with a table by offset: it has every distance twice."""
    # on a GPU in one kernel, whose gradient is not deterministic
    reflect = table.is_cuda and not torch.are_deterministic_algorithms_enabled()
    bias = _mirrored(table, reflect)
    return global_attention(q, k, v, stride=stride, bias=bias, impl=impl)


def _mirrored(table: Tensor, reflect: bool) -> Tensor:
    """A table by distance (heads, H, W) as one by offset, (heads, 2 H - 1, 2 W - 1)."""
    if reflect:
        rows, columns = table.shape[1:]
        return F.pad(table, (columns - 1, 0, rows - 1, 0), mode='reflect')
    table = torch.cat([table[:, 1:].flip(1), table], 1)
    return torch.cat([table[:, :, 1:].flip(2), table], 2)


def _bias_of_pairs(table: Tensor, stride: int, k: Tensor, owner: nn.Module | None = None) -> Tensor:
    """Bias of every query and key, (heads, H' W', H W), in the type of the keys."""

    def compute() -> Tensor:
        rows, columns = (_distances(length, stride, k.device) for length in k.shape[2:4])
        return spread_table(table.to(k.dtype), rows, columns)

    if owner is None:
        return compute()
    return from_weights(owner, (stride, k.shape[2:4], k.dtype), compute)


def _distances(length: int, stride: int, device: torch.device) -> Tensor:
    """Distance of every ``stride``-th position to every position, (queries, length)."""
    place = torch.arange(length, device=device)
    return (place[::stride, None] - place).abs()
