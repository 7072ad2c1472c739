"""Tiles of queries and the rectangles of values that they see, a few tiles at a time."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops import budget
from hybrid_mm.ops.precision import accurate_dtype

_TILE = 8  # queries of a tile on each side


class Tiles:
    """Tiles of t = t_h x t_w queries, each with the r = r_h x r_w values that its queries see.

    All weights of a tile and a head form a matrix (t, r) that is zero but for k^2 entries a row.
    These entries are a strided view of it: tap (a, b) of query (y, x) is the value (y + dilation a,
    x + dilation b).

    Cut maps are (N, tile rows, t_h, tile columns, t_w, C). A chunk is some images and tile rows of
    one, and has T tiles and B = T * heads matrices.

    Args:
        v: Values (N, C, H, W).
        heads: Number of heads of width d = C / heads.
        kernel: Window k.
        dilation: Distance of the taps.
    """

    def __init__(self, v: Tensor, heads: int, kernel: int, dilation: int) -> None:
        self.n, channels, self.height, self.width = v.shape
        self.heads, self.dim = heads, channels // heads
        self.kernel, self.dilation = kernel, dilation
        self.halo = kernel // 2 * dilation
        self.tile = tuple(min(_TILE, size) for size in v.shape[2:])
        self.grid = tuple(math.ceil(s / t) for s, t in zip(v.shape[2:], self.tile, strict=True))
        self.seen = tuple(t + 2 * self.halo for t in self.tile)
        # tiles on each side that a rectangle reaches into, and the grid that all of them fill
        self.reach = tuple(math.ceil(s / t) for s, t in zip(self.seen, self.tile, strict=True))
        self.full = tuple(g + r - 1 for g, r in zip(self.grid, self.reach, strict=True))
        self.dtype, self.device = accurate_dtype(v.dtype), v.device
        row = self.grid[1] * heads * math.prod(self.tile) * math.prod(self.seen)
        self.images = budget.fitting(self.n, row * self.grid[0], v.device)
        self.rows = budget.fitting(self.grid[0], row, v.device)

    def __iter__(self) -> Iterator[tuple[slice, slice]]:
        """Images and tile rows of each chunk."""
        for images in budget.chunks(self.n, self.images):
            for rows in budget.chunks(self.grid[0], self.rows):
                yield images, rows

    # -- maps ------------------------------------------------------------------------------------

    def cut(self, x: Tensor) -> Tensor:
        """Cut a map (N, C, H, W) into tiles, zero-padded at the right and bottom."""
        down, right = (g * t - s for g, t, s in zip(self.grid, self.tile, x.shape[2:], strict=True))
        x = x.permute(0, 2, 3, 1)
        if down or right:
            x = F.pad(x, (0, 0, 0, right, 0, down))
        return x.unflatten(2, (-1, self.tile[1])).unflatten(1, (-1, self.tile[0]))

    def join(self, x: Tensor) -> Tensor:
        """Join tiles to a map (N, C, H, W) without its padding, channels last in memory."""
        x = x.flatten(3, 4).flatten(1, 2)[:, : self.height, : self.width]
        return x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)

    def pixels(self, x: Tensor) -> Tensor:
        """A chunk of a cut map as (T * t, C), accurate."""
        return x.transpose(2, 3).reshape(-1, x.shape[-1]).to(self.dtype)

    def set_pixels(self, target: Tensor, x: Tensor) -> None:
        """Write (T * t, C) to a chunk of a cut map."""
        images, rows, tall, columns, wide = target.shape[:5]
        target.copy_(x.view(images, rows, columns, tall, wide, -1).transpose(2, 3))

    def head_pixels(self, x: Tensor) -> Tensor:
        """A chunk of a cut map as (B, t, d), accurate."""
        x = x.unflatten(5, (self.heads, self.dim)).permute(0, 1, 3, 5, 2, 4, 6)
        return x.reshape(-1, math.prod(self.tile), self.dim).to(self.dtype)

    def set_head_pixels(self, target: Tensor, x: Tensor) -> None:
        """Write (B, t, d) to a chunk of a cut map."""
        images, rows, tall, columns, wide = target.shape[:5]
        x = x.view(images, rows, columns, self.heads, tall, wide, self.dim)
        target.copy_(x.permute(0, 1, 4, 2, 5, 3, 6).reshape(target.shape))

    # -- rectangles ------------------------------------------------------------------------------

    def pad(self, v: Tensor) -> Tensor:
        """Pad values (N, C, H, W) to what the tiles see, (N, H', W', C)."""
        down, right = (
            f * t - s - self.halo for f, t, s in zip(self.full, self.tile, v.shape[2:], strict=True)
        )
        return F.pad(v.permute(0, 2, 3, 1), (0, 0, self.halo, right, self.halo, down))

    def unpad(self, padded: Tensor) -> Tensor:
        """Cut (N, C, H, W) out of (N, H', W', C)."""
        rows = slice(self.halo, self.halo + self.height)
        columns = slice(self.halo, self.halo + self.width)
        return padded[:, rows, columns].permute(0, 3, 1, 2)

    def rectangles(self, padded: Tensor, images: slice, rows: slice) -> Tensor:
        """Values that the tiles of a chunk see, (B, r, d), accurate."""
        last = (rows.stop - 1) * self.tile[0] + self.seen[0]
        part = padded[images, rows.start * self.tile[0] : last]
        part = part.unfold(1, self.seen[0], self.tile[0]).unfold(2, self.seen[1], self.tile[1])
        part = part[:, :, : self.grid[1]].unflatten(3, (self.heads, self.dim))
        part = part.permute(0, 1, 2, 3, 5, 6, 4).to(self.dtype)
        return part.reshape(-1, math.prod(self.seen), self.dim)

    def add_rectangles(self, padded: Tensor, images: slice, rows: slice, x: Tensor) -> None:
        """Add (B, r, d) to the places of a padded map that the tiles of a chunk see."""
        cells = padded.view(
            self.n, self.full[0], self.tile[0], self.full[1], self.tile[1], self.heads, self.dim
        )
        count = images.stop - images.start, rows.stop - rows.start, self.grid[1]
        x = x.view(*count, self.heads, *self.seen, self.dim).permute(0, 1, 4, 2, 5, 3, 6)
        # within one cell of the grid no two rectangles overlap
        for a in range(self.reach[0]):
            for b in range(self.reach[1]):
                part = x[:, :, a * self.tile[0] : (a + 1) * self.tile[0]]
                part = part[:, :, :, :, b * self.tile[1] : (b + 1) * self.tile[1]]
                place = cells[
                    images,
                    rows.start + a : rows.stop + a,
                    : part.shape[2],
                    b : b + self.grid[1],
                    : part.shape[4],
                ]
                place += part

    # -- matrices of weights ---------------------------------------------------------------------

    def buffer(self) -> Tensor:
        """Memory for the matrices of a chunk (B, t, r), zero where no weight will ever be."""
        number = self.images * self.rows * self.grid[1] * self.heads
        shape = number, math.prod(self.tile), math.prod(self.seen)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def _entries(self, matrices: Tensor) -> Tensor:
        """View of the weights in matrices, (T, heads, t_h, t_w, k, k)."""
        (tall, wide), (_, columns) = self.tile, self.seen
        size = math.prod(self.seen)
        number = math.prod(self.tile) * size
        step = self.dilation
        return matrices.as_strided(
            (len(matrices) // self.heads, self.heads, tall, wide, self.kernel, self.kernel),
            (self.heads * number, number, wide * size + columns, size + 1, step * columns, step),
        )

    def set_weights(self, matrices: Tensor, weights: Tensor) -> None:
        """Write weights (T, t, heads, k^2) into their matrices (B, t, r)."""
        x = weights.unflatten(3, (self.kernel, -1)).unflatten(1, self.tile)
        self._entries(matrices).copy_(x.permute(0, 3, 1, 2, 4, 5))

    def weights(self, matrices: Tensor) -> Tensor:
        """Read weights (T, t, heads, k^2) from their matrices (B, t, r)."""
        x = self._entries(matrices)
        return x.permute(0, 2, 3, 1, 4, 5).flatten(4, 5).flatten(1, 2)
