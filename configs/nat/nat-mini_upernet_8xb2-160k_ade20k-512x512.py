_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k_adamw_swin.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://nat-mini_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.NAT',
        arch='mini',
        drop_path_rate=0.2,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256),
)
optim_wrapper = dict(type='AmpOptimWrapper', loss_scale='dynamic')
train_dataloader = dict(batch_size=2)
