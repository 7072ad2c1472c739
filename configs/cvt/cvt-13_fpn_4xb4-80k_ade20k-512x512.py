# Our recipe; the paper has none. Three levels, as CvT ends at stride 16. 4 GPUs x 4 crops
_base_ = [
    '../_base_/models/fpn_r50.py',
    '../_base_/datasets/ade20k_align32.py',
    '../_base_/schedules/schedule_80k_adamw.py',
    '../_base_/default_runtime_seg.py',
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
    neck=dict(in_channels=[64, 192, 384], num_outs=3),
    decode_head=dict(in_channels=[256, 256, 256], in_index=[0, 1, 2], feature_strides=[4, 8, 16]),
)
