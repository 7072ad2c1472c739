_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_syncbn.py',
    '../_base_/datasets/coco_instance_1024x1024_ms0.1.py',
    '../_base_/schedules/schedule_bs64_72e.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://bot101-s1_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.BoTNet',
        arch='bot101',
        shortcut_act=True,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    )
)
