# Our recipe, after that of PVT; the paper has no such experiment. 8 GPUs x 4 crops
_base_ = [
    '../_base_/models/fpn_r50.py',
    '../_base_/datasets/ade20k_align32.py',
    '../_base_/schedules/schedule_40k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://coatnet-0-rw_in1k'
model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.CoAtNet',
        arch='0-rw',
        img_size=512,
        drop_path_rate=0.2,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
optim_wrapper = dict(optimizer=dict(lr=0.0002))
auto_scale_lr = dict(base_batch_size=32)
