_base_ = './van-b0_fpn_8xb4-40k_ade20k-512x512.py'

checkpoint = 'hybrid_mm://van-b1_in1k'
model = dict(
    backbone=dict(arch='b1', init_cfg=dict(checkpoint=checkpoint)),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
