# PVT's recipe.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_1x_adamw.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://pvt-t_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.PVT',
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
optim_wrapper = dict(optimizer=dict(lr=0.0002, weight_decay=0.0001))
_base_.param_scheduler[0].end = 500
