"""Enhanced local self-attention: Hadamard attention and ghost head (ELSA).

Source: "ELSA: Enhanced Local Self-Attention for Vision Transformer" (arXiv 2112.12786), sections
3.2 and 3.3, and its code. There is no position encoding and no factor d^-0.5 in the networks.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hybrid_mm.layers.grid_convolution import grid_convolution
from hybrid_mm.layers.mixed_shift import check_impl

# Queries of a tile on each side, and numbers of the tiles' weights that exist at a time
_TILE = 8
_BUFFER, _BUFFER_GPU = 2**20, 2**26


class ELSA(nn.Module):
    """ELSA in the place of window attention, on tokens (N, H, W, C).

    The weights of the k x k pixels around a pixel come from a convolution of the product of query
    and key there, softmax(W gelu(conv(q * k))); the ghost head gives every channel c its own
    filters by a factor and a summand of each tap t::

        y[c, p] = sum_t (mul[c, t]^lam * A[head(c), t, p] + gamma * add[c, t]) v[c, p + t]

    with zeros outside of the map. The summand is a depthwise convolution. Weights A are computed
    for some rows at a time and again in the backward pass: kept are maps of the size of queries,
    keys and values. Multiplications per pixel: 2 C (C + D) + D k^2 (g + heads) + 2 k^2 C with
    D = 2 C / 3 and width g of a group.

    Args:
        dim: Channels C.
        heads: Number of heads.
        kernel_size: Window k, odd.
        dilation: Distance of the pixels of a window, also in the convolution.
        group_width: Channels of a group of that convolution; D is rounded up to a multiple of it.
        groups: Groups of the 1x1 convolution to the weights.
        lam: Power of the factors; with 0 there are none.
        gamma: Factor of the summands; with 0 there are none.
        qk_scale: Factor of q * k, by default (C / heads)^-0.5; the networks have 1.
        qkv_bias: Bias of the projection to queries, keys and values.
        attn_drop: Dropout rate of the weights; above 0, training keeps them.
        proj_drop: Dropout rate of the result.
        impl: 'engine', or 'reference', the published formulation, which keeps k^2 copies.

    Raises:
        ValueError: An even window, heads that do not divide C, groups that do not divide both
            sides, an unknown impl.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kernel_size: int = 5,
        dilation: int = 1,
        group_width: int = 8,
        groups: int = 1,
        lam: float = 1,
        gamma: float = 1,
        qk_scale: float | None = None,
        qkv_bias: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        impl: str = 'engine',
    ) -> None:
        super().__init__()
        check_impl(impl)
        if heads < 1 or dim % heads:
            raise ValueError(f'heads must divide the {dim} channels, got {heads}')
        if kernel_size % 2 == 0:
            raise ValueError(f'kernel_size must be odd, got {kernel_size}')
        self.heads, self.kernel_size, self.dilation, self.impl = heads, kernel_size, dilation, impl
        self.lam, self.gamma = lam, gamma
        self.scale = (dim // heads) ** -0.5 if qk_scale is None else qk_scale
        self.attn_drop, self.proj_drop = attn_drop, proj_drop
        self.qk_dim = math.ceil(dim // 3 * 2 / group_width) * group_width
        outputs = heads * kernel_size**2
        if self.qk_dim % groups or outputs % groups:
            raise ValueError(
                f'groups must divide the {self.qk_dim} channels of queries and the {outputs} '
                f'weights of a pixel, got {groups}'
            )
        # convolutions, so that they keep their initialisation
        self.pre_proj = nn.Conv2d(dim, 2 * self.qk_dim + dim, 1, bias=qkv_bias)
        self.conv = nn.Conv2d(
            self.qk_dim, self.qk_dim, kernel_size, padding=kernel_size // 2 * dilation,
            dilation=dilation, groups=self.qk_dim // group_width,
        )  # fmt: skip
        self.to_weights = nn.Conv2d(self.qk_dim, outputs, 1, groups=groups)
        parts = (lam != 0) + (gamma != 0)
        self.ghost_head = None
        if parts:
            self.ghost_head = nn.Parameter(torch.empty(parts, dim, kernel_size, kernel_size))
            if lam != 0:
                nn.init.normal_(self.ghost_head.data[0])
            if gamma != 0:
                nn.init.trunc_normal_(self.ghost_head.data[-1], std=0.02)
        self.post_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, shift: int = 0) -> Tensor:
        """Map (N, H, W, C) to the same shape.

        Args:
            x: Normalised tokens.
            shift: Must be 0: there are no windows to shift.
        """
        if shift:
            raise ValueError(f'ELSA has no windows to shift, got shift {shift}')
        dim = x.shape[3]
        maps = F.linear(x, self.pre_proj.weight.flatten(1), self.pre_proj.bias).permute(0, 3, 1, 2)
        q, k, v = maps.split([self.qk_dim, self.qk_dim, dim], 1)
        product = q * k
        hidden = self.conv(product if self.scale == 1 else product * self.scale)
        mul, add = self.ghost()
        if self.impl == 'reference' or (self.attn_drop and self.training):
            out = self._reference(hidden, v, mul, add)
        elif mul is None:
            out = self._engine(hidden, v, add)
        else:
            out = self._by_rows(hidden, v, mul)
            out = out if add is None else out + self._static(v, add)
        out = self.post_proj(out.permute(0, 2, 3, 1))
        return F.dropout(out, self.proj_drop, self.training)

    def ghost(self) -> tuple[Tensor | None, Tensor | None]:
        """Factors and summands of the ghost head, (C, k, k) each, or None."""
        mul = None if self.lam == 0 else self.ghost_head[0] ** self.lam
        add = None if self.gamma == 0 else self.gamma * self.ghost_head[-1]
        return mul, add

    def _engine(self, hidden: Tensor, v: Tensor, add: Tensor | None) -> Tensor:
        weight = torch.block_diag(*self.to_weights.weight.flatten(1).chunk(self.to_weights.groups))
        out = ghost_attention(
            hidden, v, weight, self.to_weights.bias, self.heads, self.kernel_size, self.dilation
        )
        return out if add is None else out + self._static(v, add)

    def _static(self, v: Tensor, add: Tensor) -> Tensor:
        """The summands' part: the same filter of a channel at every pixel."""
        if self.dilation == 1:
            return grid_convolution(v, add, [1] * self.kernel_size)
        reach = self.kernel_size // 2 * self.dilation
        add = add.unsqueeze(1)
        return F.conv2d(v, add, padding=reach, dilation=self.dilation, groups=v.shape[1])

    def _by_rows(self, hidden: Tensor, v: Tensor, mul: Tensor) -> Tensor:
        """The factors' part: the published formulation for some rows at a time, recomputed."""
        n, channels, height, width = v.shape
        reach = self.kernel_size // 2 * self.dilation
        padded = F.pad(v, (reach,) * 4)
        limit = _BUFFER if v.device.type == 'cpu' else _BUFFER_GPU
        count = max(1, limit // (n * channels * self.kernel_size**2 * width))
        layer = self.to_weights.weight, self.to_weights.bias
        outs = []
        for first in range(0, height, count):
            rows = hidden[:, :, first : first + count]
            band = padded[:, :, first : first + rows.shape[2] + 2 * reach]
            if torch.is_grad_enabled():
                part = checkpoint(
                    self._filtered, rows, band, mul, None, *layer, use_reentrant=False,
                    preserve_rng_state=False,
                )  # fmt: skip
            else:
                part = self._filtered(rows, band, mul, None, *layer)
            outs.append(part)
        return torch.cat(outs, 2)

    def _reference(
        self, hidden: Tensor, v: Tensor, mul: Tensor | None, add: Tensor | None
    ) -> Tensor:
        reach = self.kernel_size // 2 * self.dilation
        layer = self.to_weights.weight, self.to_weights.bias
        return self._filtered(hidden, F.pad(v, (reach,) * 4), mul, add, *layer)

    def _filtered(
        self, hidden: Tensor, padded: Tensor, mul: Tensor | None, add: Tensor | None,
        weight: Tensor, bias: Tensor,
    ) -> Tensor:  # fmt: skip
        """Filters of every channel and pixel, times the unfolded values."""
        n, channels = padded.shape[:2]
        logits = F.conv2d(F.gelu(hidden), weight, bias, groups=self.to_weights.groups).flatten(2)
        full = torch.promote_types(logits.dtype, torch.float32)
        weights = logits.unflatten(1, (self.heads, -1)).softmax(2, dtype=full)
        weights = F.dropout(weights, self.attn_drop, self.training)
        filters = weights.unsqueeze(2)  # (N, heads, 1, k^2, HW)
        if mul is not None:
            filters = filters * mul.reshape(1, self.heads, -1, self.kernel_size**2, 1)
        if add is not None:
            filters = filters + add.reshape(1, self.heads, -1, self.kernel_size**2, 1)
        taps = F.unfold(padded, self.kernel_size, self.dilation).to(full)
        taps = taps.view(n, self.heads, channels // self.heads, self.kernel_size**2, -1)
        out = (filters * taps).sum(3).view(n, channels, *hidden.shape[2:])
        return out.to(padded.dtype)

    def extra_repr(self) -> str:
        """Window and heads, for printing."""
        return f'heads={self.heads}, kernel_size={self.kernel_size}, dilation={self.dilation}'


# -- softmax and aggregation -----------------------------------------------------------------------


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
        limit = _BUFFER if v.device.type == 'cpu' else _BUFFER_GPU
        self.images = max(1, min(self.n, limit // (row * self.grid[0])))
        self.rows = max(1, min(self.grid[0], limit // row))

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        for n in range(0, self.n, self.images):
            for first in range(0, self.grid[0], self.rows):
                yield (
                    slice(n, min(n + self.images, self.n)),
                    slice(first, min(first + self.rows, self.grid[0])),
                )

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
                    images, rows.start + a : rows.stop + a, : part.shape[2],
                    b : b + self.grid[1], : part.shape[4],
                ]  # fmt: skip
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


@torch.library.custom_op('hybrid_mm::ghost_attention', mutates_args=())
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


@torch.library.custom_op('hybrid_mm::ghost_attention_backward', mutates_args=())
def _backward(
    grad: Tensor, hidden: Tensor, v: Tensor, weight: Tensor, bias: Tensor, heads: int,
    kernel_size: int, dilation: int,
) -> list[Tensor]:  # fmt: skip
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
