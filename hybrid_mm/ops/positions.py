"""Tables of relative and absolute positions: indexing and interpolation to other sizes."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hybrid_mm.ops.export import has_symbols
from hybrid_mm.ops.fusing import is_plain
from hybrid_mm.ops.precision import no_autocast

__all__ = [
    'bias_matrix',
    'decomposed_logits',
    'decomposed_tables',
    'encode_coordinates',
    'fit_position_embedding',
    'interpolate',
    'joined_tables',
    'relative_to_absolute',
    'resize_bias_table',
    'resize_decomposed_table',
    'resize_position_embedding',
    'resize_relative_table',
    'resize_window_table',
    'spread_table',
    'unflatten_bias_table',
]


def interpolate(table: Tensor, size: int | Sequence[int], mode: str, align_corners: bool) -> Tensor:
    """``torch.nn.functional.interpolate``, on a GPU too with a deterministic gradient if asked.

    With ``torch.use_deterministic_algorithms``, 'linear' and 'bicubic' of torch refuse to be
    differentiated on a GPU: there they are products with the matrix of every axis.

    Args:
        table: (N, C, L) or (N, C, H, W).
        size: L or (H, W) of the result.
        mode: 'linear', 'bilinear' or 'bicubic'.
        align_corners: As of torch's function.
    """
    if not _needs_matrices(table, mode):
        return F.interpolate(table, size=size, mode=mode, align_corners=align_corners)
    sizes = (size,) if isinstance(size, int) else size
    flat = 'bilinear' if mode == 'linear' else mode
    for dim, target in enumerate(sizes, 2):
        length = table.shape[dim]
        with torch.no_grad(), no_autocast(table):
            matrix = torch.eye(length, dtype=table.dtype, device=table.device)[None, None]
            matrix = F.interpolate(matrix, (length, target), mode=flat, align_corners=align_corners)
        with no_autocast(table):
            table = (table.transpose(dim, -1) @ matrix[0, 0]).transpose(dim, -1)
    return table


def _needs_matrices(table: Tensor, mode: str) -> bool:
    # torch has another algorithm for 'bilinear' itself
    return table.is_cuda and mode != 'bilinear' and torch.are_deterministic_algorithms_enabled()


def resize_relative_table(table: Tensor, size: int) -> Tensor:
    """Fit a table of offsets to a map of ``size`` positions.

    A smaller map takes the entries about the middle, which are exact; for a larger one they are
    interpolated linearly, so that the outermost offsets keep their meaning.

    Args:
        table: (..., 2 * S - 1, d), made for S positions.
        size: Positions L of the axis.

    Returns:
        (..., 2 * L - 1, d).

    Raises:
        ValueError: A table of even length.
    """
    length = table.shape[-2]
    if has_symbols((size,)):
        return _stretched(table, size)
    if length % 2 == 0:
        raise ValueError(
            f'a relative table has 2 * size - 1 entries, an odd number; got {tuple(table.shape)}'
        )
    entries = 2 * size - 1
    if entries <= length:
        return table.narrow(-2, (length - entries) // 2, entries)
    rows = table.reshape(-1, *table.shape[-2:]).transpose(1, 2)
    rows = interpolate(rows, entries, 'linear', align_corners=True)
    return rows.transpose(1, 2).reshape(*table.shape[:-2], entries, table.shape[-1])


def _stretched(table: Tensor, size: int) -> Tensor:
    """:func:`resize_relative_table` in operators of a graph."""
    middle = (table.shape[-2] - 1) // 2
    offset = torch.arange(1 - size, size, device=table.device)
    step = (middle / offset[-1].clamp(min=1)).clamp(max=1)  # 1 for a smaller map
    place = middle + offset * step
    low = place.floor().clamp(0, 2 * middle)
    share = (place - low).to(table.dtype)[:, None]
    low = low.long()
    high = (low + 1).clamp(max=2 * middle)
    return torch.lerp(table.index_select(-2, low), table.index_select(-2, high), share)


def _coordinates(length: int, like: Tensor) -> Tensor:
    """So many numbers from -1 to 1, of the type of a tensor."""
    if not has_symbols((length,)):
        return torch.linspace(-1, 1, length, dtype=like.dtype, device=like.device)
    place = torch.arange(length, dtype=like.dtype, device=like.device)
    return place * (2 / place[-1].clamp(min=1)) - 1


def encode_coordinates(position: nn.Conv2d, height: int, width: int) -> Tensor:
    """A 1x1 convolution of the coordinates x and y in -1..1, in full precision (SAN, ACmix).

    Args:
        position: Convolution from the 2 coordinates to C channels.
        height: Rows of the map.
        width: Columns of the map.

    Returns:
        (C, height, width).
    """
    if not is_plain(position):
        given = next((p for p in position.parameters() if p.is_floating_point()), torch.empty(()))
        y, x = (_coordinates(size, given) for size in (height, width))
        grid = torch.stack((x.expand(height, -1), y[:, None].expand(-1, width)))
        with no_autocast(grid):
            return position(grid[None])[0]
    weight, bias = position.weight.flatten(1), position.bias
    y, x = (_coordinates(size, weight) for size in (height, width))
    # autocast would round a convolution
    column, row = weight[:, 0, None, None] * x, weight[:, 1, None, None] * y[:, None]
    place = column + row
    return place if bias is None else place + bias[:, None, None]


def resize_position_embedding(
    table: Tensor,
    size: tuple[int, int],
    extra: int = 0,
    mode: str = 'bilinear',
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Interpolate an embedding of the absolute positions of a map to another map.

    Args:
        table: (1, extra + S * T, C).
        size: Rows and columns of the map.
        extra: Leading entries, of class tokens, which are kept.
        mode: Interpolation of ``torch.nn.functional.interpolate``.
        grid: Rows S and columns T of the map that the table is made for; None: a square map.

    Returns:
        (1, extra + rows * columns, C).
    """
    first, places = table[:, :extra], table[:, extra:]
    if grid is None:
        grid = (round(places.shape[1] ** 0.5),) * 2
    if not has_symbols(size) and tuple(grid) == tuple(size):
        return table
    places = places.transpose(1, 2).unflatten(2, grid)
    places = interpolate(places, size, mode, align_corners=False)
    return torch.cat([first, places.flatten(2).transpose(1, 2)], 1)


