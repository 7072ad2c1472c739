# Not in the paper: the 1x recipe of ResNet-50.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime_det.py',
]

checkpoint = 'hybrid_mm://quadratic-r50_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.QuadraticAttentionResNet',
        arch='r50',
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    )
)

_base_.optim_wrapper.paramwise_cfg = dict(
    custom_keys={'.centers': dict(decay_mult=0.0), '.spreads': dict(decay_mult=0.0)}
)
