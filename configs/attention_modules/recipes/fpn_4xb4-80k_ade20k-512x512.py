_base_ = [
    '../../_base_/models/fpn_r50.py',
    '../../_base_/datasets/ade20k.py',
    '../../_base_/schedules/schedule_80k.py',
    '../../_base_/default_runtime_seg.py',
]

sync_bn = 'torch'
model = dict(backbone=dict(_delete_=True, norm_eval=False))
