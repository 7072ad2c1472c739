# As in the official files, the decay counts from 6 layers although layer ids go up to 12, so that
# the last stages learn faster than the heads. 8 GPUs x 2 images
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/schedules/schedule_1x_adamw_convnext.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://hornet-small_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.HorNet',
        arch='small',
        drop_path_rate=0.6,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(
    optimizer=dict(lr=1e-4), paramwise_cfg=dict(layer_decay_rate=0.95, num_layers=6)
)
