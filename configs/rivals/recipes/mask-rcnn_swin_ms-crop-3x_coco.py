# Swin-Transformer-Object-Detection
_base_ = [
    '../../_base_/models/mask-rcnn_r50_fpn.py',
    '../../_base_/datasets/coco_instance_ms-crop.py',
    '../../_base_/schedules/schedule_3x_adamw.py',
    '../../_base_/default_runtime_det.py',
]

model = dict(backbone=dict(_delete_=True, drop_path_rate=0.2))
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale='dynamic',
    paramwise_cfg=dict(
        custom_keys=dict(
            norm=dict(decay_mult=0.0), relative_position_bias_table=dict(decay_mult=0.0)
        )
    ),
)
_base_.param_scheduler[0].end = 500
