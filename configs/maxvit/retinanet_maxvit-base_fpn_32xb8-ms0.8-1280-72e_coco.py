# As at 640 x 640, with anchors of 3 strides.
_base_ = [
    '../_base_/models/retinanet_maxvit.py',
    '../_base_/datasets/coco_detection_1280x1280.py',
    '../_base_/schedules/schedule_bs256_72e_maxvit.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.MaxViT',
        arch='base',
        window_size=40,
        drop_path_rate=0.7 * 23 / 24,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='hybrid_mm://maxvit-base_in1k'),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
    bbox_head=dict(anchor_generator=dict(octave_base_scale=3)),
)
