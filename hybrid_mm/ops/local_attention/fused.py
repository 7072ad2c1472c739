"""Attention in tiles in C, for CPUs: logits stay in registers and in the nearest cache."""

import ctypes
import functools
import math

import numpy as np
import torch
from torch import Tensor

from hybrid_mm.ops import native
from hybrid_mm.ops.export import has_symbols
from hybrid_mm.ops.local_attention.pattern import Pattern, PatternType, Tables
from hybrid_mm.ops.local_attention.tiles import Tiles, tiling
from hybrid_mm.ops.precision import accurate, accurate_dtype

_MOST_KEYS = 28**2  # of a tile: all its logits are kept for a vector of queries
_MOST_BYTES = 2**22  # of what is laid out of bias and tables for a head
_BAND = 16  # query rows whose keys are laid out at once, at least


class _Axis(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_long) for name in ('number', 'size', 'reach', 'positions', 'step')),
        ('types', ctypes.c_long),
        *((name, ctypes.c_void_p) for name in ('queries', 'source', 'start', 'type', 'base')),
        *((name, ctypes.c_void_p) for name in ('count', 'low', 'high', 'valid')),
        ('all_valid', ctypes.c_long),
    )


class _Map(ctypes.Structure):
    _fields_ = (
        ('data', ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ('image', 'head', 'row', 'column', 'channel')),
    )


class _Target(ctypes.Structure):
    _fields_ = (
        ('data', ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ('image', 'head', 'row', 'column')),
    )


class _Table(ctypes.Structure):
    _fields_ = (
        ('data', ctypes.c_void_p),
        *((name, ctypes.c_long) for name in ('heads', 'rows', 'columns')),
    )


class _Problem(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_long) for name in ('images', 'heads', 'dim', 'value_dim')),
        *((name, ctypes.c_long) for name in ('key_rows', 'key_columns')),
        *((name, ctypes.c_long) for name in ('query_rows', 'query_columns', 'band', 'parallel')),
        ('scale', ctypes.c_double),
        *((name, _Axis) for name in ('rows', 'columns')),
        *((name, _Map) for name in ('q', 'k', 'v', 'grad')),
        *((name, _Table) for name in ('bias', 'rel_h', 'rel_w')),
        ('laid_out', ctypes.c_void_p),
    )


class _Gradients(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name in ('q', 'k', 'v', 'bias', 'rel_h', 'rel_w'))


def is_available(q: Tensor) -> bool:
    """Whether there is a kernel for the device and type of the queries."""
    return q.device.type == 'cpu' and _compiles(accurate_dtype(q.dtype))


@torch.compiler.assume_constant_result  # compiled graphs need not trace how this is found out
def _compiles(dtype: torch.dtype) -> bool:
    return native.load('tile_attention', dtype) is not None


def fits(q: Tensor, k: Tensor, tables: Tables, pattern: Pattern) -> bool:
    """Whether the kernel can do it, as fast as tiles or faster: not where tiles see many keys.

    Args:
        q: Queries, (N, heads, H', W', d).
        k: Keys, (N, heads, H, W, d).
        tables: Bias and relative tables.
        pattern: Which keys they see.
    """
    if not is_available(q) or has_symbols((*q.shape, *k.shape)):
        return False
    library = _library(q)
    axes = _axes(pattern, *k.shape[2:4], library.lanes())
    rows, columns = (axis.tiles for axis in axes)
    queries = math.prod(axis.types for axis in axes) * rows.size * columns.size
    pairs = rows.reach * columns.reach
    numbers = queries * pairs * (tables.bias is not None)
    for tiles, table in zip((rows, columns), tables[1:], strict=True):
        numbers += queries * tiles.reach * q.shape[-1] * (table is not None)
    return pairs <= _MOST_KEYS and numbers * accurate_dtype(q.dtype).itemsize <= _MOST_BYTES


def forward(
    q: Tensor, k: Tensor, v: Tensor, tables: Tables, scale: float, pattern: Pattern
) -> Tensor:
    """Output (N, heads, H', W', d_v) in the type of the queries.

    Args:
        q: Queries, (N, heads, H', W', d).
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        tables: Bias and relative tables.
        scale: Factor of q.k.
        pattern: One that :func:`fits`.

    Raises:
        MemoryError: No memory for the working space.
    """
    call = _Call(q, k, v, tables, scale, pattern)
    out = call.inputs[0].new_empty(*q.shape[:4], v.shape[-1])
    _run(call.library, 'forward', call.problem, _target(out))
    return out.to(q.dtype)


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: Tables,
    scale: float,
    pattern: Pattern,
) -> tuple[Tensor, Tensor, Tensor, Tables]:
    """Gradients of q, k, v and the tables from that of the output; arguments as :func:`forward`."""
    call = _Call(q, k, v, tables, scale, pattern, grad)
    queries, *keys = (torch.empty(x.shape, dtype=call.dtype) for x in (q, k, v))
    given = [None if x is None else torch.zeros(x.shape, dtype=call.dtype) for x in tables]
    for x in keys:
        x.zero_()
    addresses = (None if x is None else x.data_ptr() for x in (queries, *keys, *given))
    _run(call.library, 'backward', call.problem, _Gradients(*addresses))
    grad_q, grad_k, grad_v = (x.to(q.dtype) for x in (queries, *keys))
    return grad_q, grad_k, grad_v, Tables(*given)


def _library(q: Tensor) -> ctypes.CDLL:
    library = native.load('tile_attention', accurate_dtype(q.dtype))
    assert library is not None
    return library


