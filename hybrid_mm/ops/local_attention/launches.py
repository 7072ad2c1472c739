"""Local attention by the kernels of :mod:`.triton`: sizes of tiles, launches, gradients."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hybrid_mm.ops import kernels
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.device_tables import on_device
from hybrid_mm.ops.kernels import product_side
from hybrid_mm.ops.local_attention import tiled
from hybrid_mm.ops.local_attention.lanes import key_arrays, key_tiles, query_arrays, query_tiles
from hybrid_mm.ops.local_attention.pattern import Pattern, PatternType, Tables
from hybrid_mm.ops.local_attention.triton import attend, differentiate_keys, differentiate_queries

_COPIES = 32  # of a table, that programs add their gradients to


class Tile(NamedTuple):
    """Rows and columns of queries that a program has, of keys that it reads at a time; warps."""

    query_rows: int
    query_columns: int
    rows: int
    columns: int
    warps: int

    def arguments(self) -> dict[str, int]:
        """As arguments of a kernel."""
        names = 'QUERY_ROWS', 'QUERY_COLUMNS', 'ROWS', 'COLUMNS', 'num_warps'
        return dict(zip(names, self, strict=True))


def available(q: Tensor, k: Tensor, v: Tensor, *tables: Tensor | None) -> bool:
    """Whether 'auto' may take the kernels."""
    return _too_wide(q, v, tables) is None and kernels.available(
        'local_attention', q, k, v, *tables
    )


def check_available(operator: str, q: Tensor, k: Tensor, v: Tensor, *tables: Tensor | None) -> None:
    """Check that the kernels can work on the tensors of an operator.

    Raises:
        RuntimeError: They cannot.
    """
    kernels.check_available(operator, q, k, v, *tables)
    reason = _too_wide(q, v, tables)
    if reason is not None and not kernels.interpreted():
        raise RuntimeError(f"impl='triton' of {operator}: {reason}; use impl='auto'")


def _too_wide(q: Tensor, v: Tensor, tables: Sequence[Tensor | None]) -> str | None:
    """Why the vectors of a head do not fit into registers, or None if they do."""
    if q.dtype.itemsize > 2:
        most = 32, 64
    else:
        most = (256, 256) if all(x is None for x in tables) else (128, 128)
    if q.shape[-1] <= most[0] and v.shape[-1] <= most[1]:
        return None
    return (
        f'queries of {q.shape[-1]} and values of {v.shape[-1]} numbers per head, in {q.dtype} '
        f'at most {most[0]} and {most[1]} fit into registers'
    )


class Tiles(NamedTuple):
    """Tiles of the three kernels."""

    forward: Tile
    queries: Tile
    keys: Tile


# Queries of a program, keys that it reads at a time, and warps, by head width: what needs no more
# than the 255 registers of a thread, compiled for compute capability 8.0 and 9.0 at the shapes of
# the papers; docs/benchmarks/kernels.md names the few that spill some registers all the same. Heads
# of 128 channels with relative tables in NCHW memory spill a kilobyte.
_HALF = {
    32: ((64, 64, 4), (64, 32, 4), (32, 64, 4)),
    64: ((64, 32, 4), (32, 16, 4), (16, 32, 8)),
    128: ((32, 32, 4), (32, 16, 4), (32, 16, 4)),
    256: ((32, 32, 8), (32, 16, 8), (32, 32, 8)),
}
_SINGLE = {
    32: ((32, 16, 4), (32, 16, 4), (32, 16, 8)),
    256: ((32, 16, 4), (32, 16, 4), (16, 32, 8)),
}
_SHAPES = (8, 8), (4, 8), (4, 4)


def tiles_of(pattern: Pattern, width: int, dtype: torch.dtype, relative: bool) -> Tiles:
    """Sizes of tiles.

    Args:
        pattern: What queries see.
        width: Of a head.
        dtype: Of the maps.
        relative: Whether there are relative tables.
    """
    sizes = _SINGLE if dtype.itemsize > 2 else _HALF
    forward, queries, keys = sizes[min(w for w in sizes if w >= width)]
    side, window = _sides(pattern)
    if relative:  # gradients of two tables take registers as well
        queries = min(queries[0], 32), *queries[1:]
        if _shape(side, 32) == (4, 4):
            queries = (16, 32, 2) if sizes is _SINGLE else (16, 64, 4)
    # Triton's gather wants a number for every thread, or ends the program
    return Tiles(
        _tile(side, window, *forward, 16 * relative),
        _tile(side, window, *queries, min(_shape(window, queries[1])) * relative),
        _tile(side, window, *keys, 16 * relative),
    )


def _sides(pattern: Pattern) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns of queries that lie together, and of the keys that they see; 64: many."""
    axes = pattern.rows, pattern.columns
    if pattern.type == PatternType.BLOCK:
        rows, columns = (axis.size // axis.stride for axis in axes)
        return (rows, columns), (axes[0].size + 2 * axes[0].halo, axes[1].size + 2 * axes[1].halo)
    if pattern.type in (PatternType.PARTITION, PatternType.GRID):
        return (axes[0].size, axes[1].size), (axes[0].size, axes[1].size)
    return (64, 64), (64, 64)


def _tile(
    side: tuple[int, int],
    window: tuple[int, int],
    queries: int,
    keys: int,
    warps: int,
    gathered: int,
) -> Tile:
    """A tile of at most so many slots; of each query so many numbers are gathered at least."""
    query, key = _shape(side, queries), _shape(window, keys)
    if math.prod(query) * math.prod(key) <= 256:
        warps = 1
    if gathered:
        warps = min(warps, math.prod(query) * gathered // 32)
    return Tile(*query, *key, warps)


def _shape(side: tuple[int, int], most: int) -> tuple[int, int]:
    """Rows and columns of a tile of at most so many slots for a window of queries or keys."""
    shapes = [shape for shape in _SHAPES if math.prod(shape) <= most]

    def cost(shape: tuple[int, int]) -> float:
        slots = math.prod(-(-n // step) * step for n, step in zip(side, shape, strict=True))
        return slots * (1 + 40 / math.prod(shape))  # a tile costs as much as 40 slots more

    return min(shapes, key=cost)


def _map(name: str, x: Tensor) -> dict[str, Any]:
    """A map and its strides as arguments of a kernel."""
    return {name: x, **{f'{name}_{a}': s for a, s in zip('nhyxd', x.stride(), strict=True)}}


def _planes(x: Tensor) -> bool:
    """Whether neighbours in memory are pixels, as in NCHW."""
    return x.stride(4) != 1


def _precision(dtype: torch.dtype) -> str:
    """How products of single precision are computed.

    On ordinary units ('ieee') every thread would hold whole rows of its operands, ten times more
    than it has registers; three products on tensor cores are as accurate.
    """
    tf32 = dtype != torch.float32 or torch.backends.cuda.matmul.allow_tf32
    return 'tf32' if tf32 else 'tf32x3'


class _Call:
    """Arguments that the kernels share."""

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, tables: Tables, scale: float, pattern: Pattern
    ) -> None:
        self.q, self.pattern, self.size = q, pattern, (k.shape[2], k.shape[3])
        self.bias, self.rel_h, self.rel_w = (None if x is None else x.contiguous() for x in tables)
        d, dv = q.shape[-1], v.shape[-1]
        relative = self.rel_h is not None or self.rel_w is not None
        self.tiles = tiles_of(pattern, max(d, dv), q.dtype, relative)
        self.arguments = {
            **_map('q', q), **_map('k', k), **_map('v', v),
            'heads': q.shape[1], 'height': q.shape[2], 'width': q.shape[3], 'scale': scale,
            'bias': self.bias, 'bias_h': _by_head(self.bias),
            'bias_rows': 0 if self.bias is None else self.bias.shape[1],
            'bias_columns': 0 if self.bias is None else self.bias.shape[2],
            'rel_h': self.rel_h, 'rel_h_h': _by_head(self.rel_h),
            'rel_h_length': 0 if self.rel_h is None else self.rel_h.shape[1],
            'rel_w': self.rel_w, 'rel_w_h': _by_head(self.rel_w),
            'rel_w_length': 0 if self.rel_w is None else self.rel_w.shape[1],
            'D': d, 'D_WIDTH': product_side(d), 'DV': dv, 'DV_WIDTH': product_side(dv),
            'Q_PLANES': _planes(q), 'K_PLANES': _planes(k), 'V_PLANES': _planes(v),
            'PRECISION': _precision(q.dtype),
        }  # fmt: skip

    def _axes(self, tile: Tile) -> list[tuple[Any, int, int, int]]:
        """Pattern, length, queries of a tile and keys of a tile, for rows and columns."""
        rows, columns = self.pattern.rows, self.pattern.columns
        height, width = self.size
        return [
            (rows, height, tile.query_rows, tile.rows),
            (columns, width, tile.query_columns, tile.columns),
        ]

    def by_queries(self, kernel: Any, tile: Tile, **arguments: Any) -> None:
        """Launch a kernel with a program per tile of queries."""
        kind, programs, dense = self.pattern.type, self.q.shape[0] * self.q.shape[1], True
        arguments |= tile.arguments()
        axes = zip(('row', 'column'), self._axes(tile), strict=True)
        for name, (axis, length, size, keys) in axes:
            tiles = query_tiles(kind, axis, length, size)
            slots, table, source = on_device(
                query_arrays, kind, axis, length, size, device=self.q.device
            )
            arguments |= {f'{name}_slots': slots, f'{name}_tiles': table, f'{name}_source': source,
                          f'{name}_number': len(tiles.tiles),
                          f'{name.upper()}_ENTRIES': product_side(tiles.spread + keys)}  # fmt: skip
            programs, dense = programs * len(tiles.tiles), dense and tiles.dense
        masked = self.pattern.rows.border == 'mask' and kind in (
            PatternType.WINDOW,
            PatternType.BLOCK,
        )
        if programs:
            arguments |= dict(DENSE=dense, MASKED=masked)
            kernel[(programs,)](**self.arguments, **arguments, num_stages=2)

    def by_keys(self, kernel: Any, **arguments: Any) -> None:
        """Launch a kernel with a program per tile of keys."""
        kind, programs, dense = self.pattern.type, self.q.shape[0] * self.q.shape[1], True
        arguments |= self.tiles.keys.arguments()
        axes = zip(('row', 'column'), self._axes(self.tiles.keys), strict=True)
        for name, (axis, length, queries, size) in axes:
            tiles = key_tiles(kind, axis, length, size, queries)
            keys, positions, table, order = on_device(
                key_arrays, kind, axis, length, size, queries, device=self.q.device
            )
            arguments |= {f'{name}_keys': keys, f'{name}_positions': positions,
                          f'{name}_tiles': table, f'{name}_queries': order,
                          f'{name}_number': tiles.tiles.shape[1],
                          f'{name}_copies': len(tiles.positions),
                          f'{name.upper()}_ENTRIES': product_side(tiles.spread + 1)}  # fmt: skip
            programs, dense = programs * tiles.tiles.shape[1], dense and tiles.dense
        if programs:
            # reading ahead takes registers, which single precision has not
            arguments |= dict(DENSE=dense, num_stages=1 if self.q.dtype.itemsize > 2 else 2)
            kernel[(programs,)](**self.arguments, **arguments)


def _by_head(table: Tensor | None) -> int:
    """Distance of the entries of two heads, 0 where all heads share them."""
    return 0 if table is None or len(table) == 1 else table.stride(0)


def _results(q: Tensor, k: Tensor, v: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    """Empty result, in the memory of tokens, and logarithms of the sums of the softmax."""
    n, heads, height, width = q.shape[:4]
    out = q.new_empty(n, height, width, heads, v.shape[-1]).permute(0, 3, 1, 2, 4)
    return out, q.new_empty((n, heads, height, width), dtype=torch.float32)


def _gradients(
    grad: Tensor,
    grad_lse: Tensor | None,
    needs: list[bool],
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    scale: float,
    pattern: list[int],
) -> list[Tensor]:
    """Empty gradients: maps in the order of their own memory, tables contiguous."""
    maps = [torch.empty_like(x) for x, needed in zip((q, k, v), needs, strict=False) if needed]
    tables = zip((bias, rel_h, rel_w), needs[3:], strict=True)
    return [*maps, *(x.new_empty(x.shape) for x, needed in tables if x is not None and needed)]


def _backward(
    grad: Tensor,
    grad_lse: Tensor | None,
    needs: list[bool],
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    scale: float,
    pattern: list[int],
) -> list[Tensor]:
    """Gradients of the tensors that need one."""
    tables, shape = Tables(bias, rel_h, rel_w), Pattern.from_ints(pattern)

    def otherwise() -> list[Tensor]:
        return _without_kernels(grad, needs, q, k, v, tables, scale, shape)

    if any(needs[3:]) and torch.are_deterministic_algorithms_enabled():
        return otherwise()
    return kernels.launched(
        'local_attention',
        lambda: _differentiate(grad, needs, out, lse, q, k, v, tables, scale, shape),
        otherwise,
    )


def _differentiate(
    grad: Tensor,
    needs: list[bool],
    out: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: Tables,
    scale: float,
    pattern: Pattern,
) -> list[Tensor]:
    call = _Call(q, k, v, tables, scale, pattern)
    learned = [x for x, needed in zip(tables, needs[3:], strict=True) if needed and x is not None]
    lengths = [x.numel() for x in learned]
    total = sum(lengths)
    # as many copies as take no more memory than the queries
    copies = max(1, min(_COPIES, q.numel() // max(1, total)))
    sums = torch.zeros(copies, total, dtype=torch.float32, device=q.device) if total else None
    found = iter(() if sums is None else sums.split(lengths, 1))
    parts = [next(found) if needed else None for needed in needs[3:]]
    grad_q, delta = torch.empty_like(q), torch.empty_like(lse)
    upstream = {**_map('g', grad), 'G_PLANES': _planes(grad), 'lse': lse, 'delta': delta}
    upstream['grad'] = upstream.pop('g')
    call.by_queries(
        differentiate_queries,
        call.tiles.queries,
        **upstream,
        **_gradient('q', grad_q),
        out=out,
        grad_bias=parts[0],
        grad_rel_h=parts[1],
        grad_rel_w=parts[2],
        copies=copies,
        copy_stride=total,
    )
    grad_k = grad_v = None
    if needs[1] or needs[2]:
        grad_k, grad_v = torch.empty_like(k), torch.empty_like(v)
        call.by_keys(
            differentiate_keys, **upstream, **_gradient('k', grad_k), **_gradient('v', grad_v)
        )
    maps = [x for x, needed in zip((grad_q, grad_k, grad_v), needs, strict=False) if needed]
    given = [p for p in parts if p is not None]
    of_tables = [p.sum(0).view(x.shape).to(x.dtype) for p, x in zip(given, learned, strict=True)]
    return [*maps, *of_tables]


def _gradient(name: str, x: Tensor) -> dict[str, Any]:
    """A map to write a gradient to, as arguments of a kernel."""
    arguments = _map(f'g{name}', x)
    return {f'grad_{name}': arguments.pop(f'g{name}'), **arguments}


def _without_kernels(
    grad: Tensor,
    needs: list[bool],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: Tables,
    scale: float,
    pattern: Pattern,
) -> list[Tensor]:
    """The same from the algorithm in tiles, in the same memory."""
    rows, columns = pattern.tile_sizes(k.shape[2], k.shape[3])[0]
    *maps, of_tables = tiled.backward(grad, q, k, v, tables, scale, pattern, (rows, columns))
    pairs = zip((q, k, v), maps, needs, strict=False)
    found = [torch.empty_like(x).copy_(dx) for x, dx, needed in pairs if needed]
    for x, dx, needed in zip(tables, of_tables, needs[3:], strict=True):
        if needed and x is not None and dx is not None:
            found.append(dx.to(x.dtype).contiguous())
    return found


@custom_op(
    'hybrid_mm::triton_attention',
    fake=_results,
    backward=_backward,
    backward_fake=_gradients,
    keep=(0, 1),
)
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    scale: float,
    pattern: list[int],
) -> tuple[Tensor, Tensor]:
    """Result (N, heads, H', W', d_v), and (N, heads, H', W') for the backward pass.

    The memory of the result is that of tokens, (N, H', W', heads, d_v).
    """
    tables, shape = Tables(bias, rel_h, rel_w), Pattern.from_ints(pattern)
    out, lse = _results(q, k, v)

    def run() -> tuple[Tensor, Tensor]:
        call = _Call(q, k, v, tables, scale, shape)
        call.by_queries(attend, call.tiles.forward, out=out, lse=lse)
        return out, lse

    def otherwise() -> tuple[Tensor, Tensor]:
        rows, columns = shape.tile_sizes(k.shape[2], k.shape[3])[0]
        out.copy_(tiled.forward(q, k, v, tables, scale, shape, (rows, columns)))
        return out, lse

    return kernels.launched('local_attention', run, otherwise)
