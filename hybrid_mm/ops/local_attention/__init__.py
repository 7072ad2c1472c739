"""Attention over moving windows, blocks, grids and whole maps: one engine, five patterns.

Every function takes maps (N, heads, H, W, d) with any strides (a view of a convolution's NCHW
output is fine) and returns (N, heads, H', W', d_v). ``impl='tiled'`` keeps q, k, v and the tables
for the backward pass and nothing else; ``'measured'`` takes the fastest tile size (and the gather,
where the map is tiny), measured once per shape, see :mod:`hybrid_mm.ops.autotune`;
``'reference'`` gathers the keys of every query, which is the definition, the oracle of the tests
and what is exported to ONNX. ``'auto'`` is 'tiled'.
"""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hybrid_mm.ops.autotune import choose, describe
from hybrid_mm.ops.custom_op import custom_op
from hybrid_mm.ops.dispatch import chosen_impl
from hybrid_mm.ops.export import exporting, require_fixed_size
from hybrid_mm.ops.local_attention import reference, tiled
from hybrid_mm.ops.local_attention.axes import BORDERS
from hybrid_mm.ops.local_attention.tiles import AXES, BLOCK, GRID, PARTITION, WHOLE, WINDOW

_GATHER_LIMIT = 2**22  # elements of the gathered keys, above which 'measured' does not try them


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | Sequence[int],
    *,
    dilation: int | Sequence[int] = 1,
    stride: int | Sequence[int] = 1,
    border: str = 'shift',
    scale: float | None = None,
    bias: Tensor | None = None,
    rel_h: Tensor | None = None,
    rel_w: Tensor | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Attention of every pixel to the window around it.

    The logit of a query and a key is ``scale * q.k + bias[offset] + q.rel_h[row offset] +
    q.rel_w[column offset]``, offsets being key minus query in steps of the dilation; tables are
    centred, their middle entry belongs to offset 0.

    Args:
        q: Queries, (N, heads, ceil(H / stride), ceil(W / stride), d).
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        window: Taps of the window, odd, or (rows, columns).
        dilation: Distance of the taps in pixels.
        stride: Distance of the queries in pixels: query (i, j) sits on key (i * s, j * s).
        border: 'shift' moves windows inwards at the border, so that a query always sees window^2
            keys (neighborhood attention, arXiv 2204.07143; where a map has fewer, all of them);
            'zero' surrounds the map by keys and values of zero that take part in the softmax
            (arXiv 1906.05909); 'mask' leaves them out; 'reflect' mirrors the map without repeating
            its edge (arXiv 2111.14556), again and again where it is smaller than the window.
        scale: Factor of q.k, by default d^-0.5.
        bias: (heads or 1, L, L) with L = 2 * window - 1; for borders other than 'shift' L = window
            is enough.
        rel_h: Row table, (heads or 1, L, d), L as for ``bias``.
        rel_w: Column table, likewise.
        impl: See above.

    Returns:
        (N, heads, ceil(H / stride), ceil(W / stride), d_v).

    Raises:
        ValueError: Even window, unknown border or impl, shapes that do not fit.
    """
    window, dilation, stride = (
        _pair(x, n) for x, n in ((window, 'window'), (dilation, 'dilation'), (stride, 'stride'))
    )
    if any(w % 2 == 0 for w in window):
        raise ValueError(f'window must be odd, got {window}: an even window has no middle')
    if border not in BORDERS:
        raise ValueError(f'border must be one of {", ".join(BORDERS)}, got {border!r}')
    shortest = [2 * w - 1 if border == 'shift' else w for w in window]
    code = BORDERS.index(border)
    axes = [(window[i], dilation[i], stride[i], code) for i in (0, 1)]
    return _attend(q, k, v, WINDOW, axes, stride, shortest, scale, bias, rel_h, rel_w, impl)


def block_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    block: int,
    halo: int,
    *,
    stride: int = 1,
    border: str = 'zero',
    scale: float | None = None,
    rel_h: Tensor | None = None,
    rel_w: Tensor | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Attention of the pixels of a block to the block and the halo around it (arXiv 2103.12731).

    Args:
        q: Queries, (N, heads, ceil(H / stride), ceil(W / stride), d).
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        block: Pixels of a block on each side, from the upper left corner; the last ones may reach
            over the border.
        halo: Pixels around it that it sees.
        stride: Distance of the queries; it must divide the block.
        border: 'zero' or 'mask', as in :func:`local_attention`.
        scale: Factor of q.k, by default d^-0.5.
        rel_h: Row table, (heads or 1, 2 * w - 1, d) with w = block + 2 * halo: the logit of query
            row i of the block and key row j of the window gets q.rel_h[j - i + w - 1].
        rel_w: Column table, likewise.
        impl: See above.

    Returns:
        (N, heads, ceil(H / stride), ceil(W / stride), d_v).

    Raises:
        ValueError: Stride that does not divide the block, unknown border or impl, wrong shapes.
    """
    if block < 1 or halo < 0 or stride < 1 or block % stride:
        raise ValueError(
            f'block must be a positive multiple of stride and halo at least 0, got block {block}, '
            f'stride {stride}, halo {halo}'
        )
    if border not in ('zero', 'mask'):
        raise ValueError(f"border of a block must be 'zero' or 'mask', got {border!r}")
    shortest = (2 * (block + 2 * halo) - 1,) * 2
    axes = [(block, halo, stride, BORDERS.index(border))] * 2
    return _attend(q, k, v, BLOCK, axes, (stride,) * 2, shortest, scale, None, rel_h, rel_w, impl)


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

    Args:
        q: Queries, (N, heads, ceil(H / stride), ceil(W / stride), d).
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        stride: Distance of the queries in pixels.
        scale: Factor of q.k, by default d^-0.5.
        bias: (heads or 1, 2 * H - 1, 2 * W - 1), by key minus query (arXiv 2106.04803); longer ones
            are taken about their middle.
        rel_h: Row table, (heads or 1, 2 * H - 1, d), by key row minus query row; longer ones are
            taken about their middle.
        rel_w: Column table, (heads or 1, 2 * W - 1, d).
        impl: See above.

    Returns:
        (N, heads, ceil(H / stride), ceil(W / stride), d_v).

    Raises:
        ValueError: Unknown impl or shapes that do not fit.
    """
    stride = _pair(stride, 'stride')
    shortest = [2 * s - 1 for s in k.shape[2:4]]
    axes = [(s,) for s in stride]
    return _attend(q, k, v, WHOLE, axes, stride, shortest, scale, bias, rel_h, rel_w, impl)


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
) -> Tensor:
    """Attention within windows side by side, as in Swin (arXiv 2103.14030), or within grids.

    Args:
        q: Queries, (N, heads, H, W, d).
        k: Keys, (N, heads, H, W, d).
        v: Values, (N, heads, H, W, d_v).
        window: Pixels of a window on each side, or (rows, columns); the last ones may be smaller.
        shift: By how much the map was rolled towards its upper left corner on both axes; the pixels
            that came round do not see their new neighbours (Swin's mask).
        grid: The pixels of a window do not lie side by side but ceil(side of the map / side of the
            window) apart, spread over the map (MaxViT, arXiv 2204.01697).
        scale: Factor of q.k, by default d^-0.5.
        bias: (heads or 1, 2 * rows - 1, 2 * columns - 1), by key minus query (in steps of a grid);
            its middle belongs to offset 0.
        impl: See above.

    Returns:
        (N, heads, H, W, d_v).

    Raises:
        ValueError: A shift outside 0..window - 1 or of a grid, unknown impl or shapes that do not
            fit.
    """
    window = _pair(window, 'window')
    if not 0 <= shift < min(window) or (shift and grid):
        raise ValueError(
            f'shift must lie in 0..window - 1, got shift {shift} of {window}'
            + ' and a grid, which has none' * grid
        )
    shortest = [2 * side - 1 for side in window]
    kind, axes = GRID, [(side,) for side in window]
    if not grid:
        sides = zip(window, k.shape[2:4], strict=True)
        kind, axes = PARTITION, [(side, min(shift, length)) for side, length in sides]
    return _attend(q, k, v, kind, axes, (1, 1), shortest, scale, bias, None, None, impl)


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or not all(isinstance(x, int) and x >= 1 for x in pair):
        raise ValueError(f'{name} must be a positive integer or two of them, got {value!r}')
    return pair


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    stride: Sequence[int],
    shortest: Sequence[int],
    bias: Tensor | None,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
) -> None:
    if not (q.ndim == k.ndim == v.ndim == 5):
        raise ValueError(
            'q, k and v must be (N, heads, H, W, d), '
            f'got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}'
        )
    n, heads, height, width, d = k.shape
    expected = (n, heads, math.ceil(height / stride[0]), math.ceil(width / stride[1]), d)
    if tuple(q.shape) != expected or v.shape[:4] != k.shape[:4]:
        raise ValueError(
            f'k of {tuple(k.shape)} and stride {tuple(stride)} want q of {expected} and v of '
            f'{tuple(k.shape[:4])} + (any,), got {tuple(q.shape)} and {tuple(v.shape)}'
        )
    tables = (
        ('bias', bias, (shortest[0], shortest[1])),
        ('rel_h', rel_h, (shortest[0], d)),
        ('rel_w', rel_w, (shortest[1], d)),
    )
    for name, table, shape in tables:
        if table is None:
            continue
        lengths = 2 if name == 'bias' else 1
        fits = (
            table.ndim == 3
            and table.shape[0] in (1, heads)
            and all(
                s >= want and s % 2 == 1
                for s, want in zip(table.shape[1 : 1 + lengths], shape, strict=False)
            )
            and (name == 'bias' or table.shape[2] == d)
        )
        if not fits:
            raise ValueError(
                f'{name} must be ({heads} or 1, {shape[0]}, {shape[1]}), or longer and odd about '
                f'its middle, got {tuple(table.shape)}'
            )


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kind: int,
    axes: Sequence[tuple],
    stride: Sequence[int],
    shortest: Sequence[int],
    scale: float | None,
    bias: Tensor | None,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    impl: str,
) -> Tensor:
    require_fixed_size(k.shape[2:4], 'local attention')
    _check(q, k, v, stride, shortest, bias, rel_h, rel_w)
    impl = chosen_impl(impl, 'local_attention')
    scale = q.shape[-1] ** -0.5 if scale is None else float(scale)
    # shapes alone, as complexity is counted, have no autocast
    if q.device.type != 'meta' and torch.is_autocast_enabled(q.device.type):
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = (x.to(dtype) if x.is_floating_point() else x for x in (q, k, v))
    inputs = (q, k, v, bias, rel_h, rel_w)

    def gather(*inputs: Tensor | None) -> Tensor:
        rows, columns = (AXES[kind](n, *axis) for n, axis in zip(k.shape[2:4], axes, strict=True))
        return reference.forward(*inputs, scale, rows, columns)

    if impl == 'reference' or exporting():
        return gather(*inputs)
    candidates = {
        f'tiled {tile[0]}x{tile[1]}': functools.partial(
            _tiled, scale=scale, spec=[kind, *tile, *axes[0], *axes[1]]
        )
        for tile in _tiles(kind, axes, k.shape[2:4])
    }
    chosen = next(iter(candidates))
    if impl == 'measured':
        if q.numel() * math.prod(s[0] for s in axes if s) <= _GATHER_LIMIT and kind == WINDOW:
            candidates['reference'] = gather
        key = (kind, axes, describe(*inputs))
        chosen = choose('tiled_attention', key, candidates, inputs)
    return candidates[chosen](*inputs)


def _tiles(kind: int, axes: Sequence[tuple], size: Sequence[int]) -> list[tuple[int, int]]:
    """Queries of a tile, by rows and columns; the default first."""
    if kind == WHOLE:
        width = -(-size[1] // axes[1][0])
        return list(dict.fromkeys((max(1, n // width), width) for n in (128, 64, 256)))
    if kind == BLOCK:
        side = axes[0][0] // axes[0][2]
        return list(dict.fromkeys((max(1, min(side, n // side)), side) for n in (256, 64)))
    if kind in (PARTITION, GRID):
        return [(axes[0][0], axes[1][0])]
    default = tuple(
        _even(-(-n // (axis[1] * axis[2])), side, axis[0])
        for n, axis, side in zip(size, axes, (4, 8), strict=True)
    )
    return list(dict.fromkeys([default, (4, 8), (7, 7), (2, 16), (8, 16)]))


def _even(length: int, side: int, window: int) -> int:
    """Queries of a tile on an axis: ``side``, or what cuts a short stretch into even parts.

    Residue classes of dilated windows are short. A tile of side + window / 2 costs less than two
    of which one is nearly empty, whose keys are those of nearly the whole stretch.
    """
    if length >= 4 * side:
        return side
    return -(-length // -(-length // (side + window // 2)))


@custom_op('hybrid_mm::tiled_attention')
def _tiled(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    scale: float,
    spec: list[int],
) -> Tensor:
    with torch.autocast(q.device.type, enabled=False):
        return tiled.forward(q, k, v, bias, rel_h, rel_w, scale, tuple(spec))


@_tiled.register_fake
def _(q, k, v, bias, rel_h, rel_w, scale, spec):
    return q.new_empty(*q.shape[:4], v.shape[-1])


@custom_op('hybrid_mm::tiled_attention_backward')
def _tiled_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    rel_h: Tensor | None,
    rel_w: Tensor | None,
    scale: float,
    spec: list[int],
) -> list[Tensor]:
    with torch.autocast(q.device.type, enabled=False):
        return tiled.backward(grad, q, k, v, bias, rel_h, rel_w, scale, tuple(spec))


@_tiled_backward.register_fake
def _(grad, q, k, v, bias, rel_h, rel_w, scale, spec):
    tables = [t.new_empty(t.shape) for t in (bias, rel_h, rel_w) if t is not None]
    return [*(x.new_empty(x.shape) for x in (q, k, v)), *tables]


def _setup_context(ctx, inputs, output) -> None:
    *tensors, ctx.scale, ctx.spec = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx, grad):
    tensors = ctx.saved_tensors
    grads = iter(_tiled_backward(grad, *tensors, ctx.scale, ctx.spec))
    return *(None if x is None else next(grads) for x in tensors), None, None


_tiled.register_autograd(_differentiate, setup_context=_setup_context)
