# Not in the paper: the recipe that this project uses for all backbones.
_base_ = [
    '../_base_/models/fpn_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_80k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://r50-acmix_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.ACmixResNet',
        arch='r50',
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    )
)
