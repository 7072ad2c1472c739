# Our variant: as wide as ConvNeXt, not sparse, and faster with the same number of parameters.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_r50_fpn_4conv1fc-giou.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/schedule_3x_adamw_pelk.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://pelk-tiny-w1.0_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.PeLK',
        arch='tiny',
        width_factor=1.0,
        drop_path_rate=0.4,
        layer_scale=1.0,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
