# Tables of relative positions decay: the published exception names none of the parameters.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/schedule_3x_adamw_swin.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://elsa-swin-t_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.ELSASwin',
        arch='tiny',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
_base_.param_scheduler[0].end = 500
_base_.optim_wrapper.paramwise_cfg.custom_keys.pop('relative_bias')
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
