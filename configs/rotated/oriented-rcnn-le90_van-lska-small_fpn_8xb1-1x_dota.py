# An example, not an experiment of a paper: nobody has published figures of VAN-LSKA on DOTA, and
# none were measured here. Detector, warm-up and clipping are MMRotate's; AdamW, its rate and weight
# decay, the batch of 8 x 1, SyncBN, drop path and random rotations are those of the published file
# of LSKNet-S (arXiv 2303.09030), a VAN-B1 with another attention.
_base_ = [
    '../_base_/models/oriented-rcnn-le90_r50_fpn.py',
    '../_base_/datasets/dota.py',
    '../_base_/schedules/schedule_1x_adamw_dota.py',
    '../_base_/default_runtime_rotate.py',
]

checkpoint = 'hybrid_mm://van-lska-small_in1k'
model = dict(
    backbone=dict(
        _delete_=True,
        type='hybrid_mm.VAN',
        arch='small',
        attention='lska',
        kernel_size=23,
        drop_path_rate=0.1,
        norm_cfg=dict(type='SyncBN'),
        init_cfg=dict(type='Pretrained', checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
