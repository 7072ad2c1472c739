# PVT's recipe: batch 8 GPUs x 4 = 32, so twice the rate and half the iterations of 16 and 80k.
_base_ = [
    '../_base_/models/fpn_r50.py',
    '../_base_/datasets/ade20k_align32.py',
    '../_base_/schedules/schedule_40k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://pvt-t_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.PVT',
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)

optim_wrapper = dict(optimizer=dict(lr=0.0002))
auto_scale_lr = dict(base_batch_size=32)
