"""Maps cut into windows, and back."""

import torch.nn.functional as F
from torch import Tensor


def cut_windows(x: Tensor, window: int) -> Tensor:
    """Cut maps into windows side by side; zeros fill up the last ones.

    Args:
        x: (N, H, W, C).
        window: Pixels w of a window on each side.

    Returns:
        (N * ceil(H / w) * ceil(W / w), w, w, C), contiguous.
    """
    height, width = x.shape[1:3]
    x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
    x = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return x.transpose(2, 3).flatten(0, 2)


def join_windows(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The reverse of :func:`cut_windows`, without what filled up.

    Args:
        x: (N * windows, w, w, C).
        size: Rows and columns (H, W) of the maps.
    """
    window = x.shape[1]
    rows, columns = (-(-side // window) for side in size)
    x = x.unflatten(0, (-1, rows, columns)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return x[:, : size[0], : size[1]]
