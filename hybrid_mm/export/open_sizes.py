"""What stands in for modules of torch and OpenMMLab that are exported for one size only."""

import contextlib
import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

__all__ = ['open_sizes']


@contextlib.contextmanager
def open_sizes(model: nn.Module) -> Iterator[None]:
    """Context in which modules of torch and OpenMMLab can be exported for any size of a map.

    - Adaptive pooling would be exported for one size.
    - ``int(size * 2.0)`` in MMSegmentation's ``Upsample`` would turn the size into a constant, and
      so would its warning of sizes that do not suit ``align_corners=True``.
    - MMDetection's pixel decoder of Mask2Former, and MMCV's deformable attention in it, compute
      with the sizes as tensors, which the tracer cannot follow.

    Args:
        model: Its modules are changed within the block; what they compute is not.
    """
    changed = []
    for module in model.modules():
        forward = _stand_in(module)
        if forward is not None:
            module.forward = functools.partial(forward, module)
            changed.append(module)
    try:
        with _no_warning_of_sizes(), _Pooling():
            yield
    finally:
        for module in changed:
            del module.forward


@contextlib.contextmanager
def _no_warning_of_sizes() -> Iterator[None]:
    """Context in which MMSegmentation's ``resize`` only compares sizes if it is asked to."""
    resize = getattr(sys.modules.get('mmseg.models.utils'), 'resize', None)
    if resize is None:
        yield
        return
    before, parameters = resize.__defaults__, inspect.signature(resize).parameters.values()
    named = [item.name for item in parameters if item.default is not item.empty]
    # the heads import the function by name, so it is changed where all of them see it
    resize.__defaults__ = tuple(
        False if name == 'warning' else value for name, value in zip(named, before, strict=True)
    )
    try:
        yield
    finally:
        resize.__defaults__ = before


def _stand_in(module: Any) -> Callable[..., Any] | None:
    """The forward pass that replaces that of a module, if there is one."""
    kind = type(module).__name__
    if kind == 'Upsample' and module.size is None:
        factor = module.scale_factor
        return _upsample if isinstance(factor, float) and factor.is_integer() else None
    others: dict[str, Callable[..., Any]] = {
        'MSDeformAttnPixelDecoder': _decode_pixels,
        'MultiScaleDeformableAttention': _deformable_attention,
    }
    return others.get(kind)


class _Pooling(TorchFunctionMode):
    """Adaptive average pooling, of modules or by the function, is two matrix products."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not F.adaptive_avg_pool2d:
            return func(*args, **kwargs or {})
        return _pool(*args, **kwargs or {})


def _pool(input: Tensor, output_size: Any) -> Tensor:
    """What ``F.adaptive_avg_pool2d`` returns, whose arguments have these names."""
    sizes = [output_size] * 2 if isinstance(output_size, int) else output_size
    rows, columns = (
        length if size is None else size
        for size, length in zip(sizes, input.shape[-2:], strict=True)
    )
    over_rows = _average_pool(input.shape[-2], rows, input)
    return over_rows @ input @ _average_pool(input.shape[-1], columns, input).t()


def _average_pool(length: int, parts: int, like: Tensor) -> Tensor:
    """Matrix (parts, length) by which ``adaptive_avg_pool`` averages along an axis."""
    part = torch.arange(parts, device=like.device)[:, None]
    place = torch.arange(length, device=like.device)
    begin, end = part * length // parts, ((part + 1) * length + parts - 1) // parts
    inside = ((place >= begin) & (place < end)).to(like.dtype)
    return inside / inside.sum(1, keepdim=True)


def _upsample(module: Any, x: Tensor) -> Tensor:
    """The forward pass of MMSegmentation's ``Upsample``, with a whole factor."""
    size = [length * int(module.scale_factor) for length in x.shape[2:]]
    return F.interpolate(x, size, mode=module.mode, align_corners=module.align_corners)


