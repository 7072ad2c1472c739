"""Maps that a model really gives, beside what its necks and heads are told of them.

Anchors, points and RoI extractors are told the strides of their maps, and train silently with wrong
ones: their boxes lie elsewhere than what they see. The maps are measured with a small image.
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from hybrid_mm.checkpoints import inner_model
from hybrid_mm.errors import UserError

# heights and widths that are tried; some necks halve their maps until nothing is left of small ones
_SIZES = (128, 320, 512)
_LARGE = (512,)  # which tells large strides apart
_PATIENCE = 2.5  # seconds; no larger image is tried that is expected to end later
# attributes of dense heads that know strides
_GENERATORS = (
    *('prior_generator', 'anchor_generator', 'point_generator'),
    *('approx_anchor_generator', 'square_anchor_generator'),
)
# packages whose detectors and heads do with maps what is expected here
_KNOWN = ('mmdet', 'mmseg', 'mmpretrain', 'hybrid_mm')
_DEFORMABLE = 'MultiScaleDeformableAttention'
# names of arguments that give a head its strides if it builds the generator itself
_STRIDES = ('strides', 'point_strides', 'featmap_strides')
Stride = tuple[float, float]


class Maps(NamedTuple):
    """Maps that a part of a model returned for an image.

    Attributes:
        place: What returned them, in the config.
        image: Height (and width) of the image.
        maps: Tensors of shape (N, C, H, W).
    """

    place: str
    image: int
    maps: Sequence[Tensor]

    @property
    def channels(self) -> list[int]:
        """Channels of each map."""
        return [each.shape[1] for each in self.maps]

    @property
    def strides(self) -> list[int]:
        """Stride of each map, rounded."""
        return [round(self.image / each.shape[-1]) for each in self.maps]

    def fit(self, strides: Sequence[Stride], margin: int = 0) -> bool:
        """Whether maps have these strides (x, y), but for a margin of pixels at their borders."""
        return len(strides) == len(self.maps) and all(
            math.floor(self.image / stride) - margin
            <= size
            <= math.ceil(self.image / stride) + margin
            for pair, each in zip(strides, self.maps, strict=True)
            for stride, size in zip(pair, (each.shape[-1], each.shape[-2]), strict=True)
        )


class Told(NamedTuple):
    """Strides that a part of a model is told.

    Attributes:
        key: The value in the config that tells them.
        strides: Of each map, (x, y).
        select: Which of the maps of the neck (or the backbone) the part gets.
        resize: What it does with their sizes before it uses the strides.
        any_levels: Whether the part, one of the user's own, may use some of the maps only.
    """

    key: str
    strides: list[Stride]
    select: slice | Sequence[int]
    resize: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None
    any_levels: bool = False


def check_maps(runner: Runner) -> None:
    """Check that necks and heads fit the maps that they get.

    What cannot be measured passes. Nothing random is drawn, and the model is left as it was.

    Raises:
        UserError: The channels or the number of maps differ from those that a neck or a head
            expects, or the strides from those of anchors, points or RoI extractors.
    """
    if not isinstance(runner.model, nn.Module):
        return  # a FlexibleRunner builds it later
    model = inner_model(runner.model)
    for path, part, settings in _networks(model, runner.cfg.get('model') or {}, 'model'):
        _check_network(part, settings, path)


def _networks(
    model: nn.Module, settings: dict[str, Any], path: str
) -> Iterator[tuple[str, nn.Module, dict[str, Any]]]:
    """The networks in a model: itself, or those that a wrapper holds (tracker, teacher)."""
    while isinstance(settings.get('module'), dict):  # of test-time augmentation
        settings, path = settings['module'], f'{path}.module'
    if isinstance(getattr(model, 'backbone', None), nn.Module):
        yield path, model, settings
        return
    for name in ('detector', 'student'):
        inner = getattr(model, name, None)
        if isinstance(inner, nn.Module):
            key = 'detector' if 'detector' in settings else name
            yield from _networks(inner, settings.get(key) or {}, f'{path}.{key}')


def _check_network(model: nn.Module, settings: dict[str, Any], path: str) -> None:
    heads = list(_heads(model, settings, path))
    told = list(_told(model, settings, path))
    necks = settings.get('neck') or ()
    first = necks if isinstance(necks, dict) else next(iter(necks), {})
    decoders = [part for part in ('panoptic_head', 'decode_head') if part in settings]
    if not heads and not told and not decoders and 'in_channels' not in first:
        return  # a classifier, for example
    tensors = (*model.parameters(), *model.buffers())
    if any(is_lazy(each) for each in tensors):
        return  # it takes its widths from the first image, which should be one of the data
    with _untouched(model):
        found = _measure(model, settings, path)
        if found is None:
            return
        for head, node, place in heads:
            _check_head(head, node, place, found)
        _check_decoders(model, settings, path, found)
        doubtful = [each for each in told if not _fits(each, found)]
        if doubtful:
            found = _measure(model, settings, path, _LARGE) or found
    for each in doubtful:
        _check_strides(each, found)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Context in which a model predicts, and after which it is what it was.

    That includes what its modules store of themselves while they run: buffers, counters, caches.
    """
    modules = list(model.modules())
    attributes = [dict(vars(module)) for module in modules]
    buffers = [dict(module._buffers) for module in modules]
    values = [(each, each.clone(), each._version) for each in model.buffers()]
    states = random.getstate(), np.random.get_state()
    device = next((each.device for each in model.parameters()), torch.device('cpu'))
    devices = [device] if device.type == 'cuda' else []
    for module in modules:
        module.training = False  # not by `eval`, which may do more, as fold weights
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for module, before, held in zip(modules, attributes, buffers, strict=True):
            vars(module).clear()
            vars(module).update(before)
            module._buffers.clear()
            module._buffers.update(held)
        with torch.no_grad():
            for each, value, version in values:
                if each._version != version:
                    each.copy_(value)
        if devices:
            torch.cuda.empty_cache()


