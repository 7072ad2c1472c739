# After TensorFlow's model garden, whose hyper-parameters for this model are not published: here
# those of the cascades.
_base_ = [
    '../_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_instance_640x640_ms0.1.py',
    '../_base_/schedules/schedule_90k_adamw_maxvit.py',
    '../_base_/default_runtime_det_iter.py',
]

checkpoint = 'checkpoints/maxvit-base_in1k.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.MaxViT',
        arch='base',
        window_size=20,
        drop_path_rate=0.7,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
