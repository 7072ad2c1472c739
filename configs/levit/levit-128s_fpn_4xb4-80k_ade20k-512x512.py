# Our recipe; the paper has none. 4 GPUs x 4 crops
_base_ = [
    '../_base_/models/fpn_r50.py',
    '../_base_/datasets/ade20k_align32.py',
    '../_base_/schedules/schedule_80k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://levit-128s_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.LeViT',
        arch='128s',
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
