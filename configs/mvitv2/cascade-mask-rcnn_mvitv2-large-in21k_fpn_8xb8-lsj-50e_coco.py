# The weights are of a network that widens its maps in attention, unlike the published classifier
# (dim_mul_in_att=False).
# 8 GPUs x 8 images
_base_ = [
    '../_base_/models/cascade-mask-rcnn_r50_fpn_4conv1fc.py',
    '../_base_/datasets/coco_instance_lsj_padded.py',
    '../_base_/schedules/schedule_bs64_lsj-50e_adamw.py',
    '../_base_/default_runtime_det_iter.py',
]

checkpoint = 'hybrid_mm://mvitv2-large_in21k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.MViTv2',
        arch='large',
        drop_path_rate=0.5,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[144, 288, 576, 1152]),
)
_base_.optim_wrapper.paramwise_cfg.custom_keys = {'attn.relative': dict(decay_mult=0.0)}
