# No source states the recipe of the detectors: epochs, jitter, rate and norms as BoTNet's.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_syncbn.py',
    '../_base_/datasets/coco_instance_1024x1024.py',
    '../_base_/schedules/schedule_bs64_36e.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://r50-halo8_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.HaloNet',
        arch='r50-se-b8',
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    )
)
