# Paper's setting and TensorFlow's model garden's recipe in MMDetection's parts; the bases say what is
# ours. survival_prob 0.3 there drops 0.7 of the last block; that of this one is not published, it is
# the one of 640 x 640. bfloat16 there: train with --amp.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_maxvit.py',
    '../_base_/datasets/coco_instance_896x896_ms0.1.py',
    '../_base_/schedules/schedule_90k_adamw_maxvit.py',
    '../_base_/default_runtime_det.py'
]

checkpoint = 'checkpoints/maxvit-tiny_in1k.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.MaxViT',
        arch='tiny',
        window_size=28,
        drop_path_rate=0.7,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 128, 256, 512]))
train_dataloader = dict(sampler=dict(_delete_=True, type='InfiniteSampler'))
