# The paper's setting with the recipe of TensorFlow's model garden; comments in the bases say what
# is ours. The drop path rate is not published for this size; it is that of 640 x 640, where
# survival_prob 0.3 drops 0.7 of the last block. The original trains in bfloat16: use --amp.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_maxvit.py',
    '../_base_/datasets/coco_instance_896x896_ms0.1.py',
    '../_base_/schedules/schedule_90k_adamw_maxvit.py',
    '../_base_/default_runtime_det_iter.py',
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
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
