_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_80k_adamw_warmup.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'checkpoints/slak-tiny-w1.0_120e_in1k.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.SLaK',
        arch='tiny',
        width_factor=1.0,
        drop_path_rate=0.1,
        layer_scale=1.0,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
