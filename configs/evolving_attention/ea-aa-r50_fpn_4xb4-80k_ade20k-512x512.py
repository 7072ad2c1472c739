# Not in the paper: the recipe that this project uses for all backbones.
_base_ = [
    '../_base_/models/fpn_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_80k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://ea-aa-r50_in1k'
model = dict(
    data_preprocessor=dict(mean=[123.68, 116.78, 103.94], std=[1.0, 1.0, 1.0]),
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.EAAAResNet',
        arch='r50',
        canvas_size=(512, 512),
        max_tokens=2048,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
)
