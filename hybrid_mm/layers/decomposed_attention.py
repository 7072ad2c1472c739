"""Attention with decomposed relative positions: MViTv2's and ViTDet's.

Source: "MViTv2: Improved Multiscale Vision Transformers for Classification and Detection" (arXiv
2112.01526), equation 4. The logit of query (y, x) and key (v, u) is ``scale * q.k + q.r_h[y, v] +
q.r_w[x, u]``; keys may lie on a coarser grid than the queries.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.layers.custom_op import custom_op
from hybrid_mm.layers.exporting import exporting
from hybrid_mm.layers.relative_position import decomposed_logits, decomposed_tables

IMPLS = ('tiled', 'fused', 'reference')
# logits at a time, in elements: what stays in the cache of a core; a GPU wants more at once
_BUDGET = {'cpu': 2**19}
_GPU_BUDGET = 2**25


def cut_windows(x: Tensor, window: int) -> Tensor:
    """Cut maps into windows side by side; zeros fill up the last ones.

    Args:
        x: (N, H, W, C).
        window: Pixels w of a window on each side.

    Returns:
        (N * ceil(H / w) * ceil(W / w), w, w, C), contiguous.
    """
    height, width = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return x.transpose(2, 3).flatten(0, 2)


def join_windows(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The reverse of :func:`cut_windows`, without what filled up.

    Args:
        x: (N * windows, w, w, C).
        size: Rows and columns (H, W) of the maps.
    """
    window = x.shape[1]
    rows, columns = (-(-side // window) for side in size)
    x = x.unflatten(0, (-1, rows, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return x[:, : size[0], : size[1]]


def decomposed_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rel_h: Tensor,
    rel_w: Tensor,
    *,
    scale: float | None = None,
    impl: str | None = None,
) -> Tensor:
    """Attention of every pixel to all keys, which may lie on a coarser grid.

    'tiled' computes the logits a few rows of queries at a time, in float32 at least, and again in
    the backward pass, for which it keeps q, k, v and the tables only. 'fused' puts the relative
    terms into further channels of q, and rows and columns of the keys, one-hot, into those of k:
    a fused kernel for plain attention of width d + H_k + W_k does the rest and stores no logits
    either. 'reference' is the published formulation.

    Cost: H W H_k W_k (d + d_v) + H W (H_k + W_k) d multiplications per head and image.

    Args:
        q: Queries, (N, heads, H, W, d).
        k: Keys, (N, heads, H_k, W_k, d).
        v: Values, (N, heads, H_k, W_k, d_v).
        rel_h: Row table, (length, d), as :func:`~hybrid_mm.layers.relative_position.
            decomposed_tables` takes it: of 2 * max(H, H_k) - 1 entries, or interpolated.
        rel_w: Column table, likewise.
        scale: Factor of q.k, by default d^-0.5. Queries of the relative terms are not scaled.
        impl: 'tiled', 'fused' or 'reference'. By default 'fused' in half precision on a GPU, whose
            kernels for it need one width below 257 of q, k and v; 'tiled' otherwise.

    Returns:
        (N, heads, H, W, d_v).

    Raises:
        ValueError: Unknown impl, or shapes that do not fit.
    """
    if impl not in (None, *IMPLS):
        raise ValueError(f'impl must be one of {", ".join(IMPLS)}, got {impl!r}')
    d = q.shape[-1]
    fits = q.ndim == k.ndim == v.ndim == 5 and q.shape[:2] == k.shape[:2]
    if not fits or k.shape[-1] != d or v.shape[:4] != k.shape[:4]:
        raise ValueError(
            'q, k and v must be (N, heads, H, W, d), (N, heads, H_k, W_k, d) and (N, heads, H_k, '
            f'W_k, d_v), got {tuple(q.shape)}, {tuple(k.shape)} and {tuple(v.shape)}'
        )
    if any(table.ndim != 2 or table.shape[1] != d for table in (rel_h, rel_w)):
        raise ValueError(
            f'rel_h and rel_w must be (length, {d}), got {tuple(rel_h.shape)} and '
            f'{tuple(rel_w.shape)}'
        )
    scale = d**-0.5 if scale is None else float(scale)
    # shapes alone, as complexity is counted, have no autocast
    if q.device.type != 'meta' and torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = (x.to(dtype) if x.is_floating_point() else x for x in (q, k, v))
    rel_h, rel_w = (
        decomposed_tables(table, *sides)
        for table, *sides in zip((rel_h, rel_w), q.shape[2:4], k.shape[2:4], strict=True)
    )
    if impl is None:
        flash = q.is_cuda and q.element_size() == 2
        wide = max(d + sum(k.shape[2:4]), v.shape[-1]) > 256
        impl = 'fused' if flash and not wide else 'tiled'
    if impl == 'reference' or exporting():
        return _reference(q, k, v, rel_h, rel_w, scale)
    return (_fused if impl == 'fused' else _tiled)(q, k, v, rel_h, rel_w, scale)


def _reference(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float):
    rows, columns = decomposed_logits(q, rel_h.to(q.dtype), rel_w.to(q.dtype))
    logits = (q.flatten(2, 3) * scale) @ k.flatten(2, 3).transpose(-1, -2)
    bias = rows.unsqueeze(-1) + columns.unsqueeze(-2)
    logits = logits + bias.flatten(4, 5).flatten(2, 3)
    out = logits.softmax(-1).to(v.dtype) @ v.flatten(2, 3)
    return out.unflatten(2, q.shape[2:4])


def _fused(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
    rows, columns = decomposed_logits(q, rel_h.to(q.dtype), rel_w.to(q.dtype))
    height, width = k.shape[2:4]
    row = torch.eye(height, dtype=k.dtype, device=k.device)[:, None].expand(-1, width, -1)
    column = torch.eye(width, dtype=k.dtype, device=k.device)[None].expand(height, -1, -1)
    place = torch.cat([row, column], -1).expand(*k.shape[:2], -1, -1, -1)
    q_wide = torch.cat([q * scale, rows, columns], -1).flatten(2, 3)
    k_wide = torch.cat([k, place], -1).flatten(2, 3)
    # kernels want one width of all three
    extra = q_wide.shape[-1] - v.shape[-1]
    v_wide = F.pad(v, (0, extra)) if extra > 0 else v
    out = F.scaled_dot_product_attention(q_wide, k_wide, v_wide.flatten(2, 3), scale=1.0)
    return out[..., : v.shape[-1]].unflatten(2, q.shape[2:4])


class _Tiles:
    """Probabilities of some rows of queries after the other, in one piece of memory."""

    def __init__(self, q: Tensor, k: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> None:
        n, heads, self.height, width, _ = q.shape
        keys = k.shape[2] * k.shape[3]
        # float16 would overflow above 65504
        self.dtype = torch.promote_types(q.dtype, torch.float32)
        self.scale, self.images = scale, n * heads
        self.rel = rel_h.to(self.dtype), rel_w.to(self.dtype)
        terms = decomposed_logits(q.to(self.dtype), *self.rel)
        self.terms = tuple(term.flatten(0, 1) for term in terms)
        self.q, self.k = q.flatten(0, 1), k.reshape(n * heads, keys, -1)
        budget = _BUDGET.get(q.device.type, _GPU_BUDGET)
        self.rows = max(1, min(self.height, budget // (width * keys)))
        self.some = max(1, budget // (self.height * width * keys))  # images and heads
        self.shape = (min(self.some, self.images), self.rows, width, *k.shape[2:4])

    def buffer(self) -> Tensor:
        """Memory for the logits of one step: new pages cost much."""
        return self.q.new_empty(self.shape, dtype=self.dtype)

    def steps(self) -> Iterator[tuple[slice, slice]]:
        """Images (with heads) and rows of one step after the other."""
        for i in range(0, self.images, self.some):
            for y in range(0, self.height, self.rows):
                some = slice(i, min(i + self.some, self.images))
                yield some, slice(y, min(y + self.rows, self.height))

    def part(self, buffer: Tensor, some: slice, rows: slice) -> Tensor:
        """What a step takes of a buffer, (images, rows, W, H_k, W_k)."""
        return buffer.flatten()[
            : (some.stop - some.start) * (rows.stop - rows.start) * math.prod(self.shape[2:])
        ].view(some.stop - some.start, rows.stop - rows.start, *self.shape[2:])

    def probabilities(self, buffer: Tensor, some: slice, rows: slice) -> tuple[Tensor, Tensor]:
        """Probabilities (images, queries, keys) of a step, and its queries."""
        grid = self.part(buffer, some, rows)
        height, width = (term[some, rows] for term in self.terms)
        torch.add(height.unsqueeze(-1), width.unsqueeze(-2), out=grid)
        queries = self.q[some, rows].flatten(1, 2)
        logits = grid.flatten(3, 4).flatten(1, 2)
        keys = self.k[some].to(self.dtype).transpose(1, 2)
        logits.baddbmm_(queries.to(self.dtype), keys, alpha=self.scale)
        return torch.softmax(logits, -1, out=logits), queries


def _forward(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
    tiles = _Tiles(q, k, rel_h, rel_w, scale)
    values = v.reshape(tiles.images, -1, v.shape[-1])
    out = q.new_empty(tiles.images, *q.shape[2:4], v.shape[-1])
    buffer = tiles.buffer()
    for some, rows in tiles.steps():
        p, _ = tiles.probabilities(buffer, some, rows)
        part = out[some, rows]
        part.copy_(torch.bmm(p.to(v.dtype), values[some]).view(part.shape))
    return out.view(*q.shape[:4], v.shape[-1])


def _backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float
) -> list[Tensor]:
    tiles = _Tiles(q, k, rel_h, rel_w, scale)
    grad = grad.reshape(tiles.images, *q.shape[2:4], v.shape[-1])
    values = v.reshape(tiles.images, -1, v.shape[-1])
    grad_q = torch.empty_like(tiles.q, memory_format=torch.contiguous_format)
    grad_k, grad_v = (
        torch.zeros(x.shape, dtype=x.dtype, device=x.device) for x in (tiles.k, values)
    )
    terms = tuple(torch.empty_like(term) for term in tiles.terms)
    buffers = tiles.buffer(), tiles.buffer()
    for some, rows in tiles.steps():
        p, queries = tiles.probabilities(buffers[0], some, rows)
        grid = tiles.part(buffers[1], some, rows)
        logits = grid.flatten(3, 4).flatten(1, 2)
        upper = grad[some, rows].flatten(1, 2)
        if p.dtype == upper.dtype:
            torch.bmm(upper, values[some].transpose(1, 2), out=logits)
        else:
            logits.copy_(torch.bmm(upper, values[some].transpose(1, 2)))
        torch.ops.aten._softmax_backward_data.out(logits, p, -1, p.dtype, grad_input=logits)
        low = logits.to(q.dtype)
        grad_v[some].baddbmm_(p.to(v.dtype).transpose(1, 2), upper)
        grad_k[some].baddbmm_(low.transpose(1, 2), queries, alpha=scale)
        part = grad_q[some, rows]
        part.copy_(torch.bmm(low, tiles.k[some]).mul_(scale).view(part.shape))
        torch.sum(grid, -1, out=terms[0][some, rows])
        torch.sum(grid, -2, out=terms[1][some, rows])
    precise = tiles.q.to(tiles.dtype)
    grad_q = grad_q.to(tiles.dtype)
    tables = []
    for axis, (term, table) in enumerate(zip(terms, tiles.rel, strict=True)):
        along = 'y' if axis == 0 else 'x'
        grad_q += torch.einsum(f'byxk,{along}kd->byxd', term, table)
        tables.append(torch.einsum(f'byxk,byxd->{along}kd', term, precise))
    given = zip(tables, (rel_h, rel_w), strict=True)
    return [
        grad_q.to(q.dtype).view(q.shape),
        grad_k.view(k.shape),
        grad_v.view(v.shape),
        *(table.to(like.dtype) for table, like in given),
    ]


@custom_op('hybrid_mm::decomposed_attention')
def _tiled(q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):
        return _forward(q, k, v, rel_h, rel_w, scale)


@_tiled.register_fake
def _(q, k, v, rel_h, rel_w, scale):
    return q.new_empty(*q.shape[:4], v.shape[-1])


@custom_op('hybrid_mm::decomposed_attention_backward')
def _tiled_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, rel_h: Tensor, rel_w: Tensor, scale: float
) -> list[Tensor]:
    with torch.autocast(q.device.type, enabled=False):
        return _backward(grad, q, k, v, rel_h, rel_w, scale)


@_tiled_backward.register_fake
def _(grad, q, k, v, rel_h, rel_w, scale):
    return [x.new_empty(x.shape) for x in (q, k, v, rel_h, rel_w)]


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad):
    return *_tiled_backward(grad, *ctx.saved_tensors, ctx.scale), None


_tiled.register_autograd(_differentiate, setup_context=_setup_context)
