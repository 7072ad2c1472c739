"""Softmax and weighted sum of ELSA's ghost head as products of tiles that are never kept.

Source: "ELSA: Enhanced Local Self-Attention for Vision Transformer" (arXiv 2112.12786), section
3.3.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.custom_op import custom_op

_TILE = 8  # queries of a tile on each side


class _Tiles:
    """Tiles of queries with the rectangle of values that each sees, for some tiles at a time.

    All weights of a tile and a head form a matrix (queries, values of the rectangle) that is zero
    but for k^2 entries a row. These entries are a strided view of it: tap (a, b) of query (y, x)
    is the value (y + dilation a, x + dilation b).
    """

    def __init__(self, hidden: Tensor, v: Tensor, heads: int, kernel: int, dilation: int) -> None:
        self.n, channels, self.height, self.width = v.shape
        self.heads, self.dim, self.kernel, self.dilation = (
            heads,
            channels // heads,
            kernel,
            dilation,
        )
        self.halo = kernel // 2 * dilation
        self.tile = tuple(min(_TILE, size) for size in v.shape[2:])
        self.grid = tuple(math.ceil(s / t) for s, t in zip(v.shape[2:], self.tile, strict=True))
        self.seen = tuple(t + 2 * self.halo for t in self.tile)
        # tiles on each side that a rectangle reaches into, and the grid that all of them fill
        self.reach = tuple(math.ceil(s / t) for s, t in zip(self.seen, self.tile, strict=True))
        self.full = tuple(g + r - 1 for g, r in zip(self.grid, self.reach, strict=True))
        self.dtype = torch.promote_types(v.dtype, torch.float32)
        row = self.grid[1] * heads * math.prod(self.tile) * math.prod(self.seen)
        self.images = budget.fitting(self.n, row * self.grid[0], v.device)
        self.rows = budget.fitting(self.grid[0], row, v.device)

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        for images in budget.chunks(self.n, self.images):
            for rows in budget.chunks(self.grid[0], self.rows):
                yield images, rows

    def queries(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, rows, tile, columns, tile, C), filled up with zeros."""
        down, right = (g * t - s for g, t, s in zip(self.grid, self.tile, x.shape[2:], strict=True))
        x = x.permute(0, 2, 3, 1)
        if down or right:
            x = F.pad(x, (0, 0, 0, right, 0, down))
        return x.unflatten(2, (-1, self.tile[1])).unflatten(1, (-1, self.tile[0]))

    def uncut(self, x: Tensor) -> Tensor:
        """The reverse."""
        x = x.flatten(3, 4).flatten(1, 2)[:, : self.height, : self.width]
        return x.permute(0, 3, 1, 2)

    def pad(self, v: Tensor) -> Tensor:
        """(N, C, H, W) to what the tiles see, (N, H', W', C)."""
        down, right = (
            f * t - s - self.halo for f, t, s in zip(self.full, self.tile, v.shape[2:], strict=True)
        )
        return F.pad(v.permute(0, 2, 3, 1), (0, 0, self.halo, right, self.halo, down))

    def values(self, padded: Tensor, images: slice, rows: slice) -> Tensor:
        """Rectangles of some tiles, (matrices, values, d)."""
        last = (rows.stop - 1) * self.tile[0] + self.seen[0]
        part = padded[images, rows.start * self.tile[0] : last]
        part = part.unfold(1, self.seen[0], self.tile[0]).unfold(2, self.seen[1], self.tile[1])
        part = part[:, :, : self.grid[1]].unflatten(3, (self.heads, self.dim))
        part = part.permute(0, 1, 2, 3, 5, 6, 4).to(self.dtype)
        return part.reshape(-1, math.prod(self.seen), self.dim)

    def add_values(self, padded: Tensor, images: slice, rows: slice, grad: Tensor) -> None:
        """The reverse: sum up rectangles into the padded map."""
        cells = padded.view(
            self.n, self.full[0], self.tile[0], self.full[1], self.tile[1], self.heads, self.dim
        )
        count = images.stop - images.start, rows.stop - rows.start, self.grid[1]
        grad = grad.view(*count, self.heads, *self.seen, self.dim).permute(0, 1, 4, 2, 5, 3, 6)
        for a in range(self.reach[0]):
            for b in range(self.reach[1]):
                part = grad[:, :, a * self.tile[0] : (a + 1) * self.tile[0]]
                part = part[:, :, :, :, b * self.tile[1] : (b + 1) * self.tile[1]]
                place = cells[
                    images,
                    rows.start + a : rows.stop + a,
                    : part.shape[2],
                    b : b + self.grid[1],
                    : part.shape[4],
                ]
                place += part

    def matrices(self, like: Tensor) -> Tensor:
        """Room for the matrices of a step, zero where no weight will ever be."""
        number = self.images * self.rows * self.grid[1] * self.heads
        shape = number, math.prod(self.tile), math.prod(self.seen)
        return torch.zeros(shape, dtype=self.dtype, device=like.device)

    def entries(self, matrices: Tensor) -> Tensor:
        """View of the weights in matrices, (tiles, heads, tile, tile, k, k)."""
        (tall, wide), (_, columns) = self.tile, self.seen
        size = math.prod(self.seen)
        number = math.prod(self.tile) * size
        step = self.dilation
        return matrices.as_strided(
            (len(matrices) // self.heads, self.heads, tall, wide, self.kernel, self.kernel),
            (self.heads * number, number, wide * size + columns, size + 1, step * columns, step),
        )

    def by_tile(self, x: Tensor) -> Tensor:
        """(images, rows, tile, columns, tile, C) to (tiles * tile * tile, C)."""
        return x.transpose(2, 3).reshape(-1, x.shape[-1]).to(self.dtype)

    def from_tile(self, x: Tensor, like: Tensor) -> Tensor:
        """The reverse, as a view for a part of a map like this."""
        images, rows, tall, columns, wide = like.shape[:5]
        return x.view(images, rows, columns, tall, wide, -1).transpose(2, 3)

    def by_head(self, x: Tensor) -> Tensor:
        """(images, rows, tile, columns, tile, C) to (matrices, queries, d)."""
        x = x.unflatten(5, (self.heads, self.dim)).permute(0, 1, 3, 5, 2, 4, 6)
        return x.reshape(-1, math.prod(self.tile), self.dim).to(self.dtype)

    def from_head(self, x: Tensor, like: Tensor) -> Tensor:
        """The reverse, as a view for a part of a map like this."""
        images, rows, tall, columns, wide = like.shape[:5]
        x = x.view(images, rows, columns, self.heads, tall, wide, self.dim)
        return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(like.shape)

    def weights(self, hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Softmax weights (tiles, tile * tile, heads, k^2) of activated queries."""
        logits = torch.addmm(bias, hidden, weight.t())
        return logits.view(-1, math.prod(self.tile), self.heads, self.kernel**2).softmax(-1)

    def place(self, weights: Tensor, entries: Tensor) -> None:
        """Write softmax weights into their matrices."""
        x = weights.unflatten(3, (self.kernel, -1)).unflatten(1, self.tile)
        entries.copy_(x.permute(0, 3, 1, 2, 4, 5))

    def take(self, entries: Tensor) -> Tensor:
        """The reverse, (tiles, tile * tile, heads, k^2)."""
        return entries.permute(0, 2, 3, 1, 4, 5).flatten(4, 5).flatten(1, 2)


@custom_op('hybrid_mm::ghost_attention')
def ghost_attention(
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    heads: int,
    kernel_size: int,
    dilation: int,
) -> Tensor:
    """Softmax weights of k x k pixels, and the sum of the values there, zero outside of the map.

    ``A = softmax_t(W gelu(hidden_p) + b)``, ``y[c, p] = sum_t A[head(c), t, p] v[c, p + t]``, as
    products of matrices for tiles of queries. Softmax and sums have at least single precision.

    Args:
        hidden: (N, D, H, W), any strides.
        v: Values (N, C, H, W), any strides.
        weight: W, (heads * k^2, D).
        bias: b, (heads * k^2,).
        heads: Number of heads; head(c) is c / (C / heads), rounded down.
        kernel_size: k.
        dilation: Distance of the taps.

    Returns:
        (N, C, H, W), channels last in memory.
    """
    tiles = _Tiles(hidden, v, heads, kernel_size, dilation)
    weight, bias = weight.to(tiles.dtype), bias.to(tiles.dtype)
    queries, padded = tiles.queries(hidden), tiles.pad(v)
    out = v.new_empty(*queries.shape[:5], v.shape[1])
    buffer = tiles.matrices(v)
    with torch.autocast(v.device.type, enabled=False):
        for images, rows in tiles:
            part, values = queries[images, rows], tiles.values(padded, images, rows)
            matrices = buffer[: len(values)]
            weights = tiles.weights(F.gelu(tiles.by_tile(part)), weight, bias)
            tiles.place(weights, tiles.entries(matrices))
            result = out[images, rows]
            result.copy_(tiles.from_head(torch.bmm(matrices, values), result))
    return tiles.uncut(out).contiguous(memory_format=torch.channels_last)


@ghost_attention.register_fake
def _(hidden, v, weight, bias, heads, kernel_size, dilation):
    return torch.empty_like(v, memory_format=torch.channels_last)


@custom_op('hybrid_mm::ghost_attention_backward')
def _backward(
    grad: Tensor,
    hidden: Tensor,
    v: Tensor,
    weight: Tensor,
    bias: Tensor,
    heads: int,
    kernel_size: int,
    dilation: int,
) -> list[Tensor]:
    tiles = _Tiles(hidden, v, heads, kernel_size, dilation)
    dtypes = weight.dtype, bias.dtype
    weight, bias = weight.to(tiles.dtype), bias.to(tiles.dtype)
    queries, grads, padded = tiles.queries(hidden), tiles.queries(grad), tiles.pad(v)
    grad_hidden = hidden.new_empty(queries.shape)
    grad_padded = torch.zeros(padded.shape, dtype=tiles.dtype, device=v.device)
    grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    buffer, products = tiles.matrices(v), tiles.matrices(v)
    with torch.autocast(v.device.type, enabled=False):
        for images, rows in tiles:
            values, dy = tiles.values(padded, images, rows), tiles.by_head(grads[images, rows])
            raw = tiles.by_tile(queries[images, rows])
            active = F.gelu(raw)
            weights = tiles.weights(active, weight, bias)
            matrices, product = buffer[: len(values)], products[: len(values)]
            tiles.place(weights, tiles.entries(matrices))
            tiles.add_values(grad_padded, images, rows, torch.bmm(matrices.transpose(1, 2), dy))
            torch.bmm(dy, values.transpose(1, 2), out=product)
            d_weights = tiles.take(tiles.entries(product))
            d_logits = torch._softmax_backward_data(d_weights, weights, -1, tiles.dtype)
            d_logits = d_logits.view(len(raw), -1)
            grad_weight.addmm_(d_logits.t(), active)
            grad_bias += d_logits.sum(0)
            d_raw = torch.ops.aten.gelu_backward(d_logits @ weight, raw)
            part = grad_hidden[images, rows]
            part.copy_(tiles.from_tile(d_raw, part))
    halo, (height, width) = tiles.halo, v.shape[2:]
    grad_v = grad_padded[:, halo : halo + height, halo : halo + width].permute(0, 3, 1, 2)
    layout = dict(memory_format=torch.channels_last)
    return [
        tiles.uncut(grad_hidden).contiguous(**layout),
        grad_v.to(v.dtype).contiguous(**layout),
        grad_weight.to(dtypes[0]),
        grad_bias.to(dtypes[1]),
    ]


@_backward.register_fake
def _(grad, hidden, v, weight, bias, heads, kernel_size, dilation):
    maps = [torch.empty_like(x, memory_format=torch.channels_last) for x in (hidden, v)]
    return [*maps, torch.empty_like(weight), torch.empty_like(bias)]


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.heads, ctx.kernel_size, ctx.dilation = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad: Tensor):
    grads = _backward(grad, *ctx.saved_tensors, ctx.heads, ctx.kernel_size, ctx.dilation)
    return *grads, None, None, None


ghost_attention.register_autograd(_differentiate, setup_context=_setup_context)
