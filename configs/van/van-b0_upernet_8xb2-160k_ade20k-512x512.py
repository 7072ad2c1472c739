_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k_align32.py',
    '../_base_/schedules/schedule_160k_adamw.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://van-b0_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.VAN',
        arch='b0',
        drop_path_rate=0.1,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[32, 64, 160, 256]),
    auxiliary_head=dict(in_channels=160),
)

train_dataloader = dict(batch_size=2)
