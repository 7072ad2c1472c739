# Not in the paper: the 160k recipe of ResNet-50. All 32 x 32 positions of a crop are attended to;
# test images with more than 2048 are pooled.
_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k.py',
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
