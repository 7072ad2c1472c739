# An example with the schedule of the one with VAN-LSKA beside it: nobody has published figures of
# PeLK on DOTA, and none were measured here. The backbone is that of the detectors of configs/pelk.
# Its weights are not published either: train configs/pelk/pelk-tiny_32xb128-300e_in1k.py first.
_base_ = [
    '../_base_/models/oriented-rcnn-le90_r50_fpn.py',
    '../_base_/datasets/dota.py',
    '../_base_/schedules/schedule_1x_adamw_dota.py',
    '../_base_/default_runtime_rotate.py',
]

checkpoint = 'hybrid_mm://pelk-tiny_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.PeLK',
        arch='tiny',
        drop_path_rate=0.4,
        layer_scale=1.0,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[124, 249, 499, 998]),
)
custom_hooks = [dict(type='hybrid_mm.SparsityHook', init='zeros', scope='backbone.')]
