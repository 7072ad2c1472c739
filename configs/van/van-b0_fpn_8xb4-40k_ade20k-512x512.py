# Batch 8 GPUs x 4 = 32, so twice the rate and half the iterations of the usual 16 and 80k; the 50
# repeats of the data set in the official code have no effect on training by iterations.
_base_ = [
    '../_base_/models/fpn_r50.py',
    '../_base_/datasets/ade20k_align32.py',
    '../_base_/schedules/schedule_40k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://van-b0_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.VAN',
        arch='b0',
        drop_path_rate=0.2,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[32, 64, 160, 256]),
)

optim_wrapper = dict(optimizer=dict(lr=0.0002))
auto_scale_lr = dict(base_batch_size=32)
