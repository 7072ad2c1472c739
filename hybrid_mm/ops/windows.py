"""Cut maps into windows or grids, and put them together again."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hybrid_mm.ops.export import ceil_div, has_symbols

__all__ = ['cut_windows', 'join_windows', 'missing', 'roll', 'window_view']


def missing(length: int, step: int) -> int:
    """What a length lacks of a multiple of a step.

    Not ``-length % step``: symbolic lengths with nested remainders take minutes to trace.

    Args:
        length: Pixels, at least 1.
        step: Pixels of a window.
    """
    return ceil_div(length, step) * step - length


def roll(x: Tensor, shift: int) -> Tensor:
    """Roll maps (N, H, W, ...) down and to the right, by the same number of pixels.

    Args:
        x: The maps.
        shift: Pixels; negative towards the upper left corner. May be symbolic.
    """
    if not has_symbols(x.shape[1:3]):
        return x.roll((shift, shift), (1, 2)) if shift else x
    for dim in (1, 2):
        place = torch.arange(x.shape[dim], device=x.device)
        x = x.index_select(dim, (place - shift) % (place[-1] + 1))
    return x


def window_view(x: Tensor, window: int | tuple[int, int], grid: bool = False) -> Tensor:
    """View maps as windows, zero-padded at the right and bottom where they do not fit.

    Args:
        x: (N, H, W, ...).
        window: Pixels of a window on each side, or (rows P, columns Q).
        grid: The pixels of a window do not lie side by side, but as far apart as there are windows
            on an axis, spread over the map (MaxViT, arXiv 2204.01697).

    Returns:
        (N, ceil(H / P), ceil(W / Q), P, Q, ...).
    """
    rows, columns = (window, window) if isinstance(window, int) else window
    height, width = x.shape[1:3]
    if has_symbols((height, width)) or height % rows or width % columns:
        x = F.pad(x, (0, 0) * (x.ndim - 3) + (0, missing(width, columns), 0, missing(height, rows)))
    if grid:
        x = x.unflatten(2, (columns, -1)).unflatten(1, (rows, -1))
        return x.movedim((2, 4), (1, 2))
    return x.unflatten(2, (-1, columns)).unflatten(1, (-1, rows)).transpose(2, 3)


def cut_windows(x: Tensor, window: int | tuple[int, int], grid: bool = False) -> Tensor:
    """Cut maps into windows as :func:`window_view`.

    Args:
        x: Maps, (N, H, W, ...).
        window: Pixels of a window on each side, or (rows, columns) (P, Q).
        grid: Whether the pixels of a window are spread over the map, as in MaxViT.

    Returns:
        (N * ceil(H / P) * ceil(W / Q), P, Q, ...).
    """
    return window_view(x, window, grid).flatten(0, 2)


def join_windows(x: Tensor, size: Sequence[int], grid: bool = False) -> Tensor:
    """Invert :func:`cut_windows`, without its padding.

    Args:
        x: (N * windows, P, Q, ...).
        size: Rows and columns (H, W) of the maps.
        grid: As it was cut.

    Returns:
        (N, H, W, ...).
    """
    rows, columns = (ceil_div(n, own) for n, own in zip(size, x.shape[1:3], strict=True))
    x = x.unflatten(0, (-1, rows, columns))
    x = x.movedim((3, 4), (1, 3)) if grid else x.transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)[:, : size[0], : size[1]]
