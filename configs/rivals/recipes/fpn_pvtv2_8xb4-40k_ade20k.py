# PVTv2-Seg
_base_ = [
    '../../_base_/models/fpn_r50.py',
    '../../_base_/datasets/ade20k_align32.py',
    '../../_base_/schedules/schedule_40k_adamw.py',
    '../../_base_/default_runtime_seg.py',
]

model = dict(backbone=dict(_delete_=True))
optim_wrapper = dict(optimizer=dict(lr=0.0002))
auto_scale_lr = dict(base_batch_size=32)
