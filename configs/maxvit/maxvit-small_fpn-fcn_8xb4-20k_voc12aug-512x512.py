# TensorFlow's model garden, which publishes no result: survival_prob 0.7 drops 0.3 k / 11 of block
# k of 11, counted from 0.
_base_ = [
    '../_base_/models/fpn-fcn_maxvit.py',
    '../_base_/datasets/voc12aug_512x512.py',
    '../_base_/schedules/schedule_20k_adamw_maxvit.py',
    '../_base_/default_runtime_seg.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.MaxViT',
        arch='small',
        window_size=16,
        drop_path_rate=0.3 * 10 / 11,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='hybrid_mm://maxvit-small_in1k'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
