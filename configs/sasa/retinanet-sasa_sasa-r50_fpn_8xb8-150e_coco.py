# From scratch. Recalled from the paper, unverified: the jitter of 512 to 768, the rate of 0.08
# for 8 GPUs x 8 images with cosine decay, and batch norm that is trained.
# Which convolutions of FPN and heads became attention is not published; here all 3x3 ones but
# those that predict.
_base_ = [
    '../_base_/models/retinanet_r50_fpn_scratch.py',
    '../_base_/datasets/coco_detection_640x640.py',
    '../_base_/schedules/schedule_150e_cosine.py',
    '../_base_/default_runtime_det.py',
]

conv_cfg = dict(type='hybrid_mm.SASAConv2d', window=7, heads=8)
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.SASAResNet',
        arch='r50',
        stem='attention',
        norm_cfg=dict(type='SyncBN'),
    ),
    neck=dict(conv_cfg=conv_cfg),
    bbox_head=dict(conv_cfg=conv_cfg),
)
