# Our recipe; the paper has none. CvT ends at stride 16; convolutions of the FPN make the levels of
# strides 32 and 64.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_1x_adamw_swin.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://cvt-13_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.CvT',
        arch='13',
        drop_path_rate=0.1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[64, 192, 384], add_extra_convs='on_output'),
)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(class_token=dict(decay_mult=0.0))))
_base_.optim_wrapper.paramwise_cfg.custom_keys.pop('relative_bias')
