# The paper follows ConvNeXt and states no values: these are those of ConvNeXt's file of this size,
# with the SyncBN and float32 of SLaK's detectors.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_r50_fpn_4conv1fc-giou.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/schedule_3x_adamw_pelk.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://pelk-tiny_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.PeLK',
        arch='tiny',
        drop_path_rate=0.4,
        layer_scale=1.0,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[124, 249, 499, 998]),
)
custom_hooks = [dict(type='hybrid_mm.SparsityHook', init='zeros', scope='backbone.')]