def fit_position_embedding(
    table: Tensor, grid: tuple[int, int], extra: int, mode: str, argument: str
) -> Tensor:
    """Fit the absolute positions of a file to another map; see :func:`resize_position_embedding`.

    Args:
        table: (1, extra + S * T, C), of our map or of a square one.
        grid: Rows and columns of our map.
        extra: Leading entries, of class tokens.
        mode: Interpolation.
        argument: Of the network, which says what image the positions are made for.

    Raises:
        ValueError: Positions of neither.
    """
    entries = table.shape[1] - extra
    if entries == math.prod(grid):
        return table
    side = math.isqrt(max(entries, 0))
    if entries < 1 or side**2 != entries:
        raise ValueError(
            f'{table.shape[1]} absolute positions are neither of a square map nor of our '
            f'{grid[0]} x {grid[1]} patches{f" and {extra} token" * bool(extra)}; give the '
            f'{argument} that these weights were trained with'
        )
    return resize_position_embedding(table, grid, extra, mode)


def joined_tables(rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column halves of one vector as two tables of full width (arXiv 1906.05909, eq. 3).

    Args:
        rel_h: (heads, k, d / 2), for the first half of the channels of a head.
        rel_w: (heads, k, d / 2), for the second half.

    Returns:
        Two tables (heads, k, d), zero in the other half.
    """
    half = rel_h.shape[-1]
    return F.pad(rel_h, (0, half)), F.pad(rel_w, (half, 0))


def relative_to_absolute(logits: Tensor) -> Tensor:
    """The skew: logits by offset to logits by key (arXiv 1904.09925, appendix).

    Args:
        logits: (..., L, 2 * L - 1), by query and key - query + L - 1.

    Returns:
        (..., L, L), by query and key.
    """
    length = logits.shape[-2]
    flat = F.pad(logits, (0, 1)).flatten(-2)
    flat = F.pad(flat, (0, length - 1))
    return flat.unflatten(-1, (length + 1, 2 * length - 1))[..., :length, length - 1 :]


def resize_window_table(table: Tensor, window: int) -> Tensor:
    """Fit a table with a number per offset to another window, bicubic as Swin's and NAT's code.

    Args:
        table: (heads, 2 * k - 1, 2 * k - 1).
        window: The new k.

    Returns:
        (heads, 2 * window - 1, 2 * window - 1).
    """
    size = 2 * window - 1
    if table.shape[-2:] == (size, size):
        return table
    return interpolate(table[None], (size, size), 'bicubic', align_corners=False)[0]


def resize_bias_table(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Fit a table with a number per offset to another size, bilinear as MaxViT's code.

    Args:
        table: (heads, 2 * S_h - 1, 2 * S_w - 1), or flat, see :func:`unflatten_bias_table`.
        size: Rows and columns (H, W) that offsets lie between.

    Returns:
        (heads, 2 * H - 1, 2 * W - 1).

    Raises:
        ValueError: A flat table of another map that is not square.
    """
    shape = tuple(2 * side - 1 for side in size)
    table = unflatten_bias_table(table, size) if table.ndim == 2 else table
    if not has_symbols(shape) and tuple(table.shape[1:]) == shape:
        return table
    return interpolate(table[None], shape, 'bilinear', align_corners=False)[0]


def unflatten_bias_table(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Rows and columns of a flat table of offsets, as CoAtNet's layout has it.

    Args:
        table: (heads, (2 * S_h - 1) * (2 * S_w - 1)); of ``size`` if its length fits, else of a
            square.
        size: Rows and columns (H, W) that it may be made for.

    Returns:
        (heads, 2 * S_h - 1, 2 * S_w - 1).

    Raises:
        ValueError: A table of neither.
    """
    shape = tuple(2 * side - 1 for side in size)
    side, length = math.isqrt(table.shape[1]), table.shape[1]
    given = shape if length == math.prod(shape) else (side, side)
    if length != math.prod(given) or (side % 2 == 0 and given != shape):
        raise ValueError(
            f'a table of {length} offsets is neither one of {shape[0]} x {shape[1]} nor of a '
            'square with an odd side; give the img_size or window_size that it was made for'
        )
    return table.unflatten(1, given)


def spread_table(table: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Spread a table out to a number per pair of positions, by two gathers.

    The first one spreads the columns of the small table, so that the second copies whole rows of
    keys.

    Args:
        table: (heads, R, C).
        rows: Row of the table for rows of queries and keys, (H, H_k).
        columns: Column of the table for columns of queries and keys, (W, W_k).

    Returns:
        (heads, H * W, H_k * W_k), by query and key.
    """
    width = columns.shape[0]
    by_column = table.index_select(2, columns.flatten()).unflatten(2, columns.shape)
    column = torch.arange(width, device=table.device)[:, None]
    entry = rows[:, None] * width + column  # of (row of the table, column of the query)
    pairs = by_column.flatten(1, 2).index_select(1, entry.flatten())
    queries = rows.shape[0] * width
    return pairs.reshape(table.shape[0], queries, rows.shape[1] * columns.shape[1])


def bias_matrix(table: Tensor) -> Tensor:
    """Spread a table out to a number per pair of positions.

    Args:
        table: (heads, 2 * H - 1, 2 * W - 1), by key minus query.

    Returns:
        (heads, H * W, H * W), by query and key.
    """
    height, width = ((side + 1) // 2 for side in table.shape[1:])
    if has_symbols((height, width)):
        place = (torch.arange(side, device=table.device) for side in (height, width))
        return spread_table(table, *(p - p[:, None] + p[-1] for p in place))
    # entry (a, b) of the unfolded table starts at offset (a - H + 1, b - W + 1)
    pairs = table.unfold(1, height, 1).unfold(2, width, 1).flip(1, 2)
    return pairs.reshape(len(table), height * width, height * width)


def resize_decomposed_table(table: Tensor, length: int) -> Tensor:
    """Interpolate a table (entries, d) linearly to (length, d).

    Args:
        table: Vectors by offset, (entries, d).
        length: Number of entries of the result.
    """
    if not has_symbols((length,)) and len(table) == length:
        return table
    rows = interpolate(table.t()[None], length, 'linear', align_corners=False)
    return rows[0].t()


def decomposed_tables(rel: Tensor, queries: int, keys: int, *, resize: bool = True) -> Tensor:
    """Vectors of each pair of positions of one axis whose keys lie on another grid (MViTv2).

    Offsets are query minus key, in steps of the finer grid (arXiv 2112.01526, eq. 4).

    Args:
        rel: (length, d); 2 * max(queries, keys) - 1 entries, otherwise it is interpolated.
        queries: Positions of the queries.
        keys: Positions of the keys.
        resize: Interpolate a table of another length; without, it is an error.

    Returns:
        (queries, keys, d).

    Raises:
        ValueError: A table of another length with ``resize=False``.
    """
    length: Any = 2 * torch.sym_max(queries, keys) - 1
    if not resize and len(rel) != length:
        raise ValueError(f'{length} relative vectors expected, got {len(rel)}')
    rel = resize_decomposed_table(rel, length)
    # the checkpoints were trained with products of float32 ratios, rounded down
    if has_symbols((queries, keys)):
        return rel[_ratio_offsets(queries, keys, rel.device)]
    up, down = max(keys / queries, 1.0), max(queries / keys, 1.0)
    i = torch.arange(queries, device=rel.device, dtype=torch.float32)[:, None] * up
    j = torch.arange(keys, device=rel.device, dtype=torch.float32) * down
    return rel[(i - j + (keys - 1) * down).long()]


def _ratio_offsets(queries: int, keys: int, device: torch.device) -> Tensor:
    """Entries of :func:`decomposed_tables` by query and key, in operators of a graph."""
    i, j = (torch.arange(n, device=device) for n in (queries, keys))
    last, count = j[-1].double(), i[-1].double() + 1
    up, down = ((last + 1) / count).clamp(min=1), (count / (last + 1)).clamp(min=1)
    shift = (last * down).float()
    return (i.float()[:, None] * up.float() - j.float() * down.float() + shift).long()


def decomposed_logits(q: Tensor, rel_h: Tensor, rel_w: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column terms of the decomposed relative positions (arXiv 2112.01526, eq. 4).

    Args:
        q: Unscaled queries, (N, heads, H, W, d).
        rel_h: :func:`decomposed_tables` of the rows, (H, H_k, d).
        rel_w: Of the columns, (W, W_k, d).

    Returns:
        (N, heads, H, W, H_k) and (N, heads, H, W, W_k); the logit gets their sum.
    """
    return (
        torch.einsum('nhyxd,ykd->nhyxk', q, rel_h),
        torch.einsum('nhyxd,xkd->nhyxk', q, rel_w),
    )
