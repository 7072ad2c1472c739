_base_ = [
    '../../_base_/models/retinanet_r50_fpn.py',
    '../../_base_/datasets/coco_detection.py',
    '../../_base_/schedules/schedule_1x.py',
    '../../_base_/default_runtime_det.py',
]

model = dict(backbone=dict(_delete_=True, frozen_stages=1, norm_eval=True))

# half the rate of two-stage detectors
optim_wrapper = dict(optimizer=dict(lr=0.01))
