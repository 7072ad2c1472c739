_base_ = './van-lska-tiny_fpn_4xb4-80k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-lska-small_in1k'
model = dict(
    backbone=dict(arch='small', init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
