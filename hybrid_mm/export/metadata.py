"""Metadata of an ONNX file: what a program needs to use it, without the config."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from hybrid_mm.export.graphs import Graph
from hybrid_mm.export.preprocessing import Preparation
from hybrid_mm.export.whole import EndToEnd
from hybrid_mm.run.config import inner_dataset, task_of, without_annotations
from hybrid_mm.version import __version__

__all__ = ['metadata', 'raw_metadata', 'resize_rule']

OUTPUTS = {
    'detection': {
        'boxes': '(N, K, 4) float32: left, top, right, bottom in pixels of the image given',
        'scores': '(N, K) float32, from high to low; 0 where there is no object',
        'labels': '(N, K) int64, places in classes; -1 where there is no object',
        'masks': '(N, K, 28, 28) float32: probabilities within the box of the object; of models '
        'with queries (N, K, H, W) bool: pixels of the object',
        'panoptic_map': '(N, H, W) int32: label + 1000 * number of the object; the number of '
        'classes where there is none',
    },
    'segmentation': {
        'label_map': '(N, H, W): places in classes',
        'probabilities': '(N, classes, H, W) float32',
    },
    'classification': {'scores': '(N, classes) float32: probabilities'},
}
"""What the outputs of a task are, by name."""


def metadata(cfg: Config, graph: Graph, meta: dict[str, Any]) -> dict[str, str]:
    """Metadata of an end-to-end file, as JSON by key.

    - ``task``: 'detection', 'segmentation' or 'classification'
    - ``classes``, ``palette``: names, and their colours (red, green, blue) or null
    - ``input``: name, dtype, layout, channels, order of the channels and largest value
    - ``outputs``: what each one is, by name
    - ``thresholds``: those of the config: ``score`` and ``iou``, which are optional inputs of
      detectors as ``score_threshold`` and ``iou_threshold``; ``mask``, for who pastes masks;
      ``class``, the probability above which one channel of logits means class 1
    - ``optional_inputs``: inputs that may be left out, with their default values
    - ``resize``: see :func:`resize_rule`
    - ``test_pipeline``: transforms of the config, from the file to the image, without annotations
    - ``mean``, ``std``: the normalisation within the file, in the order of the input's channels
    - ``pad_divisor``: height and width are padded to multiples of this within the file
    - ``scope``: package of the transforms, ``config``: name of the config, ``hybrid_mm``,
      ``torch``: versions

    Args:
        cfg: The config.
        graph: End-to-end graph of its model.
        meta: Classes and palette.
    """
    module = graph.module
    assert isinstance(module, EndToEnd)
    task, network, prepare = task_of(cfg), module.network, module.prepare
    described = OUTPUTS[task]
    optional = {name: value.tolist() for name, value in network.settings.items()}
    ending = '_threshold'
    thresholds = {k.removesuffix(ending): v for k, v in optional.items() if k.endswith(ending)}
    properties, pipeline = dict(network.properties), test_pipeline(cfg)
    thresholds.update(properties.pop('thresholds', {}))
    found = {
        'task': task,
        'classes': list(meta['classes'] or []),
        'palette': _palette(meta),
        'input': _input(graph, prepare),
        'outputs': {name: described.get(name, '') for name in graph.outputs},
        'optional_inputs': optional,
        'thresholds': thresholds,
        'resize': resize_rule(pipeline),
        'test_pipeline': pipeline,
        'mean': _in_order(prepare.mean, prepare),
        'std': _in_order(prepare.std, prepare),
        'pad_divisor': prepare.divisor,
        'scope': cfg.get('default_scope'),
        'config': Path(cfg.filename).name if cfg.filename else None,
        'hybrid_mm': __version__,
        'torch': torch.__version__,
        **properties,
    }
    return {key: json.dumps(value) for key, value in found.items()}


def raw_metadata(cfg: Config, model: nn.Module, meta: dict[str, Any]) -> dict[str, str]:
    """Metadata of a raw file: classes, and how its input is to be prepared.

    Args:
        cfg: The config.
        model: Its model.
        meta: Classes and palette.
    """
    prepared = {
        **(cfg.get('data_preprocessor') or {}),
        **(cfg.model.get('data_preprocessor') or {}),
    }
    names = ('mean', 'std', 'bgr_to_rgb', 'to_rgb')
    found = {name: prepared[name] for name in names if prepared.get(name) is not None}
    found['classes'] = list(meta['classes'] or [])
    head: Any = getattr(model, 'decode_head', None)
    if getattr(head, 'out_channels', None) == 1:
        found['threshold'] = head.threshold
    found['hybrid_mm'] = __version__
    return {key: json.dumps(value) for key, value in found.items()}


def test_pipeline(cfg: Config) -> list[dict[str, Any]]:
    """Transforms of the test as JSON has them, without those that load annotations."""
    steps = inner_dataset(cfg.test_dataloader.dataset).get('pipeline') or []
    return [_plain(step) for step in without_annotations(steps)]


def resize_rule(steps: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """How a photo is brought to the size at which it is given to the model.

    Args:
        steps: Transforms of the test.

    Returns:
        ``kind``: 'none'; 'exact' (to ``scale``, width and height); 'within' (enlarged or reduced,
        in its aspect ratio, until the longer side reaches the larger or the shorter side the
        smaller number of ``scale``); 'edge' (the ``edge``, 'short' or 'long', to ``scale``); or
        'other', a transform that only its package has. Then ``interpolation``, ``backend`` ('cv2'
        or 'pillow') and ``crop``, height and width of the crop at the centre, or null. ``rule``
        says the same in English.
    """
    found: dict[str, Any] = dict(kind='none', interpolation='bilinear', backend='cv2', crop=None)
    for step in steps:
        kind = str(step.get('type')).rpartition('.')[2]
        if kind == 'CenterCrop':
            size = step.get('crop_size')
            found['crop'] = [size, size] if isinstance(size, int) else size
            continue
        if 'Resize' not in kind and kind not in ('TestTimeAug', 'MultiScaleFlipAug'):
            continue
        scale = step.get('scale')
        found.update({k: step[k] for k in ('interpolation', 'backend') if k in step})
        if kind == 'ResizeEdge':
            found.update(kind='edge', scale=scale, edge=step.get('edge', 'short'))
        elif kind == 'Resize' and isinstance(scale, int | list) and found['kind'] == 'none':
            whole = [scale, scale] if isinstance(scale, int) else scale
            found.update(kind='within' if step.get('keep_ratio') else 'exact', scale=whole)
        else:
            found.update(kind='other')
    return {'rule': _in_words(found), **found}


def _in_words(rule: dict[str, Any]) -> str:
    """A rule in English."""
    scale: Any = rule.get('scale')
    texts = {
        'none': lambda: 'the image is taken in its size',
        'exact': lambda: f'resized to {scale[0]} x {scale[1]} (width x height)',
        'within': lambda: (
            f'resized in its aspect ratio to fit: longer side {max(scale)}, shorter {min(scale)}'
        ),
        'edge': lambda: f'resized in its aspect ratio: {rule["edge"]} side {scale}',
        'other': lambda: 'see test_pipeline',
    }
    text = texts[rule['kind']]()
    if rule['crop']:
        text += f'; then {rule["crop"][0]} x {rule["crop"][1]} (height x width) at the centre'
    return text


def _plain(value: Any) -> Any:
    """A part of a config as JSON has it."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _palette(meta: dict[str, Any]) -> list[list[int]] | None:
    """Colours of the classes; a name such as 'coco' is one of MMDetection's, not a list."""
    palette = meta.get('palette')
    if not isinstance(palette, list | tuple) or not palette:
        return None
    return [[int(x) for x in colour] for colour in palette]


def _input(graph: Graph, prepare: Preparation) -> dict[str, Any]:
    """What the file takes."""
    whole = prepare.input_type == 'uint8'
    channels = prepare.channels(graph.inputs['image'])
    return {
        'name': 'image',
        'dtype': 'uint8' if whole else 'float32',
        'layout': 'NHWC' if whole else 'NCHW',
        'channels': channels,
        'order': 'RGB' if channels == 3 and not prepare.keeps_order else None,
        'largest': None if prepare.keeps_order and not whole else 255,
    }


def _in_order(values: torch.Tensor, prepare: Preparation) -> list[float]:
    """Numbers by channel, in the order of the input's channels."""
    numbers = values.flatten()
    if prepare.takes_bgr and len(numbers) == 3:
        numbers = numbers.flip(0)
    return [round(x, 4) for x in numbers.tolist()]
