# ConvNeXt's object_detection
_base_ = [
    '../../_base_/models/cascade-mask-rcnn_r50_fpn_4conv1fc-giou.py',
    '../../_base_/datasets/coco_instance_ms-crop.py',
    '../../_base_/schedules/schedule_3x_adamw.py',
    '../../_base_/default_runtime_det.py',
]

model = dict(backbone=dict(_delete_=True, drop_path_rate=0.4))
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    optimizer=dict(lr=0.0002),
    constructor='mmdet.LearningRateDecayOptimizerConstructor',
    paramwise_cfg=dict(decay_rate=0.7, decay_type='layer_wise', num_layers=6),
)
_base_.param_scheduler[0].end = 500
