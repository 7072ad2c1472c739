# In float32, unlike the other networks.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_r50_fpn_4conv1fc-giou.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/schedule_3x_adamw_swin.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://dinat-large_in22k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.DiNAT',
        arch='large',
        dilations='coco',
        drop_path_rate=0.6,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[192, 384, 768, 1536]),
)
_base_.param_scheduler[0].end = 500
optim_wrapper = dict(optimizer=dict(lr=7.5e-05))
