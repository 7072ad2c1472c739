# From memory of the paper; not verified: the jitter, rate 0.1 for 64 images, weight decay 4e-5, and
# trained batch norm. The steps of the schedule are ours (those of the paper are near the end).
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_syncbn.py',
    '../_base_/datasets/coco_instance_1024x1024_ms0.5.py',
    '../_base_/schedules/schedule_bs64_72e.py',
    '../_base_/default_runtime_det.py',
]
