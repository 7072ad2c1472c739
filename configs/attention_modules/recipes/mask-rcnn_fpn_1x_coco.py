_base_ = [
    '../../_base_/models/mask-rcnn_r50_fpn.py',
    '../../_base_/datasets/coco_instance.py',
    '../../_base_/schedules/schedule_1x.py',
    '../../_base_/default_runtime_det.py',
]

# frozen: stem and first stage, and the statistics of all batch norms
model = dict(backbone=dict(_delete_=True, frozen_stages=1, norm_eval=True))
