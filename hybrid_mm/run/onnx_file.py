"""An ONNX file in the place of a config's model and its weights."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from hybrid_mm.data.class_order import check_same_labels
from hybrid_mm.errors import UserError, warn
from hybrid_mm.run.checks.datasets import classes_of, readers
from hybrid_mm.run.config import TASKS, task_of

SUFFIX = '.onnx'
_VISUALIZERS = dict(
    detection='DetLocalVisualizer',
    segmentation='SegLocalVisualizer',
    classification='UniversalVisualizer',
)
# settings of a config that are about its network in PyTorch
_OF_NETWORK = (
    *('data_preprocessor', 'load_from', 'model_wrapper_cfg', 'compile', 'runner_type', 'strategy'),
    *('tta_model', 'tta_pipeline'),
)
# settings of a config's detector that are optional inputs of its file, by the names of those
_THRESHOLDS = {
    f'model.test_cfg.{stage}{setting}': name
    for stage in ('', 'rcnn.')
    for setting, name in (
        ('score_thr', 'score_threshold'),
        ('nms.iou_threshold', 'iou_threshold'),
    )
}


def is_onnx(path: Any) -> bool:
    """Whether the name of a file is that of a model in ONNX."""
    return isinstance(path, str | Path) and str(path).lower().endswith(SUFFIX)


def model_of_file(
    file: str | Path, device: str | None = None, thresholds: Mapping[str, float] | None = None
) -> ConfigDict:
    """Config of the model that a file is."""
    return ConfigDict(
        type='hybrid_mm.OnnxModel', file=str(file), device=device, **(thresholds or {})
    )


def split_options(
    file: str, options: Mapping[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """``--cfg-options`` of a run with a file: thresholds by its inputs, and those of the data.

    Raises:
        UserError: One is about the network, which is in the file as it is.
    """
    thresholds, others = {}, {}
    for key, value in (options or {}).items():
        if key in _THRESHOLDS:
            thresholds[_THRESHOLDS[key]] = value
        elif key.partition('.')[0] in ('model', *_OF_NETWORK):
            raise UserError(
                f'--cfg-options {key}: {file} is the network as it was exported, and keeps its '
                'settings, but for score_thr and nms.iou_threshold of detectors; export it again '
                'with this option'
            )
        else:
            others[key] = value
    return thresholds, others


def config_of_file(file: str, metadata: dict[str, Any]) -> Config:
    """Config for predictions by a file: the test pipeline that it was exported with.

    Args:
        file: The ONNX file.
        metadata: Its properties, decoded.

    Raises:
        UserError: The file has no test pipeline, or does not name its classes.
    """
    for key, what in (('test_pipeline', 'test pipeline'), ('classes', 'names of classes')):
        if not metadata.get(key):
            raise UserError(
                f'{file} has no {what} ({key} in its metadata); export the model again with '
                'tools/export_onnx.py'
            )
    task = metadata['task']
    settings = dict(
        default_scope=next(scope for scope, name in TASKS.items() if name == task),
        model=model_of_file(file),
        test_dataloader=dict(dataset=dict(pipeline=_tuples(metadata['test_pipeline']))),
        visualizer=dict(type=_VISUALIZERS[task]),
    )
    return Config(settings)


def set_onnx_model(cfg: Config, model: Any) -> None:
    """Replace the model of a config, and what is about its weights, by an ONNX file.

    Args:
        cfg: The config, changed in place.
        model: The ``hybrid_mm.OnnxModel``.

    Raises:
        UserError: The config has another task, or the file has other classes than its data set.
    """
    file, metadata = model.file, model.metadata
    if task_of(cfg) != model.task:
        raise UserError(
            f'{file} is a model for {model.task}, and {cfg.filename} a config of {task_of(cfg)}'
        )
    dataset = next(readers(cfg.test_dataloader.dataset))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        named, there = metadata.get('classes'), classes_of(dataset)
    if named and there:
        check_same_labels(
            (file, named),
            ('test_dataloader.dataset', there),
            'test the file with the config that it was exported from, or list the classes in its '
            'order in test_dataloader.dataset.metainfo',
        )
    _compare_pipelines(file, metadata.get('test_pipeline'), dataset.get('pipeline'))
    cfg.model = model_of_file(file, thresholds=model.thresholds)
    for key in _OF_NETWORK:
        cfg.pop(key, None)
    hooks = cfg.get('custom_hooks') or []
    cfg.custom_hooks = [hook for hook in hooks if not str(hook.get('type')).endswith('EMAHook')]


def _compare_pipelines(file: str, stored: Any, used: Any) -> None:
    """Say what differs in the preparation of images, by which the results differ as well."""
    if not stored or not used:
        return
    before, now = _preparation(stored), _preparation(used)
    if before == now:
        return
    missing = [_text(step) for step in before if step not in now]
    more = [_text(step) for step in now if step not in before]
    parts = [
        f'only in the {place}: {", ".join(steps)}'
        for place, steps in (('file', missing), ('config', more))
        if steps
    ]
    warn(
        f'{file} was exported with another test pipeline than that of test_dataloader, which is '
        f'used here ({"; ".join(parts) or "another order"})'
    )


def _preparation(pipeline: Any) -> list[dict[str, Any]]:
    """Transforms that change the image, as JSON has them."""
    steps = json.loads(json.dumps(pipeline))
    steps = [{**step, 'type': str(step['type']).rpartition('.')[2]} for step in steps]
    # the place that files are read from changes nothing
    steps = [{k: v for k, v in step.items() if k != 'backend_args'} for step in steps]
    return [s for s in steps if 'Annotation' not in s['type'] and not s['type'].startswith('Pack')]


def _text(step: dict[str, Any]) -> str:
    """A transform as in a config."""
    settings = ', '.join(f'{k}={v!r}' for k, v in step.items() if k != 'type')
    return f'{step["type"]}({settings})'


def _tuples(node: Any) -> Any:
    """Lists of numbers or texts as tuples, which JSON lacks and transforms tell from lists."""
    if isinstance(node, dict):
        return {key: _tuples(value) for key, value in node.items()}
    if not isinstance(node, list):
        return node
    inner = [_tuples(item) for item in node]
    return inner if any(isinstance(item, dict | list) for item in node) else tuple(inner)