def _decode_pixels(module: Any, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The forward pass of MMDetection's ``MSDeformAttnPixelDecoder``.

    Args:
        module: The decoder.
        maps: Maps of the backbone, each (N, C, h, w), from high to low resolution.

    Returns:
        Features of masks, (N, C, h, w), and the maps for the queries, from low resolution on.
    """
    inputs, encodings, points, shapes = [], [], [], []
    others = module.num_input_levels - module.num_encoder_levels
    for i in range(module.num_encoder_levels):
        x = maps[module.num_input_levels - 1 - i]
        height, width = x.shape[2:]
        free = x.new_zeros((x.shape[0], height, width), dtype=torch.bool)
        encoded = module.postional_encoding(free) + module.level_encoding.weight[i][:, None, None]
        inputs.append(module.input_convs[i](x).flatten(2).transpose(1, 2))
        encodings.append(encoded.flatten(2).transpose(1, 2))
        rows = ((torch.arange(height, device=x.device) + 0.5) / height)[:, None]
        columns = ((torch.arange(width, device=x.device) + 0.5) / width)[None]
        points.append(torch.stack(torch.broadcast_tensors(columns, rows), -1).flatten(0, 1))
        shapes.append((height, width))
    memory = module.encoder(
        query=torch.cat(inputs, 1),
        query_pos=torch.cat(encodings, 1),
        key_padding_mask=None,
        spatial_shapes=shapes,
        reference_points=torch.cat(points)[None, :, None],
        level_start_index=None,
        valid_ratios=None,
    )
    memory = memory.transpose(1, 2)
    found, begin = [], 0
    for height, width in shapes:
        part = memory[:, :, begin : begin + height * width]
        found.append(part.unflatten(2, (height, width)))
        begin = begin + height * width
    for i in range(others - 1, -1, -1):
        lateral = module.lateral_convs[i](maps[i])
        above = F.interpolate(found[-1], lateral.shape[2:], mode='bilinear', align_corners=False)
        found.append(module.output_convs[i](lateral + above))
    return module.mask_feature(found[-1]), found[: module.num_outs]


def _deformable_attention(
    module: Any,
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    identity: Tensor | None = None,
    query_pos: Tensor | None = None,
    key_padding_mask: Tensor | None = None,
    reference_points: Tensor | None = None,
    spatial_shapes: Sequence[tuple[int, int]] = (),
    **_: Any,
) -> Tensor:
    """The forward pass of MMCV's ``MultiScaleDeformableAttention``, for :func:`_decode_pixels`.

    Args:
        module: The layer.
        query: (N, n, C), the maps one after the other, which are the keys and values too.
        key: Not used.
        value: As ``query`` if it is None.
        identity: What is added to the result; ``query`` if it is None.
        query_pos: Added to the queries, (N, n, C).
        key_padding_mask: Not used: no map is padded.
        reference_points: Where each query is, in parts of a map, (1, n, 1, 2).
        spatial_shapes: Height and width of each map.
    """
    value = query if value is None else value
    identity = query if identity is None else identity
    query = query if query_pos is None else query + query_pos
    images, number = query.shape[:2]
    heads, levels, places = module.num_heads, module.num_levels, module.num_points
    value = module.value_proj(value).unflatten(2, (heads, -1)).permute(0, 2, 3, 1)
    offsets = module.sampling_offsets(query).unflatten(2, (heads, levels, places, 2))
    weights = module.attention_weights(query).unflatten(2, (heads, levels * places)).softmax(-1)
    weights = weights.unflatten(3, (levels, places)).permute(0, 2, 1, 3, 4)
    found: Any = 0.0
    begin = 0
    for level, (height, width) in enumerate(spatial_shapes):
        part = value[..., begin : begin + height * width].unflatten(3, (height, width))
        begin = begin + height * width
        columns = offsets[:, :, :, level, :, 0] / width
        rows = offsets[:, :, :, level, :, 1] / height
        assert reference_points is not None
        where = reference_points[:, :, :, None] + torch.stack((columns, rows), -1)
        sampled = F.grid_sample(
            part.flatten(0, 1),
            (2 * where - 1).transpose(1, 2).flatten(0, 1),
            mode='bilinear',
            padding_mode='zeros',
            align_corners=False,
        )  # (N * heads, channels, n, places)
        found = found + (sampled * weights[:, :, :, level].flatten(0, 1)[:, None]).sum(-1)
    found = found.reshape(images, -1, number).transpose(1, 2)
    return module.dropout(module.output_proj(found)) + identity
