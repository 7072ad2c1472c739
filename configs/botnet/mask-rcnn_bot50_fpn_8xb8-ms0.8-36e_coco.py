# SGD with momentum, the canvas and its jitter are the paper's. No source states the rest: rate 0.1
# for 64 images, weight decay 4e-5 and trained batch norm are from memory, the steps are ours.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_syncbn.py',
    '../_base_/datasets/coco_instance_1024x1024.py',
    '../_base_/schedules/schedule_bs64_36e.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://bot50-s1_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.BoTNet',
        arch='bot50',
        shortcut_act=True,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    )
)
