# Not in the paper: the recipe that this project uses for all backbones.
# Relative tables are interpolated for test images longer than 512 pixels.
_base_ = [
    '../_base_/models/fpn_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_80k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://bot50-s1_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.BoTNet',
        arch='bot50',
        shortcut_act=True,
        canvas_size=(512, 512),
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    )
)
