# Our variant: as wide as ConvNeXt, not sparse, and faster with the same number of parameters.
_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k_adamw_pelk.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://pelk-tiny-w1.0_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.PeLK',
        arch='tiny',
        width_factor=1.0,
        drop_path_rate=0.4,
        layer_scale=1.0,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768]),
    auxiliary_head=dict(in_channels=384),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
