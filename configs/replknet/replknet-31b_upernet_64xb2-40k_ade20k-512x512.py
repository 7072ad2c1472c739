_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_40k_adamw_warmup.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://replknet-31b_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.RepLKNet',
        arch='31b',
        drop_path_rate=0.5,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[128, 256, 512, 1024]),
    auxiliary_head=dict(in_channels=512),
)
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(base_batch_size=128)  # 64 GPUs x 2 crops
