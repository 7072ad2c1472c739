_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k_adamw_convnext.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'hybrid_mm://slak-tiny_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.SLaK',
        arch='tiny',
        drop_path_rate=0.4,
        layer_scale=1.0,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[124, 249, 499, 998]),
    auxiliary_head=dict(in_channels=499),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
custom_hooks = [dict(type='hybrid_mm.SparsityHook', init='zeros', scope='backbone.')]
