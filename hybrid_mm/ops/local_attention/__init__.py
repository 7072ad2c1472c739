"""Attention over moving windows, blocks, grids and whole maps: one engine, five patterns.

What all functions share
------------------------

==========  ========================================================================================
``q``       queries, (N, heads, ceil(H / stride), ceil(W / stride), d)
``k``       keys, (N, heads, H, W, d)
``v``       values, (N, heads, H, W, d_v)
``stride``  distance of the queries in pixels: query (i, j) sits on key (i * s, j * s)
``scale``   factor of q.k, by default d^-0.5
``bias``    numbers that are added to the logits, (heads or 1, rows, columns), by offset
``rel_h``   vectors per row offset whose product with the query is added, (heads or 1, rows, d)
``rel_w``   vectors per column offset, (heads or 1, columns, d)
``impl``    the algorithm, see below
==========  ========================================================================================

Maps may have any strides: a view of a convolution's NCHW output is fine. The result is
(N, heads, ceil(H / stride), ceil(W / stride), d_v). The logit of a query and a key is
``scale * q.k + bias[offset] + q.rel_h[row offset] + q.rel_w[column offset]``, offsets being key
minus query. The middle entry of a table belongs to offset 0, so that lengths are odd; tables may be
longer than a pattern needs. Wrong shapes, an unknown ``impl`` and arguments that do not fit
together are a ValueError.

Algorithms: ``'tiled'`` keeps q, k, v and the tables for the backward pass and nothing else;
``'measured'`` takes the fastest tile size (and the gather, where the map is tiny), measured once
per shape, see ``hybrid_mm.ops.autotune``; ``'reference'`` gathers the keys of every query, which
is the definition; ``'triton'`` are kernels for GPUs, which also keep the result and a number per
query and head. ``'auto'`` takes these where there is a GPU for them and heads are not too wide,
else 'tiled'; on a CPU, :func:`global_attention` of maps of up to 14 x 14 pixels keeps the weights.
:func:`partition_attention` also has ``'windows'``, all windows in one product; on a
CPU its 'auto' chooses by size, and its 'reference' and exported form are the published formulation
of windows. The other functions have tiles of their own in exported graphs, see ``exported.py``.
"""

import functools
from collections.abc import Callable, Sequence

from torch import SymInt, Tensor

from hybrid_mm.ops.autotune import choose, describe
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.dispatch import resolve
from hybrid_mm.ops.export import exporting, has_symbols, numbers
from hybrid_mm.ops.local_attention import (
    exported,
    fused,
    launches,
    reference,
    tiled,
    whole,
    windows,
)
from hybrid_mm.ops.local_attention.axes import BORDERS, Border
from hybrid_mm.ops.local_attention.pattern import AxisPattern, Pattern, PatternType, Tables
from hybrid_mm.ops.precision import cast_as_autocast

__all__ = ['block_attention', 'global_attention', 'local_attention', 'partition_attention']

