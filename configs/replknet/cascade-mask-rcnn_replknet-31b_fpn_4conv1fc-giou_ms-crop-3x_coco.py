_base_ = [
    '../_base_/models/cascade-mask-rcnn_r50_fpn_4conv1fc-giou.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/schedule_3x_adamw_replknet.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://replknet-31b_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.RepLKNet',
        arch='31b',
        drop_path_rate=0.6,
        norm_cfg=dict(type='SyncBN'),
        with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
