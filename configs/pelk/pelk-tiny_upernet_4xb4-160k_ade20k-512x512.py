# The recipe is that of SLaK (unverified): the paper gives no details.
_base_ = [
    '../_base_/models/upernet_r50.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/schedule_160k_adamw_convnext.py',
    '../_base_/default_runtime_seg.py',
]

checkpoint = 'checkpoints/pelk-tiny_in1k.pth'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.PeLK',
        arch='tiny',
        drop_path_rate=0.4,
        layer_scale=1.0,
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    decode_head=dict(in_channels=[124, 249, 499, 998]),
    auxiliary_head=dict(in_channels=499),
)
custom_hooks = [dict(type='hybrid_mm.SparsityHook', init='zeros', scope='backbone.')]
