"""What :mod:`hybrid_mm.ops.local_attention` is in an exported graph: tiles as matrix products.

Queries are cut into tiles, and the keys that any query of a tile sees are one rectangle, as in
:mod:`~hybrid_mm.ops.local_attention.tiled`; but all tiles are computed at once, so that the graph
is a few gathers of pixels, two matrix products and a softmax, whatever the size of the window. What
a query of a tile does not see is hidden by a large negative number.

Every index is computed from the lengths of the map by operators of the graph: lengths may be
symbolic, and the graph is then right for maps of any size.

With t x t queries and h x h keys of a tile, there are h^2 logits for each pixel, and (h / t)^2
copies of keys and values.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hybrid_mm.ops.export import (
    ceil_div,
    example_length,
    has_symbols,
    numbers,
    once_per_graph,
)
from hybrid_mm.ops.local_attention.axes import Border, reflected_index
from hybrid_mm.ops.local_attention.pattern import AxisPattern, Pattern, PatternType, Tables
from hybrid_mm.ops.precision import accurate

_SIDE = 8  # queries of a tile on an axis, where a map has many
HIDDEN = -1e30  # logit of what a query does not see; unlike infinity, 0 times it is 0


class _Cut(NamedTuple):
    """An axis cut into T tiles of t queries that see h positions side by side.

    Attributes:
        query: Query of each slot; slots beyond the last query read the last one, (T, t).
        slot: Slot of each query, (queries,).
        key: Key at each position; where there is none, any key, (T, h).
        inside: Where there is a key, (T, h), or None: everywhere.
        offset: Relative index of a position for a query, (T or 1, t, h).
        seen: Which positions a query sees, (T or 1, t, h), or None: all of them.
    """

    query: Tensor
    slot: Tensor
    key: Tensor
    inside: Tensor | None
    offset: Tensor
    seen: Tensor | None


class _Layout(NamedTuple):
    """What the layers of a graph with one pattern share for maps of one size.

    Attributes:
        rows: The axis of rows.
        columns: The axis of columns.
        queries: Pixel of each query of each tile, (tiles, t_y * t_x).
        keys: Pixel of each key of each tile, (tiles, h_y * h_x); that after the last is zero.
        place: Where among the tiles the result of each pixel is, (H' * W',).
    """

    rows: _Cut
    columns: _Cut
    queries: Tensor
    keys: Tensor
    place: Tensor


def forward(
    q: Tensor, k: Tensor, v: Tensor, tables: Tables, scale: float, pattern: Pattern
) -> Tensor:
    """Output (N, h, H', W', d_v) of windows, blocks or attention to the whole map."""
    size, exact = numbers(q.shape[2:4]), accurate(q)
    height, width = numbers(k.shape[2:4])
    keys = k.to(exact.dtype)
    if pattern.type == PatternType.WHOLE:
        logits = whole_logits(
            exact, keys, tables, scale, (pattern.rows.stride, pattern.columns.stride)
        )
        return (logits.softmax(-1).to(v.dtype) @ v.flatten(2, 3)).unflatten(2, size)
    layout = _layout(pattern, height, width, k.device)
    queries = _pixels(exact, layout.queries)
    zeros = 'zero' in (pattern.rows.border, pattern.columns.border)
    keys = _pixels(keys, layout.keys, zeros)
    products = queries * scale
    relative = tables.rel_h is not None or tables.rel_w is not None
    if relative:  # further channels of the product, which has to exist anyway
        terms, spread = _relative(queries, tables, layout.rows, layout.columns)
        products = torch.cat([products, terms], -1)
        keys = torch.cat([keys, spread.expand(*keys.shape[:3], -1, -1)], -1)
    logits = products @ keys.transpose(-1, -2)
    hides = layout.rows.seen is not None or layout.columns.seen is not None
    if tables.bias is not None or (hides and not relative):
        table = exact.new_zeros(1, 1, 1) if tables.bias is None else tables.bias.to(exact.dtype)
        logits = logits + _bias(table, layout.rows, layout.columns)
    out = logits.softmax(-1).to(v.dtype) @ _pixels(v, layout.keys, zeros)
    return out.flatten(2, 3).index_select(2, layout.place).unflatten(2, size)


def _pixels(x: Tensor, index: Tensor, zeros: bool = False) -> Tensor:
    """Vectors of a map (N, heads, H, W, d) by tiles, (N, heads, tiles, pixels of a tile, d)."""
    x = x.flatten(2, 3)
    if zeros:
        x = F.pad(x, (0, 0, 0, 1))
    return x.index_select(2, index.flatten()).unflatten(2, index.shape)


@once_per_graph
def _layout(pattern: Pattern, height: int, width: int, device: torch.device) -> _Layout:
    cut = _cut_blocks if pattern.type == PatternType.BLOCK else _cut_windows
    rows, columns = cut(pattern.rows, height, device), cut(pattern.columns, width, device)
    across, size = columns.query.shape
    tile = rows.query.shape[1]
    queries = _grid(rows.query, columns.query, ceil_div(width, pattern.columns.stride))
    keys = _grid(rows.key, columns.key, width)
    if pattern.rows.border == 'zero' or pattern.columns.border == 'zero':
        inside = [
            torch.ones_like(axis.key, dtype=torch.bool) if axis.inside is None else axis.inside
            for axis in (rows, columns)
        ]
        here = inside[0][:, None, :, None] & inside[1][None, :, None]
        keys = torch.where(here.flatten(0, 1).flatten(1), keys, height * width)
    row, column = rows.slot[:, None], columns.slot
    place = (row // tile * across + column // size) * (tile * size)
    place = place + row % tile * size + column % size
    return _Layout(rows, columns, queries, keys, place.flatten())


def _grid(row: Tensor, column: Tensor, width: int) -> Tensor:
    """Pixels of tiles (T_y * T_x, t_y * t_x) of rows (T_y, t_y) and columns (T_x, t_x)."""
    pixels = row[:, None, :, None] * width + column[None, :, None]
    return pixels.flatten(0, 1).flatten(1)


def _tile(axis: AxisPattern, length: int) -> int:
    """Queries of a tile on an axis of so many keys.

    Any tile is right for any map, but one that fits is faster: if the length is symbolic, for the
    map that is traced. Of a single tile the tracer would assume that it is always alone.
    """
    symbolic = has_symbols((length,))
    length = ceil_div(example_length(length), axis.dilation * axis.stride)
    if length >= 4 * _SIDE:
        return _SIDE
    tiles = ceil_div(length, _SIDE + axis.size // 2)
    return ceil_div(length, max(tiles, 2) if symbolic else tiles)


def _cut_windows(axis: AxisPattern, length: int, device: torch.device) -> _Cut:
    """Cut windows around queries; those of a residue class of the dilation lie side by side."""
    window, stride, dilation, border = axis.size, axis.stride, axis.dilation, axis.border
    # queries at every `classes`-th place are in the same class, `step` of its keys apart
    step, classes = _reduced(stride, dilation)
    queries, size = ceil_div(length, stride), _tile(axis, length)
    tiles = ceil_div(queries, size * classes)
    reach: Any = step * (size - 1) + window
    if border == 'shift':  # no more than the keys of a class
        reach = torch.sym_min(ceil_div(length, dilation), reach)
    last = torch.arange(length, device=device)[-1]
    tile = torch.arange(tiles * classes, device=device)[:, None]
    group, number = tile % classes, tile // classes
    first = group * stride % dilation  # key of the class
    slot = torch.arange(size, device=device)
    tap = torch.arange(reach, device=device)
    query = (number * size + slot) * classes + group
    centre = query * stride // dilation
    place = torch.arange(queries, device=device)
    place = (place // classes // size * classes + place % classes) * size + place // classes % size
    begin = centre - window // 2
    if border == 'shift':
        count = (last - first) // dilation + 1
        begin = torch.minimum(begin, count - window).clamp(min=0)
        start = torch.minimum(centre[:, :1] - window // 2, count - reach).clamp(min=0)
        position = (start + tap)[:, None]
        seen = (position >= begin[..., None]) & (position < begin[..., None] + window)
        seen = seen & (position < count[..., None])
        key = torch.minimum(first + dilation * (start + tap), last)
        offset = position - centre[..., None]
        return _Cut(torch.minimum(query, last // stride), place, key, None, offset, seen)
    tap_of = tap - step * slot[:, None]  # taps of the queries of any tile
    window_of = ((tap_of >= 0) & (tap_of < window))[None]
    position = first + dilation * (begin[:, :1] + tap)
    key, inside, visible = _at_border(position, last, window_of, border)
    offset = (tap_of - window // 2)[None]
    return _Cut(torch.minimum(query, last // stride), place, key, inside, offset, visible)


def _cut_blocks(axis: AxisPattern, length: int, device: torch.device) -> _Cut:
    """Cut blocks that see a halo around them."""
    block, halo, stride = axis.size, axis.halo, axis.stride
    size, reach = block // stride, block + 2 * halo
    last = torch.arange(length, device=device)[-1]
    tile = torch.arange(ceil_div(length, block), device=device)[:, None]
    slot, tap = torch.arange(size, device=device), torch.arange(reach, device=device)
    key, inside, seen = _at_border(tile * block - halo + tap, last, None, axis.border)
    query = torch.minimum(tile * size + slot, last // stride)
    place = torch.arange(ceil_div(length, stride), device=device)
    return _Cut(query, place, key, inside, (tap - slot[:, None])[None], seen)


def _at_border(
    key: Tensor, last: Tensor, seen: Tensor | None, border: Border
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Keys (T, h) beyond the border: which are read, where there are any, and what is seen."""
    if border == 'reflect':
        return reflected_index(key, last), None, seen
    inside = (key >= 0) & (key <= last)
    if border == 'mask':
        here = inside[:, None]
        seen = here if seen is None else here & seen
    return torch.minimum(key.clamp(min=0), last), inside, seen


