# The paper's setting with the recipe of TensorFlow's model garden, which has no file for this size:
# the values are those of the base and large networks, the drop path rate is that of 640 x 640.
_base_ = [
    '../_base_/models/cascade-mask-rcnn_maxvit.py',
    '../_base_/datasets/coco_instance_896x896_ms0.1.py',
    '../_base_/schedules/schedule_90k_adamw_maxvit.py',
    '../_base_/default_runtime_det_iter.py',
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.MaxViT',
        arch='tiny',
        window_size=28,
        drop_path_rate=0.7 * 10 / 11,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint='hybrid_mm://maxvit-tiny_in1k'),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