def _measure(
    model: Any, settings: dict[str, Any], path: str, sizes: Sequence[int] = _SIZES
) -> Maps | None:
    """Maps of the neck, or of the backbone without one; None if they cannot be had.

    Raises:
        UserError: The neck does not take the maps of the backbone.
    """
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', None)
    backbone = settings.get('backbone') or {}
    channels = backbone.get('in_channels')  # a mean of one value may be for many channels
    channels = channels or (mean.numel() if isinstance(mean, Tensor) else 3)
    parameter = next((each for each in model.parameters() if each.is_floating_point()), None)
    start, refused = time.monotonic(), None
    begun, tried = start, 0
    fixed = backbone.get('img_size')  # some take no other
    for size in (*sizes, fixed) if isinstance(fixed, int) else sizes:
        now = time.monotonic()
        if tried and now - start + (now - begun) * (size / tried) ** 2 > _PATIENCE:
            break
        begun, tried = now, size
        image = torch.zeros(1, channels, size, size)
        image = image if parameter is None else image.to(parameter)
        try:
            if _of_user(getattr(type(model), 'extract_feat', None)):
                return _maps(model.extract_feat(image), size, f'{path} (extract_feat)')
            maps = model.backbone(image)
        except Exception:  # of foreign code: several
            continue
        found = _maps(maps, size, f'{path}.backbone')
        neck = getattr(model, 'neck', None)
        if found is None or not isinstance(neck, nn.Module):
            return found
        try:
            maps = neck(maps)
        except Exception as error:
            refused = (found, error)  # a larger image may do
            continue
        return _maps(maps, size, f'{path}.neck')
    if refused is not None:
        _check_neck(settings.get('neck'), f'{path}.neck', *refused)
    return None


def _of_user(part: Any) -> bool:
    """Whether a class or function is the user's own."""
    return part is not None and part.__module__.partition('.')[0] not in _KNOWN


def _maps(maps: Any, size: int, place: str) -> Maps | None:
    maps = [maps] if isinstance(maps, Tensor) else maps
    if not isinstance(maps, list | tuple) or not maps:
        return None
    if not all(isinstance(each, Tensor) and each.ndim == 4 for each in maps):
        return None
    return Maps(place, size, maps)


def _check_neck(neck: Any, path: str, found: Maps, error: Exception) -> None:
    """Explain why a neck refuses its maps, where it is for their number or channels."""
    if isinstance(neck, list | tuple) and neck:
        neck, path = neck[0], f'{path}.0'
    expected = neck.get('in_channels') if isinstance(neck, dict) else None
    if not isinstance(expected, list | tuple):
        return
    about_them = isinstance(error, AssertionError | IndexError) or 'channels' in str(error)
    orders = (list(expected), list(expected)[::-1])  # YOLOV3Neck has the last map first
    if about_them and found.channels not in orders:
        raise UserError(
            f'{path}.in_channels is {list(expected)}, but the backbone returns maps of '
            f'{found.channels} channels (strides {found.strides}); use --cfg-options '
            f'{path}.in_channels={_listed(found.channels)}, or other out_indices of the backbone'
        ) from error


def _heads(
    model: nn.Module, settings: dict[str, Any], path: str
) -> Iterator[tuple[nn.Module, dict[str, Any], str]]:
    """Heads that are given all maps, with their configs."""
    names = ('rpn_head', 'bbox_head', 'decode_head', 'auxiliary_head')
    yield from _parts(model, settings, path, names)


