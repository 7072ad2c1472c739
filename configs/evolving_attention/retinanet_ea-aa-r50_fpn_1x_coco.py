# Not in the paper: the 1x recipe of ResNet-50. Attention as with Mask R-CNN.
_base_ = [
    '../_base_/models/retinanet_r50_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://ea-aa-r50_in1k'
model = dict(
    data_preprocessor=dict(mean=[123.68, 116.78, 103.94], std=[1.0, 1.0, 1.0]),
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.EAAAResNet',
        arch='r50',
        canvas_size=(1344, 1344),
        max_tokens=2048,
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
)

optim_wrapper = dict(optimizer=dict(lr=0.01))
