# TensorFlow's model garden: survival_prob 0.3 drops 0.7 k / 24 of block k of 24, counted from 0.
_base_ = [
    '../_base_/models/retinanet_maxvit.py',
    '../_base_/datasets/coco_detection_640x640.py',
    '../_base_/schedules/schedule_bs256_72e_maxvit.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.MaxViT',
        arch='base',
        window_size=20,
        drop_path_rate=0.7 * 23 / 24,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='hybrid_mm://maxvit-base_in1k'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