def _parts(
    model: nn.Module, settings: dict[str, Any], path: str, names: Sequence[str]
) -> Iterator[tuple[nn.Module, dict[str, Any], str]]:
    """Parts of a model, or the modules of those that are lists, with configs and paths."""
    for name in names:
        head = getattr(model, name, None)
        if isinstance(head, nn.ModuleList):
            parts = settings.get(name) or ()
            for i, (each, node) in enumerate(zip(head, parts, strict=False)):
                yield each, node, f'{path}.{name}.{i}'
        elif isinstance(head, nn.Module):
            yield head, settings.get(name) or {}, f'{path}.{name}'


def _check_head(head: nn.Module, node: dict[str, Any], path: str, found: Maps) -> None:
    """Check number and channels of the maps of a head that refuses them."""
    expected, index = node.get('in_channels'), getattr(head, 'in_index', None)
    if isinstance(index, list | tuple) and isinstance(expected, list | tuple):
        number = max(index, default=0)
    elif isinstance(index, int) and isinstance(expected, int):
        number, index, expected = index, [index], [expected]
    elif index is None and isinstance(expected, int):
        number, index = -1, range(len(found.maps))
        expected = [expected] * len(found.maps)
    else:
        return
    short = number >= len(found.maps)
    given = [] if short else [found.channels[i] for i in index]
    if not short and given == list(expected):
        return
    try:
        head(found.maps)
    except Exception as error:  # of foreign code: several
        if short:
            raise UserError(
                f'{path}.in_index is {node.get("in_index", number)}, but {found.place} gives '
                f'{len(found.maps)} maps only (strides {found.strides}), numbered from 0'
            ) from error
        if not isinstance(error, RuntimeError) or 'channels' not in str(error):
            return
        single = isinstance(node['in_channels'], int)
        raise UserError(
            f'{path}.in_channels is {node["in_channels"]}, but {found.place} gives maps of '
            f'{given[0] if single else given} channels (strides {found.strides}); use '
            f'--cfg-options {path}.in_channels={given[0] if single else _listed(given)}'
        ) from error


def _check_decoders(model: nn.Module, settings: dict[str, Any], path: str, found: Maps) -> None:
    """Check channels of the maps of pixel decoders, and the number of those that DETRs attend to.

    Another number makes mmcv's operator on GPUs read other positions than were meant.
    """
    for head, node, place in _parts(model, settings, path, ('panoptic_head', 'decode_head')):
        expected = node.get('in_channels')
        if not hasattr(head, 'pixel_decoder') or not isinstance(expected, list | tuple):
            continue
        if list(expected) != found.channels:
            raise UserError(
                f'{place}.in_channels is {list(expected)}, but {found.place} gives maps of '
                f'{found.channels} channels (strides {found.strides}); use --cfg-options '
                f'{place}.in_channels={_listed(found.channels)}, or other out_indices of the '
                'backbone'
            )
    for name in ('encoder', 'decoder'):
        modules = getattr(model, name, nn.Module()).modules()
        for level in (each.num_levels for each in modules if type(each).__name__ == _DEFORMABLE):
            if level != len(found.maps):
                raise UserError(
                    f'the attention of {path}.{name} is for {level} maps (num_levels of its '
                    f'self_attn_cfg or cross_attn_cfg, 4 by default), but {found.place} gives '
                    f'{len(found.maps)} (strides {found.strides}); set '
                    f'{path}.num_feature_levels and num_levels of encoder and decoder to '
                    f'{len(found.maps)}, or num_outs of the neck to {level}'
                )


def _told(model: nn.Module, settings: dict[str, Any], path: str) -> Iterator[Told]:
    """Strides that the parts of a model are told."""
    for head, node, place in _parts(model, settings, path, ('rpn_head', 'bbox_head')):
        yield from _of_dense_head(head, node, place)
    for head, node, place in _parts(model, settings, path, ('mask_head',)):
        yield from _of_mask_head(head, node, place)
    roi_head = getattr(model, 'roi_head', None)
    if isinstance(roi_head, nn.Module):
        yield from _of_roi_head(roi_head, settings.get('roi_head') or {}, f'{path}.roi_head')
    for name in ('panoptic_head', 'decode_head'):
        decoder = getattr(getattr(model, name, None), 'pixel_decoder', None)
        strides = getattr(decoder, 'strides', None)
        if isinstance(strides, list | tuple):
            key = f'{path}.{name}.pixel_decoder.strides'
            yield Told(key, _pairs(strides), slice(None))
    for head, node, place in _heads(model, settings, path):
        strides, index = node.get('feature_strides'), getattr(head, 'in_index', None)
        if isinstance(strides, list | tuple) and isinstance(index, list | tuple):
            yield Told(f'{place}.feature_strides', _pairs(strides), index)


