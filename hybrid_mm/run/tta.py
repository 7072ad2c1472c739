"""Test-time augmentation of any config."""

import copy

from mmengine.config import Config, ConfigDict

from hybrid_mm.errors import UserError
from hybrid_mm.run.checks.datasets import readers
from hybrid_mm.run.config import library_of, task_of

__all__ = ['set_test_time_augmentation']


def set_test_time_augmentation(cfg: Config) -> None:
    """Wrap the model for ``--tta``; the default ``tta_pipeline`` adds the flipped image.

    Args:
        cfg: The config, changed in place.

    Raises:
        UserError: The model predicts instance masks in one stage, rotated boxes, or poses; nothing
            here merges those.
    """
    task = task_of(cfg)
    if task == 'pose':
        raise UserError(
            '--tta: MMPose has no model for it; model.test_cfg.flip_test=True, the value of most '
            'of its configs, adds the flipped image'
        )
    if library_of(cfg) == 'mmrotate':
        raise UserError('--tta: MMRotate has no model that merges rotated boxes; test without it')
    if cfg.get('tta_model') is None:
        cfg.tta_model = ConfigDict(_default_tta_model(task))
    if task == 'detection' and _predicts_masks(cfg.model):
        if (cfg.model.get('roi_head') or {}).get('mask_head') is None:
            raise UserError(
                f'--tta: augmented masks of {cfg.model.type} cannot be merged, only those of '
                'two-stage detectors; test without --tta'
            )
        if cfg.tta_model.type in ('DetTTAModel', 'mmdet.DetTTAModel'):  # they refuse masks
            cfg.tta_model.type = 'hybrid_mm.InstanceTTAModel'
    if cfg.tta_model.type in ('SegTTAModel', 'mmseg.SegTTAModel'):  # wrong for out_channels=1
        cfg.tta_model.type = 'hybrid_mm.SegmentationTTAModel'
    datasets = [each for each in readers(cfg.test_dataloader.dataset) if 'pipeline' in each]
    if not datasets:
        raise UserError('--tta: the data set of test_dataloader has no pipeline')
    if cfg.get('tta_pipeline') is None:
        cfg.tta_pipeline = copy.deepcopy(datasets[0]['pipeline'])
        pack = cfg.tta_pipeline[-1]
        if task == 'detection':
            pack.meta_keys = (
                *('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
                *('flip', 'flip_direction'),
            )
        annotations = [t for t in cfg.tta_pipeline[:-1] if _loads_annotations(t)]
        cfg.tta_pipeline = [t for t in cfg.tta_pipeline[:-1] if t not in annotations]
        flips = [dict(type='RandomFlip', prob=p) for p in (1.0, 0.0)]
        tail = [flips, annotations, [pack]] if annotations else [flips, [pack]]
        cfg.tta_pipeline.append(dict(type='TestTimeAug', transforms=tail))
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for dataset in datasets:
        dataset['pipeline'] = cfg.tta_pipeline


def _loads_annotations(transform: dict) -> bool:
    return str(transform['type']).rpartition('.')[2] == 'LoadAnnotations'


def _predicts_masks(model: dict) -> bool:
    heads = [model.get('mask_head'), (model.get('roi_head') or {}).get('mask_head')]
    return any(head is not None for head in [*heads, model.get('panoptic_head')])


def _default_tta_model(task: str) -> dict:
    if task == 'detection':
        return dict(
            type='hybrid_mm.InstanceTTAModel',
            tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100),
        )
    segments = task == 'segmentation'
    return dict(type='hybrid_mm.SegmentationTTAModel' if segments else 'AverageClsScoreTTA')
