# 8 GPUs x 8 images
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop_detr.py',
    '../_base_/schedules/schedule_bs64_3x_adamw.py',
    '../_base_/default_runtime_det_iter.py',
]

checkpoint = 'hybrid_mm://mvitv2-tiny_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.MViTv2',
        arch='tiny',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
