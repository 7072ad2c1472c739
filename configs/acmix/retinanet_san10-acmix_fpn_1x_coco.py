# Not in the papers: MMDetection's recipe of RetinaNet with a ResNet-50.
_base_ = [
    '../_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://san10-acmix_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.SAN',
        arch='san10',
        acmix=True,
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    )
)

optim_wrapper = dict(optimizer=dict(lr=0.01))
