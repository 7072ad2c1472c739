# TensorFlow's model garden: the cosine takes 115,750 iterations, of which 90,000 are trained.
# survival_prob 0.3 drops 0.7 k / 11 of block k of 11, counted from 0.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_maxvit.py',
    '../_base_/datasets/coco_instance_640x640_ms0.1.py',
    '../_base_/schedules/schedule_90k_adamw_maxvit.py',
    '../_base_/default_runtime_det_iter.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.MaxViT',
        arch='tiny',
        window_size=20,
        drop_path_rate=0.7 * 10 / 11,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='hybrid_mm://maxvit-tiny_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
_base_.param_scheduler[1].end = 115750
optim_wrapper = dict(optimizer=dict(lr=2e-3, weight_decay=1e-4))
