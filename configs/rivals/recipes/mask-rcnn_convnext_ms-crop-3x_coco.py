# ConvNeXt's object_detection
_base_ = [
    '../../_base_/models/mask-rcnn_r50_fpn.py',
    '../../_base_/datasets/coco_instance_ms-crop.py',
    '../../_base_/schedules/schedule_3x_adamw.py',
    '../../_base_/default_runtime_det.py',
]

model = dict(backbone=dict(_delete_=True, drop_path_rate=0.4))
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(lr=0.0001),
    constructor='mmdet.LearningRateDecayOptimizerConstructor',
    paramwise_cfg=dict(decay_rate=0.95, decay_type='layer_wise', num_layers=6),
)
_base_.param_scheduler[0].end = 500
