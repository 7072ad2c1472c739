# Our recipe; the paper has none. The last map, of stride 64, is the fifth level.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_1x_adamw_swin.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://levit-128s_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.LeViT',
        arch='128s',
        out_indices=(0, 1, 2, 3, 4),
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[32, 64, 128, 256, 384]),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(distance_bias=dict(decay_mult=0.0))))
_base_.optim_wrapper.paramwise_cfg.custom_keys.pop('relative_bias')