class _Call:
    """Arguments of the kernel."""

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        tables: Tables,
        scale: float,
        pattern: Pattern,
        grad: Tensor | None = None,
    ) -> None:
        self.library, self.dtype = _library(q), accurate_dtype(q.dtype)
        maps = (q, k, v) if grad is None else (q, k, v, grad)
        self.inputs = [accurate(x) for x in maps]  # kept for as long as the kernel reads them
        self.tables = [None if x is None else x.to(self.dtype).contiguous() for x in tables]
        n, heads, height, width, d = k.shape
        self.axes = _axes(pattern, height, width, self.library.lanes())
        rows, columns = (axis.structure for axis in self.axes)
        band = max(1, -(-_BAND // rows.size))
        self.problem = _Problem(
            *(n, heads, d, v.shape[-1], height, width, *q.shape[2:4]),
            *(band, self.axes[0].apart(band), scale, rows, columns),
            *(_map(x) for x in self.inputs),
            *(() if grad is not None else (_Map(),)),
            *(_Table() if x is None else _Table(x.data_ptr(), *x.shape) for x in self.tables),
        )


class Prepared:
    """Attention with one bias, which is laid out once, for inference in single precision.

    Args:
        q: Queries, (N, heads, H', W', d), as all later ones but for N.
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        bias: Numbers added to the logits by offset, (heads or 1, rows, columns).
        scale: Factor of q.k.
        pattern: One that :func:`fits`.
    """

    def __init__(
        self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float, pattern: Pattern
    ) -> None:
        call = _Call(q, k, v, Tables(bias, None, None), scale, pattern)
        self._library, self._axes, self._problem = call.library, call.axes, call.problem
        number = self._library.laid_out_numbers(ctypes.byref(self._problem))
        self._bias = torch.empty(number)
        address = ctypes.c_void_p(self._bias.data_ptr())
        self._library.lay_out_bias(ctypes.byref(self._problem), address)
        self._problem.bias, self._problem.laid_out = _Table(), address

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Output (N, heads, H', W', d_v), of which the heads of a pixel lie side by side.

        Raises:
            MemoryError: No memory for the working space.
        """
        n, heads, height, width, _ = q.shape
        out = q.new_empty(n, height, width, heads, v.shape[-1]).permute(0, 3, 1, 2, 4)
        problem = _Problem.from_buffer_copy(self._problem)  # each thread has its own
        problem.images = n
        problem.q, problem.k, problem.v = _map(q), _map(k), _map(v)
        _run(self._library, 'forward', problem, _target(out))
        return out


def _map(x: Tensor) -> _Map:
    return _Map(x.data_ptr(), *x.stride())


def _target(x: Tensor) -> _Target:
    return _Target(x.data_ptr(), *x.stride()[:4])


def _run(library: ctypes.CDLL, name: str, problem: _Problem, target: ctypes.Structure) -> None:
    """Call the kernel's function of that name."""
    native.call(library, name, 'local_attention', ctypes.byref(problem), ctypes.byref(target))


class _AxisTables:
    """Tables of an axis as the kernel reads them."""

    def __init__(self, tiles: Tiles) -> None:
        counts = (tiles.queries.reshape(tiles.number, -1) >= 0).sum(1)
        kinds = list(zip(tiles.types, counts.tolist(), strict=True))
        types = list(dict.fromkeys(kinds))
        first = [tile for tile, _ in types]
        seen = np.asarray(tiles.valid[first].any(1))
        self.arrays = [
            np.ascontiguousarray(x, dtype=np.int64)
            for x in (
                tiles.queries,
                tiles.axis.source,
                tiles.start,
                [types.index(kind) for kind in kinds],
                [tiles.base[tile] for tile in first],
                [count for _, count in types],
                seen.argmax(1),
                tiles.reach - seen[:, ::-1].argmax(1),
            )
        ]
        self.valid = np.ascontiguousarray(tiles.valid[first], dtype=np.uint8)
        self.tiles, self.types = tiles, len(types)
        self.structure = _Axis(
            *(tiles.number, tiles.size, tiles.reach, len(tiles.axis.source), tiles.step),
            self.types,
            *(x.ctypes.data for x in self.arrays),
            self.valid.ctypes.data,
            tiles.all_valid,
        )

    def apart(self, band: int) -> bool:
        """Whether bands of so many tiles share keys with the next ones only."""
        tiles, source = self.tiles, self.tiles.axis.source
        keys = source[source >= 0]
        if len(np.unique(keys)) < len(keys):  # mirrored: a key has several positions
            return False
        bands = range(0, tiles.number - 2 * band, band)
        return all(
            tiles.start[i + band - 1] + tiles.reach <= tiles.start[i + 2 * band] for i in bands
        )


@functools.lru_cache(maxsize=256)
def _axes(pattern: Pattern, height: int, width: int, lanes: int) -> tuple[_AxisTables, _AxisTables]:
    rows, columns = tiling(pattern, _tile(pattern, height, width, lanes), height, width)
    return _AxisTables(rows), _AxisTables(columns)


def _tile(pattern: Pattern, height: int, width: int, lanes: int) -> tuple[int, int]:
    """Rows and columns of queries of a tile.

    Queries of windows see most keys in common in tiles that are nearly square, of one vector; all
    others see the same ones in a tile as large as the pattern allows.
    """
    if pattern.type == PatternType.WINDOW:
        rows = 2 ** (int(math.log2(lanes)) // 2)
        return rows, lanes // rows
    if pattern.type == PatternType.WHOLE:
        return pattern.queries(height, width)
    rows, columns = pattern.rows, pattern.columns
    return rows.size // rows.stride, columns.size // columns.stride
