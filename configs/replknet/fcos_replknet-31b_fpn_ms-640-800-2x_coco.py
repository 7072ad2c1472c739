_base_ = [
    '../_base_/models/fcos_r50_fpn.py',
    '../_base_/datasets/coco_detection_ms-640-800.py',
    '../_base_/schedules/schedule_2x_adamw_fcos.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://replknet-31b_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.RepLKNet',
        arch='31b',
        drop_path_rate=0.5,
        norm_cfg=dict(type='SyncBN'),
        with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
