_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/cityscapes_769x769.py',
    '../_base_/schedules/schedule_20k_adamw_warmup.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://replknet-31b_in1k'
model = dict(
    data_preprocessor=dict(size=(769, 769)),
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.RepLKNet',
        arch='31b',
        drop_path_rate=0.5,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024], num_classes=19, align_corners=True),
    auxiliary_head=dict(in_channels=512, num_classes=19, align_corners=True),
)
auto_scale_lr = dict(base_batch_size=64)  # 32 GPUs x 2 crops
