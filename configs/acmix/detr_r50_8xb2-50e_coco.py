# The network that PVT's paper compares DETR with PVT-S with, by the same recipe.
_base_ = [
    '../_base_/models/detr_r50.py',
    '../_base_/datasets/coco_detection_ms-640to800.py',
    '../_base_/schedules/schedule_50e_adamw_detr.py',
    '../_base_/default_runtime_det.py',
]
