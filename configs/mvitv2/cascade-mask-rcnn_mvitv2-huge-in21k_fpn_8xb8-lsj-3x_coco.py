# 8 GPUs x 8 images
_base_ = [
    '../_base_/models/cascade-mask-rcnn_r50_fpn_4conv1fc.py',
    '../_base_/datasets/coco_instance_lsj_padded.py',
    '../_base_/schedules/schedule_bs64_3x_adamw.py',
    '../_base_/default_runtime_det_iter.py',
]

checkpoint = 'hybrid_mm://mvitv2-huge_in21k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.MViTv2',
        arch='huge',
        drop_path_rate=0.6,
        with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