def _of_dense_head(head: nn.Module, node: dict[str, Any], path: str) -> Iterator[Told]:
    """Strides of the generators of anchors and points in a head, or in its stages."""
    stages = getattr(head, 'stages', None)
    if isinstance(stages, nn.ModuleList):
        for i, (stage, settings) in enumerate(zip(stages, node.get('stages') or (), strict=False)):
            yield from _of_dense_head(stage, settings, f'{path}.stages.{i}')
        return
    for name in _GENERATORS:
        # not by getattr: anchor heads have one of these names for another, and warn about its use
        strides = getattr(vars(head).get(name), 'strides', None)
        if isinstance(strides, list | tuple) and strides:
            key = f'{path}.{_key_of(node, name)}'
            yield Told(key, _pairs(strides), slice(None), None, _of_user(type(head)))
    for name in ('strides', 'featmap_strides'):
        strides = getattr(head, name, None)
        if name in node and isinstance(strides, list | tuple):
            key = f'{path}.{name}'
            yield Told(key, _pairs(strides), slice(None), None, _of_user(type(head)))


def _of_mask_head(head: nn.Module, node: dict[str, Any], path: str) -> Iterator[Told]:
    """Strides of the levels of SOLO, and of the one map that masks are computed from."""
    strides, resize = node.get('strides'), getattr(head, 'resize_feats', None)
    if isinstance(strides, list | tuple) and resize is not None:
        yield Told(f'{path}.strides', _pairs(strides), slice(None), resize)
    inner = getattr(head, 'mask_feature_head', None)  # its map has the size of its first level
    stride, level = getattr(inner, 'mask_stride', None), getattr(inner, 'start_level', None)
    if isinstance(stride, int) and isinstance(level, int):
        yield Told(f'{path}.mask_feature_head.mask_stride', _pairs([stride]), [level])


def _key_of(node: dict[str, Any], name: str) -> str:
    """Argument of a head that gives the strides to its generator of this name."""
    for key in (name, 'anchor_generator', 'point_generator', 'prior_generator'):
        if isinstance(node.get(key), dict):
            return f'{key}.strides'
    return next((key for key in _STRIDES if key in node), 'strides')


def _of_roi_head(head: nn.Module, node: dict[str, Any], path: str) -> Iterator[Told]:
    """Strides of the RoI extractors, which take as many of the first maps as they have strides."""
    level = getattr(getattr(head, 'semantic_head', None), 'fusion_level', 0)
    for name, module in head.named_modules():
        strides = getattr(module, 'featmap_strides', None)
        first, _, _ = name.partition('.')
        if not isinstance(strides, list | tuple) or not first.endswith('roi_extractor'):
            continue
        stages = isinstance(node.get(first), list | tuple)
        key = f'{path}.{name if stages else first}.featmap_strides'
        if first == 'semantic_roi_extractor':  # one map, of the size of the level it is fused at
            if len(strides) == 1:
                yield Told(key, _pairs(strides), [level])
        elif not first.startswith('glbctx'):
            yield Told(key, _pairs(strides), slice(len(strides)))


def _pairs(strides: Sequence[Any]) -> list[Stride]:
    """Strides as (x, y)."""
    return [tuple(s) if isinstance(s, list | tuple) else (s, s) for s in strides]


def _selected(told: Told, found: Maps) -> Maps:
    """The maps that a part gets."""
    if told.resize is not None:
        return found._replace(place=f'the head after {found.place}', maps=told.resize(found.maps))
    if isinstance(told.select, slice):
        return found._replace(maps=found.maps[told.select])
    there = range(len(found.maps))
    return found._replace(maps=[found.maps[i] for i in told.select if i in there])


def _fits(told: Told, found: Maps, margin: int = 0) -> bool:
    count, maps = len(told.strides), found.maps
    if told.any_levels:
        windows = (maps[i : i + count] for i in range(len(maps) - count + 1))
        return any(found._replace(maps=own).fit(told.strides, margin) for own in windows)
    return _selected(told, found).fit(told.strides, margin)


def _check_strides(told: Told, found: Maps) -> None:
    """Check strides that a part is told against its maps."""
    if _fits(told, found, margin=1):
        return
    own = _selected(told, found)
    given = [x if x == y else (x, y) for x, y in told.strides]
    single = told.key.endswith('mask_stride') and len(own.maps) == 1  # not a list
    shown, right = (given[0], own.strides[0]) if single else (given, _listed(own.strides))
    number = '' if len(given) == len(own.maps) else f'{len(own.maps)} maps with '
    raise UserError(
        f'{told.key} is {shown}, but {own.place} gives {number}the strides {own.strides}; use '
        f'--cfg-options {told.key}={right}, or other maps (out_indices of the '
        'backbone; start_level, num_outs of the neck)'
    )


def _listed(numbers: Sequence[int]) -> str:
    """Numbers as a value of --cfg-options; a list of one has brackets."""
    return ','.join(map(str, numbers)) if len(numbers) > 1 else f'[{numbers[0]}]'
