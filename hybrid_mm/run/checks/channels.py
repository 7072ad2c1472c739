"""Channels of images: those that a pipeline loads, that a model takes, and that are normalised."""

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS, DefaultScope

from hybrid_mm.errors import UserError, warn
from hybrid_mm.run.checks.datasets import readers
from hybrid_mm.run.config import nodes
from hybrid_mm.run.registered import arguments, registered_class

LOADER = 'LoadMultichannelImage'
PREPROCESSORS = {
    'DetDataPreprocessor': 'hybrid_mm.MultichannelDetDataPreprocessor',
    'SegDataPreProcessor': 'hybrid_mm.MultichannelSegDataPreProcessor',
}
"""Data preprocessors for one or three channels, and ours for any number."""
_OURS = {name.rpartition('.')[2] for name in PREPROCESSORS.values()}
COLOURS = {
    *('AutoContrast', 'CachedMixUp', 'CachedMosaic', 'Color', 'Contrast', 'CutOut', 'Equalize'),
    *('MixUp', 'Mosaic', 'PhotoMetricDistortion', 'RGB2Gray', 'RandomCutOut', 'ShearX', 'ShearY'),
    *('TranslateX', 'TranslateY', 'YOLOXHSVRandomAug', 'Corrupt'),
}
"""Transforms of MMDetection and MMSegmentation that work on images of three channels only."""
EIGHT_BITS = {
    *('AdjustGamma', 'Brightness', 'CLAHE', 'Invert', 'Posterize', 'Sharpness', 'Solarize'),
    'SolarizeAdd',
}
"""Transforms for values of 0 to 255; some make 8 bits of what they get."""
_LIBRARIES = {'hybrid_mm', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg'}
_PAGE = 'see docs/channels.md'


def check_channels(cfg: Config, *parts: str) -> None:
    """Check that loaded images, data preprocessor and backbone have one number of channels.

    Args:
        cfg: Config of a run.
        parts: Those of ``'train'``, ``'val'``, ``'test'`` that it uses.

    Raises:
        UserError: They have not; a transform does not work on such images; blue and red would be
            exchanged; or the data preprocessor is one for three channels. Names the way.
    """
    model = cfg.get('model') or {}
    while isinstance(model.get('module'), dict):  # of test-time augmentation
        model = model['module']
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        taken = _taken(model)
        named = 'model.data_preprocessor' if model.get('data_preprocessor') else 'data_preprocessor'
        settings = model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
        values = _check_statistics(settings, named, taken)
        for key in (f'{part}_dataloader' for part in parts):
            for loader, pipeline in _pipelines(cfg, key):
                loaded = _number(loader.get('channels'))
                if loaded is not None:
                    _check_pipeline(key, loaded, pipeline)
                    _check_numbers(key, loaded, taken, values, named, settings)
            if taken not in (None, 3):
                _check_colours(cfg, key, taken)


def loader_of(pipeline: Any) -> dict[str, Any] | None:
    """Settings of the step of a pipeline that loads images of any number of channels, or None."""
    for _, node in nodes(pipeline, ''):
        if _name(node) == LOADER:
            return {key: value for key, value in node.items() if key not in ('type', '_scope_')}
    return None


def _name(settings: Any) -> str:
    return str(settings.get('type')).rpartition('.')[2]


def _number(channels: Any) -> int | None:
    if isinstance(channels, list | tuple):
        return len(channels)
    return channels if isinstance(channels, int) else None


def _taken(model: dict[str, Any]) -> int | None:
    """Channels of the images that the backbone of a model takes; None if that is not known."""
    backbone = model.get('backbone')
    if not isinstance(backbone, dict) or not isinstance(backbone.get('type'), str):
        return None
    known = arguments(registered_class(MODELS, backbone['type']))
    taken = backbone.get('in_channels', known.get('in_channels'))
    return taken if isinstance(taken, int) else None


def _pipelines(cfg: Config, key: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """Pipelines of the data sets of a dataloader with our loader, and its settings."""
    dataset = (cfg.get(key) or {}).get('dataset')
    for each in readers(dataset) if isinstance(dataset, dict) else ():
        loader = loader_of(each.get('pipeline'))
        if loader is not None:
            yield loader, each['pipeline']


def _check_colours(cfg: Config, key: str, taken: int | None) -> None:
    """Check that images that are loaded as colours, and stay so, are not for other backbones."""
    dataset = (cfg.get(key) or {}).get('dataset')
    for each in readers(dataset) if isinstance(dataset, dict) else ():
        steps = [step for _, step in nodes(each.get('pipeline'), '') if step.get('type')]
        loads = [s for s in steps if _name(s) in ('LoadImageFromFile', 'LoadDeepImage')]
        owners = {
            getattr(registered_class(TRANSFORMS, step['type']), '__module__', '').partition('.')[0]
            for step in steps
            if isinstance(step['type'], str)
        }
        # transforms of users may add channels
        if loads and loads[0].get('color_type', 'color') == 'color' and owners <= _LIBRARIES:
            raise UserError(
                f'{key} loads images of 3 channels with {_name(loads[0])}, but '
                f'model.backbone.in_channels is {taken}; set it to 3, or load all channels with '
                f'dict(type="hybrid_mm.{LOADER}", channels={taken}); {_PAGE}'
            )


def _check_statistics(settings: dict[str, Any], path: str, taken: int | None) -> int | None:
    """Check mean and std; the number of their values, None if there are none."""
    mean = settings.get('mean')
    number = len(mean) if isinstance(mean, list | tuple) else None
    name = _name(settings)
    if number is not None and number not in (1, 3) and name in PREPROCESSORS:
        raise UserError(
            f'{path}.mean has {number} values, and {name} takes one or three. For images of '
            f'{number} channels set {path}.type={PREPROCESSORS[name]!r}, '
            f'model.backbone.in_channels={number}, and dict(type="hybrid_mm.{LOADER}", '
            f'channels={number}) in place of LoadImageFromFile in the pipelines; {_PAGE}'
        )
    if number is not None and number > 1 and name in _OURS and taken not in (None, number):
        raise UserError(
            f'{path}.mean has {number} values, but model.backbone.in_channels is {taken}; set '
            f'both to the number of channels of the images; {_PAGE}'
        )
    std = settings.get('std')
    if isinstance(std, list | tuple) and number is not None and len({1, number, len(std)}) == 3:
        raise UserError(
            f'{path} has {number} values of mean and {len(std)} of std; both need one for each '
            f'channel of the images; {_PAGE}'
        )
    return number


def _check_pipeline(key: str, loaded: int, pipeline: Any) -> None:
    """Check the transforms after the loading."""
    for path, node in nodes(pipeline, f'{key}.dataset.pipeline'):
        name = _name(node)
        if name in COLOURS and loaded != 3:
            raise UserError(
                f'{path}: {name} is for images of three channels, and {key} loads {loaded}; leave '
                f'it out of the pipeline; {_PAGE}'
            )
        if name == 'Pad' and loaded > 4:
            raise UserError(
                f'{path}: Pad cannot pad images of more than four channels, and {key} loads '
                f'{loaded}; leave it out of the pipeline: the data preprocessor pads (size, '
                f'size_divisor, pad_size_divisor); {_PAGE}'
            )
        if name in EIGHT_BITS:
            warn(
                f'{path}: {name} is for values of 0 to 255; leave it out if the images have more '
                'than 8 bits'
            )


def _check_numbers(
    key: str,
    loaded: int,
    taken: int | None,
    values: int | None,
    named: str,
    settings: dict[str, Any],
) -> None:
    """Compare what is loaded with what is normalised and taken."""
    if taken not in (None, loaded):
        raise UserError(
            f'{key} loads images of {loaded} channels, but model.backbone.in_channels is {taken}; '
            f'set it to {loaded}, or channels of {LOADER} to a list of {taken} of them; {_PAGE}'
        )
    ours = PREPROCESSORS.get(_name(settings))
    if values not in (None, 1, loaded):
        kind = f'{named}.type={ours!r} and ' if ours else ''
        raise UserError(
            f'{key} loads images of {loaded} channels, but {named}.mean has {values} values; set '
            f'{kind}mean and std with a value for each channel; {_PAGE}'
        )
    for option in ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb'):
        if settings.get(option):
            raise UserError(
                f'{named}.{option}=True would exchange red and blue, but {LOADER} gives the '
                f'channels in the order of the file (red, green, blue); set {named}.{option}='
                f'False; {_PAGE}'
            )
    if ours:
        raise UserError(
            f'{key} loads images with {LOADER}, in the order of the file; set {named}.type={ours!r}'
            f' (with bgr_to_rgb=False, and mean and std in that order); {_PAGE}'
        )