_GATHER_LIMIT = 2**22  # elements of the gathered keys, above which 'measured' does not try them


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | Sequence[int],
    *,
    dilation: int | Sequence[int] = 1,
    stride: int | Sequence[int] = 1,
    border: Border = 'shift',
    scale: float | None = None,
    bias: Tensor | None = None,
    rel_h: Tensor | None = None,
    rel_w: Tensor | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Attention of every pixel to the window around it; for the other arguments see the module.

    Offsets of the tables count in steps of the dilation; tables have 2 * window - 1 entries per
    axis, for borders other than 'shift' ``window`` are enough.

    Args:
        q: Queries, (N, heads, ceil(H / stride), ceil(W / stride), d).
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        window: Taps of the window, odd, or (rows, columns).
        dilation: Distance of the taps in pixels.
        stride: Distance of the queries in pixels, or (rows, columns).
        border: 'shift' moves windows inwards at the border, so that a query always sees window^2
            keys (neighborhood attention, arXiv 2204.07143; where a map has fewer, all of them);
            'zero' surrounds the map by keys and values of zero that contribute to the softmax
            (arXiv 1906.05909); 'mask' leaves them out; 'reflect' mirrors the map without repeating
            its edge (arXiv 2111.14556), again and again where it is smaller than the window.
        scale: Factor of q.k; d^-0.5 by default.
        bias: Numbers added to the logits by offset, (heads or 1, rows, columns), or None.
        rel_h: Vectors per row offset, (heads or 1, rows, d); their product with the query is added
            to the logits. None for no such term.
        rel_w: The same per column offset, (heads or 1, columns, d).
        impl: Algorithm: 'auto', 'tiled', 'measured', 'triton' or 'reference', see the module.

    Raises:
        ValueError: Even window, unknown border.
    """
    sizes, dilations, strides = (
        _pair(x, n) for x, n in ((window, 'window'), (dilation, 'dilation'), (stride, 'stride'))
    )
    if any(size % 2 == 0 for size in sizes):
        raise ValueError(f'window must be odd, got {sizes}: an even window has no middle')
    if border not in BORDERS:
        raise ValueError(f'border must be one of {", ".join(BORDERS)}, got {border!r}')
    rows, columns = (
        AxisPattern(size, step, distance, border=border)
        for size, step, distance in zip(sizes, strides, dilations, strict=True)
    )
    pattern = Pattern(PatternType.WINDOW, rows, columns)
    return _attend(q, k, v, pattern, Tables(bias, rel_h, rel_w), scale, impl)


def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    block: int,
    halo: int,
    *,
    stride: int = 1,
    border: Border = 'zero',
    scale: float | None = None,
    rel_h: Tensor | None = None,
    rel_w: Tensor | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Attention of the pixels of a block to the block and the halo around it (arXiv 2103.12731).

    Tables have 2 * w - 1 entries with w = block + 2 * halo: the logit of query row i of the block
    and key row j of the window gets q.rel_h[j - i + w - 1]. i counts queries, whatever the stride.
    For the other arguments see the module.

    Args:
        q: Queries, (N, heads, ceil(H / stride), ceil(W / stride), d).
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        block: Pixels of a block on each side, from the upper left corner; the last ones may reach
            over the border. The stride divides it.
        halo: Pixels around it that it sees.
        stride: Distance of the queries in pixels.
        border: 'zero' or 'mask', as in :func:`local_attention`.
        scale: Factor of q.k; d^-0.5 by default.
        rel_h: Vectors per row offset, (heads or 1, rows, d); their product with the query is added
            to the logits. None for no such term.
        rel_w: The same per column offset, (heads or 1, columns, d).
        impl: Algorithm: 'auto', 'tiled', 'measured', 'triton' or 'reference', see the module.

    Raises:
        ValueError: Stride that does not divide the block, unknown border.
    """
    if block < 1 or halo < 0 or stride < 1 or block % stride:
        raise ValueError(
            f'block must be a positive multiple of stride and halo at least 0, got block {block}, '
            f'stride {stride}, halo {halo}'
        )
    if border not in ('zero', 'mask'):
        raise ValueError(f"border of a block must be 'zero' or 'mask', got {border!r}")
    axis = AxisPattern(block, stride, halo=halo, border=border)
    pattern = Pattern(PatternType.BLOCK, axis, axis)
    return _attend(q, k, v, pattern, Tables(None, rel_h, rel_w), scale, impl)