def _reduced(stride: int, dilation: int) -> tuple[int, int]:
    """Stride and dilation without their common divisor."""
    a, b = stride, dilation
    while b:
        a, b = b, a % b
    return stride // a, dilation // a


def _bias(table: Tensor, rows: _Cut, columns: _Cut) -> Tensor:
    """Entries of a table (heads, ...) for all pairs of a tile; what is not seen is hidden.

    First those of the columns, then stretches of them by rows: to gather all entries one by one
    would take as long as the softmax.
    """
    column, index = _pairs(rows, columns, table.shape[1], table.shape[2])
    table = F.pad(table, (0, 1, 0, 1), value=HIDDEN)
    stretches = table.index_select(2, column.flatten())
    stretches = stretches.reshape(table.shape[0], -1, column.shape[2])
    pairs = stretches.index_select(1, index.flatten()).unflatten(1, index.shape)
    return pairs.flatten(3, 4)


@once_per_graph
def _pairs(rows: _Cut, columns: _Cut, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Entries of columns (T, t, h), and which h of them a query and a row of keys have.

    The latter is (tiles, queries of a tile, rows of keys).
    """
    row, column = _entries(rows, height), _entries(columns, width)
    number = column.shape[0] * column.shape[1]
    place = torch.arange(number, device=row.device).view(1, column.shape[0], 1, column.shape[1], 1)
    index = row[:, None, :, None] * number + place
    return column, index.flatten(0, 1).flatten(1, 2)


def _entries(axis: _Cut, length: int) -> Tensor:
    """Entries of a table of odd length, (T or 1, t, h); ``length`` for what is not seen."""
    entry = (axis.offset + (length - 1) // 2).clamp(0, length - 1)
    return entry if axis.seen is None else torch.where(axis.seen, entry, length)


def _relative(q: Tensor, tables: Tables, rows: _Cut, columns: _Cut) -> tuple[Tensor, Tensor]:
    """Products of queries with the vectors of their offsets, by rows and columns of keys.

    Returns:
        The products (N, heads, tiles, queries of a tile, h_y + h_x), which hide what is not seen,
        and which two of them belong to a key, (keys of a tile, h_y + h_x) of 0 and 1.
    """
    tiles = rows.query.shape[0], columns.query.shape[0]
    tile = rows.query.shape[1], columns.query.shape[1]
    reach = rows.key.shape[1], columns.key.shape[1]
    q = q.unflatten(3, tile).unflatten(2, tiles)  # (N, heads, T_y, T_x, t_y, t_x, d)
    row = _relative_axis(q, tables.rel_h, rows, 2)
    column = _relative_axis(q.transpose(4, 5), tables.rel_w, columns, 1).transpose(-3, -2)
    terms = [row.expand(*q.shape[:6], reach[0]), column.expand(*q.shape[:6], reach[1])]
    return torch.cat(terms, -1).flatten(4, 5).flatten(2, 3), _spread(*reach, q.dtype, q.device)


def _relative_axis(q: Tensor, table: Tensor | None, axis: _Cut, other: int) -> Tensor:
    """Products of one axis, (N, heads, T_y, T_x, t, t', h) or smaller; t is of that axis."""
    terms = q.new_zeros(1, 1, 1)
    if table is not None:
        entry = _entries(axis, table.shape[1])
        vectors = F.pad(table.to(q.dtype), (0, 0, 0, 1)).index_select(1, entry.flatten())
        vectors = vectors.unflatten(1, entry.shape).unsqueeze(other)
        terms = q @ vectors.transpose(-1, -2)
    if axis.seen is None:
        return terms
    hidden = torch.where(axis.seen, 0.0, HIDDEN).to(q.dtype).unsqueeze(other - 1)
    return terms + hidden[..., None, :]


@once_per_graph
def _spread(rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The row, then the column, of each of rows * columns keys: (keys, rows + columns)."""
    row, column = (torch.arange(n, device=device) for n in (rows, columns))
    row = (row[:, None, None] == row).expand(-1, columns, -1)
    column = (column[:, None] == column).expand(rows, -1, -1)
    return torch.cat([row, column], 2).flatten(0, 1).to(dtype)


def whole_logits(
    q: Tensor,
    k: Tensor,
    tables: Tables,
    scale: float = 1.0,
    strides: tuple[int, int] = (1, 1),
) -> Tensor:
    """Logits of every query and all keys.

    Args:
        q: Queries, (N, heads, H', W', d).
        k: Keys, (N, heads, H, W, d).
        tables: What is added to them.
        scale: Factor of q.k.
        strides: Distance of the queries.

    Returns:
        (N, heads, H' * W', H * W).
    """
    height, width = numbers(k.shape[2:4])
    rows, columns = (
        _offsets(stride, length, q.device)
        for stride, length in zip(strides, (height, width), strict=True)
    )
    logits = (q * scale).flatten(2, 3) @ k.flatten(2, 3).transpose(-1, -2)
    terms: list[Tensor] = []
    if tables.rel_h is not None:
        vectors = _vectors(tables.rel_h, rows, q.dtype)
        terms.append((q @ vectors.transpose(-1, -2))[..., None])
    if tables.rel_w is not None:
        vectors = _vectors(tables.rel_w, columns, q.dtype)
        found = q.transpose(2, 3) @ vectors.transpose(-1, -2)
        terms.append(found.transpose(2, 3)[..., None, :])
    if terms:
        pairs = sum(terms[1:], terms[0]).expand(*q.shape[:4], height, width)
        logits = logits + pairs.flatten(4, 5).flatten(2, 3)
    if tables.bias is not None:
        cuts = (_Cut(x, x, x, None, x[None], None) for x in (rows, columns))
        logits = logits + _bias(tables.bias.to(q.dtype), *cuts)[:, 0]
    return logits


@once_per_graph
def _offsets(stride: int, length: int, device: torch.device) -> Tensor:
    """Key minus query, (queries, keys)."""
    keys = torch.arange(length, device=device)
    return keys - stride * torch.arange(ceil_div(length, stride), device=device)[:, None]


def _vectors(table: Tensor, offset: Tensor, dtype: torch.dtype) -> Tensor:
    """Vectors of a table (heads or 1, length, d) by query and key, (heads or 1, L', L, d)."""
    entry = offset + (table.shape[1] - 1) // 2
    return table.to(dtype).index_select(1, entry.flatten()).unflatten(1, entry.shape)
