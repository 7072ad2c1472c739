# PVT's detection
_base_ = [
    '../../_base_/models/retinanet_r50_fpn.py',
    '../../_base_/datasets/coco_detection.py',
    '../../_base_/schedules/schedule_1x_adamw.py',
    '../../_base_/default_runtime_det.py',
]

model = dict(backbone=dict(_delete_=True))
optim_wrapper = dict(optimizer=dict(weight_decay=0.0001))
_base_.param_scheduler[0].end = 500
