"""Feature maps (N, C, h, w) in what a network returns: of a pyramid, tokens, dicts, class tokens.

Backbones of OpenMMLab, timm and Transformers return a tensor, a tuple, a dict, or these in each
other; maps are (N, C, h, w) or (N, h, w, C), or tokens: (N, h w, C), perhaps behind class tokens,
or (N, C, h w).
"""

import inspect
from collections.abc import Mapping

from torch import Tensor, nn

_EXTRA_TOKENS = 8  # at most: class, distillation and register tokens before those of the image


def run_network(module: nn.Module, images: Tensor) -> object:
    """Forward pass on colour images (N, 3, H, W).

    Networks of masked image modelling get no mask, those of grey images the mean of the colours.
    """
    if input_channels(module) == 1:
        images = images.mean(1, keepdim=True)
    parameters = inspect.signature(module.forward).parameters
    return module(images, mask=None) if 'mask' in parameters else module(images)


def input_channels(module: nn.Module) -> int:
    """Channels of the images that a network takes: those of its first convolution, or 3.

    More than 6 are taken for those of pixels that the network stacks first, as YOLOX does.
    """
    convolutions = (child for child in module.modules() if isinstance(child, nn.Conv2d))
    first = next(convolutions, None)
    return 3 if first is None or first.in_channels > 6 else first.in_channels


def return_maps(module: nn.Module) -> None:
    """Make a network of MMPretrain return its last map where it returns a class token or mean."""
    if getattr(module, 'out_type', None) in ('cls_token', 'avg_featmap', 'raw'):
        module.out_type = 'featmap'  # type: ignore[assignment]
    if getattr(module, 'gap_before_final_norm', False):
        module.gap_before_final_norm = False  # type: ignore[assignment]


def maps_of(output: object, size: tuple[int, int]) -> list[Tensor]:
    """Find the maps in the output of a network, in its order.

    Args:
        output: What the network returned.
        size: Height and width of the images.

    Returns:
        Maps (N, C, h, w). Vectors (N, C) are left out if there are maps, else they are maps of one
        pixel.
    """
    tensors = [tensor for tensor in tensors_of(output) if tensor.is_floating_point()]
    maps = [found for tensor in tensors if (found := _as_map(tensor, size)) is not None]
    return maps or [tensor[..., None, None] for tensor in tensors if tensor.ndim == 2]


def tensors_of(output: object) -> list[Tensor]:
    """All tensors in tuples, lists and dicts of them, in their order."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, Mapping):
        return tensors_of(list(output.values()))
    if isinstance(output, list | tuple):
        return [tensor for item in output for tensor in tensors_of(item)]
    return []


def _as_map(tensor: Tensor, size: tuple[int, int]) -> Tensor | None:
    """View of a tensor as a map (N, C, h, w); None if it is none."""
    if tensor.ndim == 4:
        last = not _has_stride(tensor.shape[2:], size) and _has_stride(tensor.shape[1:3], size)
        return tensor.permute(0, 3, 1, 2) if last else tensor
    if tensor.ndim != 3:
        return None
    for tokens, most in ((tensor, 0), (tensor.transpose(1, 2), 0), (tensor, _EXTRA_TOKENS)):
        for extra in range(most + 1):
            grid = _grid(tokens.shape[1] - extra, size)
            if grid:
                return tokens[:, extra:].transpose(1, 2).unflatten(2, grid)
    return None


def _has_stride(grid: tuple[int, ...], size: tuple[int, int]) -> bool:
    """Whether one stride makes this map of images of that size, rounded up or down."""
    low = max(n / (m + 1) for m, n in zip(grid, size, strict=True))
    high = min(n / max(m - 1, 0.5) for m, n in zip(grid, size, strict=True))
    return low < high


def _grid(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of a number of tokens of images of that size."""
    grids = [(rows, tokens // rows) for rows in range(1, tokens + 1) if tokens % rows == 0]
    grids = [grid for grid in grids if _has_stride(grid, size)]
    aspect = size[0] / size[1]
    return min(grids, key=lambda grid: abs(grid[0] / grid[1] - aspect), default=None)


def own_sizes(module: nn.Module) -> list[tuple[int, int]]:
    """Sizes of images that a network says it was made for."""
    found = []
    for child in module.modules():
        settings = getattr(child, 'default_cfg', None)  # of timm
        values = [settings.get('input_size')] if isinstance(settings, Mapping) else []
        holders = child, getattr(child, 'config', None)  # the latter of Transformers
        names = 'img_size', 'image_size', 'input_size'
        values += [getattr(holder, name, None) for holder in holders for name in names]
        for value in values:
            size = (value, value) if isinstance(value, int) else value
            if not isinstance(size, list | tuple) or not all(isinstance(n, int) for n in size):
                continue
            if len(size) >= 2 and min(size[-2:]) >= 16:
                found.append((size[-2], size[-1]))
    return list(dict.fromkeys(found))


def sizes_to_try(module: nn.Module, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes that a network may take that refuses one, the likeliest first.

    Those it was made for, then multiples of 32 to 224 (a window of 7 at a stride of 32) near to the
    one that it refuses, then usual sizes of classifiers.
    """
    near = []
    for unit in (32, 64, 128, 224, 256):
        near.append(tuple(max(unit, n // unit * unit) for n in size))
        near.append(tuple(-(-n // unit) * unit for n in size))
    near.sort(key=lambda found: abs(found[0] * found[1] - size[0] * size[1]))
    usual = [(n, n) for n in (224, 256, 384, 32)]
    tried = dict.fromkeys([*own_sizes(module)[:3], *near[:4], *usual])
    tried.pop(size, None)
    return list(tried)
