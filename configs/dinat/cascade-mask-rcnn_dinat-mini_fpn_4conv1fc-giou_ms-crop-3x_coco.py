_base_ = [
    '../_base_/models/cascade-mask-rcnn_r50_fpn_4conv1fc-giou.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/schedule_3x_adamw_swin.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://dinat-mini_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.DiNAT',
        arch='mini',
        dilations='coco',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
_base_.param_scheduler[0].end = 500
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