def global_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    stride: int | Sequence[int] = 1,
    scale: float | None = None,
    bias: Tensor | None = None,
    rel_h: Tensor | None = None,
    rel_w: Tensor | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Attention of every pixel to all, with 2-D relative logits (arXiv 1904.09925, 2101.11605).

    Tables have 2 * H - 1 and 2 * W - 1 entries; a bias as in arXiv 2106.04803. For the arguments
    see the module.

    Args:
        q: Queries, (N, heads, ceil(H / stride), ceil(W / stride), d).
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        stride: Distance of the queries in pixels, or (rows, columns).
        scale: Factor of q.k; d^-0.5 by default.
        bias: Numbers added to the logits by offset, (heads or 1, rows, columns), or None.
        rel_h: Vectors per row offset, (heads or 1, rows, d); their product with the query is added
            to the logits. None for no such term.
        rel_w: The same per column offset, (heads or 1, columns, d).
        impl: Algorithm: 'auto', 'tiled', 'measured', 'triton' or 'reference', see the module.
    """
    pattern = global_pattern(stride)
    return _attend(q, k, v, pattern, Tables(bias, rel_h, rel_w), scale, impl)


def global_pattern(stride: int | Sequence[int] = 1) -> Pattern:
    """The pattern of :func:`global_attention`."""
    rows, columns = (AxisPattern(stride=step) for step in _pair(stride, 'stride'))
    return Pattern(PatternType.WHOLE, rows, columns)


def partition_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | Sequence[int],
    *,
    shift: int = 0,
    grid: bool = False,
    scale: float | None = None,
    bias: Tensor | None = None,
    impl: str = 'auto',
    dropout: float = 0.0,
) -> Tensor:
    """Attention within windows side by side, as in Swin (arXiv 2103.14030), or within grids.

    The bias has 2 * rows - 1 and 2 * columns - 1 entries; offsets of a grid count in its steps. For
    the other arguments see the module.

    On a CPU with a C compiler 'auto' takes 'tiled'. Without, it takes 'windows' on maps of up to
    8192 pixels for windows of up to 14 x 14, and for larger ones if nothing is differentiated and
    the map has more than four windows.

    Args:
        q: Queries, (N, heads, H, W, d).
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        window: Pixels of a window on each side, or (rows, columns); the last ones may be smaller.
        shift: By how much the map was rolled towards its upper left corner on both axes; the pixels
            that came round do not see their new neighbours (Swin's mask).
        grid: The pixels of a window do not lie side by side but ceil(side of the map / side of the
            window) apart, spread over the map (MaxViT, arXiv 2204.01697).
        scale: Factor of q.k; d^-0.5 by default.
        bias: Numbers added to the logits by offset, (heads or 1, rows, columns), or None.
        impl: Algorithm: 'auto', 'windows', 'tiled', 'measured', 'triton' or 'reference', see the
            module.
        dropout: Rate at which attention weights are dropped. Above 0 the algorithm is 'windows',
            whatever ``impl``, or 'reference': tiles keep no weights to drop.

    Raises:
        ValueError: A shift outside 0..window - 1 or of a grid.
    """
    sides = _pair(window, 'window')
    if has_symbols(k.shape[2:4]):
        scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
        return windows.of_symbols(q, k, v, bias, scale, sides, shift, grid)
    if not 0 <= shift < min(sides) or (shift and grid):
        raise ValueError(
            f'shift must lie in 0..window - 1, got shift {shift} of {sides}'
            + ' and a grid, which has none' * grid
        )
    rows, columns = (AxisPattern(side, shift=shift) for side in sides)
    pattern = Pattern(PatternType.GRID if grid else PatternType.PARTITION, rows, columns)
    return _attend(q, k, v, pattern, Tables(bias), scale, impl, dropout)


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    pair = numbers(value if isinstance(value, Sequence) else (value, value))
    if len(pair) != 2 or not all(isinstance(x, int | SymInt) and x >= 1 for x in pair):
        raise ValueError(f'{name} must be a positive integer or two of them, got {value!r}')
    return pair


def _check_maps(q: Tensor, k: Tensor, v: Tensor, pattern: Pattern) -> None:
    if not (q.ndim == k.ndim == v.ndim == 5):
        raise ValueError(
            'q, k and v must be (N, heads, H, W, d), '
            f'got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}'
        )
    n, heads, height, width, d = k.shape
    expected = (n, heads, *pattern.queries(height, width), d)
    if tuple(q.shape) != expected or v.shape[:4] != k.shape[:4]:
        raise ValueError(
            f'k of {tuple(k.shape)} and stride {pattern.rows.stride, pattern.columns.stride} need '
            f'q of {expected} and v of {tuple(k.shape[:4])} + (any,), '
            f'got {tuple(q.shape)} and {tuple(v.shape)}'
        )


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    tables: Tables,
    scale: float | None,
    impl: str,
    dropout: float = 0.0,
) -> Tensor:
    """Check the arguments, choose an algorithm and run it."""
    size = numbers(k.shape[2:4])
    separate = pattern.type in (PatternType.PARTITION, PatternType.GRID)
    if not has_symbols(size):  # to compare symbols would tie the graph to the size that is traced
        _check_maps(q, k, v, pattern)
        tables.check(k.shape[1], k.shape[4], pattern.shortest_tables(*size))
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    q, k, v = cast_as_autocast(q, k, v)
    if separate:
        pattern = pattern.on_map(*size)
        impl = resolve(impl, 'partition_attention', lambda: _fastest(q, k, v, tables, pattern))
        if impl in ('windows', 'reference') or dropout:
            by_torch = impl != 'reference'
            return windows.forward(q, k, v, tables.bias, scale, pattern, dropout, by_torch)
    else:
        impl = resolve(impl, 'local_attention', lambda: _fastest(q, k, v, tables, pattern))
        if exporting():
            return exported.forward(q, k, v, tables, scale, pattern)
        if impl == 'reference':
            return reference.forward(q, k, v, tables, scale, pattern)
        if impl == 'whole':
            return whole.forward(q, k, v, tables, scale)
    if impl == 'triton':
        operator = 'partition_attention' if separate else 'local_attention'
        launches.check_available(operator, q, k, v, *tables)
        return launches.attention(q, k, v, *tables, scale, pattern.to_ints())[0]
    if impl == 'measured':
        return _measured(q, k, v, pattern, tables, scale, separate)
    return _tiled(q, k, v, *tables, scale, pattern.to_ints(), list(pattern.tile_sizes(*size)[0]))


def _fastest(q: Tensor, k: Tensor, v: Tensor, tables: Tables, pattern: Pattern) -> str:
    """What 'auto' takes: kernels where there are any; 'whole' has no name for users."""
    if launches.available(q, k, v, *tables):
        return 'triton'
    compiled = fused.is_available(q)
    if whole.is_faster(q, pattern, compiled):
        return 'whole'
    separate = pattern.type in (PatternType.PARTITION, PatternType.GRID)
    return windows.fastest(q, pattern) if separate and not compiled else 'tiled'


def _measured(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    pattern: Pattern,
    tables: Tables,
    scale: float,
    separate: bool,
) -> Tensor:
    """The fastest algorithm and tile size for these shapes."""
    tiles = pattern.tile_sizes(*k.shape[2:4])
    if fused.is_available(q) and pattern.type != PatternType.WHOLE:  # which has tiles of its own
        tiles = tiles[:1]
    candidates: dict[str, Callable[..., Tensor]] = {
        f'tiled {number}': functools.partial(
            _tiled, scale=scale, pattern=pattern.to_ints(), tile=list(tile)
        )
        for number, tile in enumerate(tiles)
    }
    taps = pattern.rows.size * pattern.columns.size
    if separate:
        candidates['windows'] = lambda q, k, v, bias, *_: windows.forward(
            q, k, v, bias, scale, pattern
        )
    elif pattern.type == PatternType.WINDOW and q.numel() * taps <= _GATHER_LIMIT:
        candidates['reference'] = lambda q, k, v, *tables: reference.forward(
            q, k, v, Tables(*tables), scale, pattern
        )
    inputs = (q, k, v, *tables)
    key = (*pattern.to_ints(), describe(*inputs))
    return candidates[choose('tiled_attention', key, candidates, inputs)](*inputs)


def _empty(q: Tensor, k: Tensor, v: Tensor, *_: object) -> Tensor:
    """Shape of the result of :func:`_tiled`."""
    return q.new_empty(*q.shape[:4], v.shape[-1])


def _tiled_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    scale: float,
    pattern: list[int],
    tile: list[int],
) -> list[Tensor]:
    """Gradients of q, k, v and of the tables that are given."""
    tables, which = Tables(bias, rel_h, rel_w), Pattern.from_ints(pattern)
    if fused.fits(q, k, tables, which):
        *grads, table_grads = fused.backward(grad, q, k, v, tables, scale, which)
    else:
        rows, columns = tile
        *grads, table_grads = tiled.backward(grad, q, k, v, tables, scale, which, (rows, columns))
    pairs = zip(table_grads, tables, strict=True)
    given = [dx.to(x.dtype) for dx, x in pairs if dx is not None and x is not None]
    return [*grads, *(dx.contiguous() for dx in given)]


@custom_op('hybrid_mm::tiled_attention', fake=_empty, backward=_tiled_backward)
def _tiled(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    scale: float,
    pattern: list[int],
    tile: list[int],
) -> Tensor:
    """Attention in tiles of ``tile`` rows and columns of queries; pattern as flat integers."""
    tables, which = Tables(bias, rel_h, rel_w), Pattern.from_ints(pattern)
    if fused.fits(q, k, tables, which):
        return fused.forward(q, k, v, tables, scale, which)
    rows, columns = tile
    return tiled.forward(q, k, v, tables, scale, which, (rows, columns))
